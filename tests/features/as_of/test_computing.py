"""Snapshots that memory is short of: some members at a time they are the same as all at once."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from features.as_of import computing
from features.as_of.computing import writer
from features.memory import query_memory
from features.programme import Programme
from features.warehouse import quietly

NEW_YORK = Programme(timezone="America/New_York")
SHAPES = {
    "everything": lambda tables: tables,
    "purchases only": lambda tables: {name: tables[name] for name in ("members", "transactions")},
    "one member": lambda tables: {name: rows[rows["member_id"] == "m05"] for name, rows in tables.items()},
}


@pytest.fixture
def brought(company):
    """Give tables of some shape in files, as a warehouse has them."""

    def bring(shape):
        tables = SHAPES[shape](company.everything(np.random.default_rng(4)))
        return company.ingest({name: rows for name, rows in tables.items() if len(rows)}, programme=NEW_YORK).paths

    return bring


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Give what writes snapshots in so many pieces, as if members had as many more rows."""

    def write(paths, as_ofs, *, pieces):
        rows = sum(pq.read_metadata(path).num_rows for path in paths.values())
        monkeypatch.setattr(computing, "ROW", (pieces - 0.5) * query_memory() / rows)
        folder = tmp_path / f"in-{pieces}"
        folder.mkdir()
        to = [folder / f"{number}.parquet" for number, _ in enumerate(as_ofs)]
        with quietly():
            one = writer(paths, NEW_YORK, folder=folder)
            for as_of, path in zip(as_ofs, to, strict=True):
                one(as_of, path)
        return [pq.read_table(path).columns for path in to]

    return write


@pytest.mark.parametrize(("shape", "pieces"), [("everything", 3), ("purchases only", 30), ("one member", 2)])
def test_in_pieces_a_snapshot_is_the_same(company, brought, written, shape, pieces):
    as_ofs = [NEW_YORK.days_before(company.as_of, days) for days in (7, 0)]
    whole = written(brought(shape), as_ofs, pieces=1)
    assert all(len(ids) for ids, *_ in whole)
    assert written(brought(shape), as_ofs, pieces=pieces) == whole


def test_a_table_whose_last_row_was_erased_is_in_every_piece(company, brought, written, tmp_path):
    paths = brought("everything")
    empty = pq.read_schema(paths["events"]).empty_table()
    pq.write_table(empty, tmp_path / "events.parquet")
    paths["events"] = tmp_path / "events.parquet"
    assert written(paths, [company.as_of], pieces=3) == written(paths, [company.as_of], pieces=1)
