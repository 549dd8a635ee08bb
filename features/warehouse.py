"""The warehouse: one Parquet file per table, replaced as a set, read through DuckDB.

`manifest.json` names the files that count. A batch writes new files beside the old ones and the manifest last, so an
ingest that is killed leaves the previous state.
"""

import json
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pyarrow.parquet as pq

from features.errors import ContractError, NotFoundError
from features.files import fingerprint, write_by_content, write_json
from features.home import Home
from features.memory import within
from features.programme import Programme
from features.schema import TABLES

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pandas as pd
    from ibis.backends.duckdb import Backend

LOCAL_TIME: Final = "local_time"  # derived: the row's time as the programme's wall clock shows it


@contextmanager
def quietly() -> Iterator[None]:
    """Run queries without two warnings of DuckDB 2: ibis 12 calls a method by its old name, and a copy is made."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fetch_arrow_table", DeprecationWarning)
        warnings.filterwarnings("ignore", "Arrow output on a DB-API result", UserWarning)
        yield


@lru_cache(maxsize=8)  # of few homes at a time; tables that are joined have to be of one
def _queries(home: Home) -> "Backend":
    import ibis

    return ibis.duckdb.connect(**within(home.root))


@dataclass(frozen=True)
class TableFile:
    """Say what is stored of one table, and how many of its rows were refused."""

    table: str
    file: str
    rows: int
    quarantined: int
    sha256: str


@dataclass(frozen=True)
class Warehouse:
    """Name the tables that were ingested."""

    home: Home
    source: str
    source_fingerprint: str
    read_by: dict[str, Any]  # the programme's settings that its times and amounts follow from
    tables: dict[str, TableFile]

    @property
    def fingerprint(self) -> str:
        """Change whenever a row of any table changes."""
        return fingerprint({name: table.sha256 for name, table in self.tables.items()})

    @property
    def paths(self) -> dict[str, Path]:
        """Where each table is."""
        return {name: self.path(name) for name in self.tables}

    def expression(self, name: str) -> "ir.Table":
        """Give a table as an Ibis expression over its Parquet file."""
        with quietly():
            return _queries(self.home).read_parquet(self.path(name))

    def frame(self, name: str, columns: list[str] | None = None) -> "pd.DataFrame":
        """Read a table, or some of its columns, into memory."""
        table: pd.DataFrame = pq.read_table(self.path(name), columns=columns).to_pandas()
        return table

    def path(self, name: str) -> Path:
        """Give a table's Parquet file; the next ingest replaces it."""
        if name not in self.tables:
            raise NotFoundError(
                f"the warehouse holds no table {name!r}, only {', '.join(sorted(self.tables))}; "
                f"`holdfast ingest` brings it in"
            )
        return self.home.warehouse / self.tables[name].file


class NewTable(NamedTuple):
    """Give what writes a table's file, how many rows it has, and how many were refused."""

    write: Callable[[Path], object]
    rows: int
    quarantined: int


def open_warehouse(home: Home) -> Warehouse:
    """Open what the last completed ingest left.

    Raises
    ------
    NotFoundError
        If nothing was ingested yet, or by another version.
    """
    path = home.warehouse / "manifest.json"
    if not path.exists():
        raise NotFoundError(f"{home.warehouse} holds no tables yet; `holdfast ingest` brings them in")
    value: dict[str, Any] = json.loads(path.read_bytes())
    try:
        value["tables"] = {name: TableFile(**table) for name, table in value["tables"].items()}
        return Warehouse(home=home, **value)
    except (KeyError, TypeError) as error:
        raise NotFoundError(
            f"{path} is of another version, which kept other things; `holdfast ingest` brings the tables in again"
        ) from error


def read_by(programme: Programme) -> dict[str, Any]:
    """Give the settings that the times and amounts of a table follow from."""
    return programme.model_dump(include={"timezone", "currency", "currency_digits"})


def refuse_other_units(standing: Warehouse, programme: Programme) -> None:
    """Keep rows of two time zones or currencies from standing in one table, and one's from being read as the other's.

    Raises
    ------
    ContractError
        If the settings are others than those by which the tables were read.
    """
    now = read_by(programme)
    changed = [f"{name} was {was!r} and is {now[name]!r}" for name, was in standing.read_by.items() if was != now[name]]
    if changed:
        raise ContractError(
            f"{' and '.join(changed)} since the tables were read; bring all of them anew by `holdfast ingest`, "
            "without --add"
        )


def replace_tables(
    home: Home, batch: Mapping[str, NewTable], *, source: str, source_fingerprint: str, read_by: dict[str, Any]
) -> Warehouse:
    """Write a batch and let it take the old one's place at once."""
    return _count(Warehouse(home, source, source_fingerprint, read_by, _write(home, batch)))


def add_tables(standing: Warehouse, key: str, batch: Mapping[str, NewTable]) -> Warehouse:
    """Write a batch's tables in place of their namesakes, at once; a batch that changes no row changes nothing."""
    tables = standing.tables.copy()
    for name, file in _write(standing.home, batch).items():
        before = tables[name].quarantined if name in tables else 0
        tables[name] = replace(file, quarantined=before + file.quarantined)
    ordered = {name: tables[name] for name in order_tables(set(tables))}
    chained = fingerprint(standing.source_fingerprint, key)
    after = replace(standing, source_fingerprint=chained, tables=ordered)
    return standing if after.fingerprint == standing.fingerprint else _count(after)


def without_members(home: Home, member_ids: Collection[str]) -> dict[str, int]:
    """Take members' rows out of every table, at once; give how many there were of each."""
    from features.privacy.rows import count_rows, rewrite

    try:
        standing = open_warehouse(home)
    except NotFoundError:
        return {}
    found = {name: count_rows(standing.path(name), member_ids) for name in standing.tables}
    batch = {
        name: NewTable(
            partial(rewrite, standing.path(name), member_ids=member_ids), standing.tables[name].rows - rows, 0
        )
        for name, rows in found.items()
        if rows
    }
    files = {
        name: replace(file, quarantined=standing.tables[name].quarantined) for name, file in _write(home, batch).items()
    }
    _count(replace(standing, tables=standing.tables | files))  # also where one that was killed has left the old files
    return found


def _write(home: Home, batch: Mapping[str, NewTable]) -> dict[str, TableFile]:
    files = {}
    for name, table in batch.items():
        path, digest = write_by_content(home.warehouse, name, ".parquet", table.write)
        files[name] = TableFile(name, path.name, table.rows, table.quarantined, digest)
    return files


def _count(warehouse: Warehouse) -> Warehouse:
    """Let a warehouse's files be those that count, and delete the others."""
    home, record = warehouse.home, asdict(warehouse)
    del record["home"]
    write_json(home.warehouse / "manifest.json", record)
    for path in home.warehouse.glob("*.parquet"):
        if path.name not in {file.file for file in warehouse.tables.values()}:
            path.unlink()
    return warehouse


def order_tables(names: set[str]) -> list[str]:
    """Put table names into the contract's order."""
    return [name for name in TABLES if name in names]
