"""The file that a campaign system takes, one row per decision, and what it comes to."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.errors import ContractError
from features.files import part_of, remove, write_whole
from features.home import Home
from features.log.parts import KEY
from features.schema import CONTROL
from features.stores.objects import Objects

FORMATS: Final = (".parquet", ".csv")
MARK: Final = b"\xef\xbb\xbf"
FORMULA: Final = r"^([=+\-@\t\r])"  # what a spreadsheet would run, were it the beginning of a cell


@contextmanager
def bound_for(out: str, home: Home) -> Iterator[Path]:
    """Give the file to write; what belongs in object storage is carried there at the end, with what lies beside it.

    Raises
    ------
    ContractError
        Before anything is decided, if it is a file of another kind.
    UnavailableError
        Likewise, if the storage does not answer, or takes nothing.
    """
    if not out.lower().endswith(FORMATS):
        raise ContractError(f"--out {out} came, a name that ends in {' or '.join(FORMATS)} was wanted")
    place, _, name = out.rpartition("/")
    if "://" not in out:
        yield Path(out)
        return
    objects = Objects(place)
    objects.probe()
    folder = part_of(home.batches / "out")  # named so that whoever sweeps the home finds what a kill leaves
    folder.mkdir(parents=True)
    try:
        yield folder / name
        for path in sorted(folder.iterdir()):
            objects.put(path.name, path)
    finally:
        remove(folder)


def write_output(path: Path, parts: Iterable[pa.Table], *, marked: bool = False) -> None:
    """Write tables of one schema, one after the other, as Parquet or as CSV that is safe to open in a spreadsheet.

    Parameters
    ----------
    marked : whether a CSV begins with the mark by which Excel knows UTF-8
    """
    writes = partial(_csv, mark=MARK if marked else b"") if path.suffix.lower() == ".csv" else _parquet
    write_whole(path, partial(writes, parts=iter(parts)))


def inert(words: pa.ChunkedArray) -> pa.ChunkedArray:
    """Let no cell begin as a formula does: OWASP, "CSV injection".

    >>> inert(pa.chunked_array([["=1+1", "m1", None]])).to_pylist()
    ["'=1+1", 'm1', None]
    """
    return pc.replace_substring_regex(words, FORMULA, r"'\1")


def _parquet(path: Path, *, parts: Iterable[pa.Table]) -> None:
    _write(parts, lambda schema: pq.ParquetWriter(path, schema))


def _csv(path: Path, *, parts: Iterable[pa.Table], mark: bytes) -> None:
    with path.open("wb") as file:
        file.write(mark)
        _write(map(_plain, parts), lambda schema: pyarrow.csv.CSVWriter(file, schema))


def _write(
    parts: Iterable[pa.Table], open_writer: Callable[[pa.Schema], "pq.ParquetWriter | pa.csv.CSVWriter"]
) -> None:
    first = next(iter(parts))
    with open_writer(first.schema) as writer:
        writer.write_table(first)
        for part in parts:
            writer.write_table(part)


def _plain(part: pa.Table) -> pa.Table:
    """Spell dictionaries and times out, and disarm every word."""
    return pa.table({name: _cell(part[name]) for name in part.column_names})


def _cell(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_timestamp(column.type):
        return pc.strftime(column, format="%Y-%m-%dT%H:%M:%SZ")
    words = column.cast(pa.string()) if pa.types.is_dictionary(column.type) else column
    return inert(words) if pa.types.is_string(words.type) else words


@dataclass(frozen=True)
class Tally:
    """Count what was decided; money in minor units."""

    outcomes: Counter[str] = field(default_factory=Counter)
    contacts: Counter[str] = field(default_factory=Counter)  # by offer
    cost: Counter[str] = field(default_factory=Counter)  # expected, by offer
    net_value: Counter[str] = field(default_factory=Counter)  # expected, by offer
    error: Counter[str] = field(default_factory=Counter)  # standard errors added up, by offer

    def add(self, other: "Tally") -> None:
        """Count those of another as well."""
        for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True):
            mine.update(theirs)

    @property
    def spent(self) -> int:
        """The expected cost of all contacts."""
        return self.cost.total()


def tally(path: Path) -> Tally:
    """Count the decisions of a part."""
    return counted(decision_rows(path))


def decision_rows(path: Path) -> pa.Table:
    """Read of a part what a campaign needs to know."""
    names = ["decision_id", "member_id", "treatment", "outcome", "propensity", "churn_probability"]
    by_offer = ["cost", "net_value", "error"]
    part = pq.read_table(path, columns=[*names, *by_offer, "segment", "lifecycle_stage"], use_threads=False)
    treatments = json.loads(part.schema.metadata[KEY])["treatments"]
    chosen = pc.index_in(part["treatment"].cast(pa.string()), pa.array(treatments)).to_numpy()
    expected = {f"expected_{name}": _of_chosen(part[name], chosen) for name in ("net_value", "cost")}
    words = {name: part[name] for name in ("segment", "lifecycle_stage")}
    return pa.table({**{name: part[name] for name in names}, **expected, "standard_error": part["error"], **words})


def _of_chosen(lists: pa.ChunkedArray, chosen: NDArray[np.int32]) -> pa.Array:
    """Take each row's entry for what was chosen; control is worth and costs nothing."""
    whole = lists.combine_chunks()
    size = whole.type.list_size
    place = np.arange(len(chosen)) * size + np.maximum(chosen - 1, 0)
    values = whole.values.take(pa.array(place))
    return pc.if_else(pa.array(chosen == 0), 0, values)


def counted(rows: pa.Table) -> Tally:
    """Count decisions."""
    by_offer = rows.group_by("treatment").aggregate(
        [("expected_cost", "sum"), ("expected_net_value", "sum"), ("standard_error", "sum"), ("treatment", "count")]
    )
    sent = [row for row in by_offer.to_pylist() if row["treatment"] != CONTROL]
    outcomes = pc.value_counts(rows["outcome"]).to_pylist()
    return Tally(
        Counter({row["values"]: row["counts"] for row in outcomes}),
        *(
            Counter({row["treatment"]: row[name] for row in sent})
            for name in ("treatment_count", "expected_cost_sum", "expected_net_value_sum", "standard_error_sum")
        ),
    )
