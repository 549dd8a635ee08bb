"""The vectors of a few members at any moment, from their rows in the warehouse and in the journal.

DuckDB runs the plan of `features.as_of.plan`: the definition that training uses, over tables that hold the rows of
those members alone. The warehouse's files are sorted by member, so that little of them is read.
"""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import duckdb
import pyarrow as pa

from features.as_of.plan import AUDIENCE, Plan
from features.errors import ContractError, NotFoundError
from features.journal import OCCURRED, OWN_ID, Entry
from features.programme import Programme
from features.schema import TABLES
from features.warehouse import LOCAL_TIME, Warehouse, quietly

MEMORY: Final = "1GB"  # what DuckDB may take
_TYPES: Final = {
    "id": pa.string(),
    "text": pa.string(),
    "time": pa.timestamp("us", tz="UTC"),
    "money": pa.int64(),
    "count": pa.int64(),
}

Known = tuple[Entry, datetime]  # an entry, and the time from which it was known


class Vectors:
    """Compute vectors at any moment, in one connection to DuckDB, on one thread.

    Raises
    ------
    ContractError
        If the warehouse has not the columns that were planned for.
    """

    def __init__(self, plan: Plan, warehouse: Warehouse) -> None:
        self.plan, self._warehouse = plan, warehouse
        self._zone = Programme(timezone=plan.timezone).zone
        self._db = duckdb.connect(config={"threads": 1, "memory_limit": MEMORY})
        self._db.execute("SET TimeZone = 'UTC'")
        try:
            for name, rows in self._tables():
                self._db.execute(f"CREATE TABLE {name} AS {rows} LIMIT 0")
            self._db.execute(f"PREPARE vectors AS {plan.sql}")
        except (duckdb.BinderException, NotFoundError) as error:
            raise ContractError(f"the warehouse has other columns now ({error}); `holdfast features build`") from error

    def at(self, as_of: datetime, member_ids: Sequence[str], entries: Sequence[Known] = ()) -> pa.Table:
        """Compute a row, as a snapshot's, for each of the members who is in the warehouse.

        Parameters
        ----------
        entries : what the journal has of them, with the time from which it was known; of a purchase or an event that
            the warehouse has as well, the warehouse's rows count
        """
        for name, rows in self._tables():
            self._db.execute(f"TRUNCATE {name}")
            self._db.execute(f"INSERT INTO {name} {rows} WHERE member_id IN (SELECT unnest($1))", [list(member_ids)])
            self._add(name, [known for known in entries if known[0].table == name])
        today = as_of.astimezone(self._zone).date()
        self._db.execute(f"SET VARIABLE as_of = TIMESTAMPTZ '{as_of.isoformat()}'")
        self._db.execute(f"SET VARIABLE today = DATE '{today.isoformat()}'")
        with quietly():  # DuckDB would rather have a relation, which holds Python's lock for 9 ms: decisions would wait
            reader: pa.RecordBatchReader = self._db.execute("EXECUTE vectors").to_arrow_reader()
            return reader.read_all()

    def stored(self, name: str, keys: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
        """Give those of the entries of a table, by id and member, that the warehouse has."""
        own = OWN_ID[name]
        ids, members = [key for key, _ in keys], [member for _, member in keys]
        self._db.register("asked", pa.table({own: pa.array(ids, pa.string()), "of": pa.array(members, pa.string())}))
        rows = f"SELECT {own}, member_id FROM '{_quoted(self._warehouse.path(name))}'"  # noqa: S608 (no value of a row)
        return self._db.execute(f"FROM asked INTERSECT {rows}").fetchall()

    def close(self) -> None:
        """Let go of the connection."""
        self._db.close()

    def _tables(self) -> list[tuple[str, str]]:
        """Give the tables of the plan, each with the query for its rows."""
        files = {name: (self._warehouse.path(name), ", ".join(chosen)) for name, chosen in self.plan.columns.items()}
        files[AUDIENCE] = (self._warehouse.home.live / self.plan.audience, "*")
        return [(name, f"SELECT {columns} FROM '{_quoted(file)}'") for name, (file, columns) in files.items()]  # noqa: S608 (no value of a row)

    def _add(self, name: str, entries: Sequence[Known]) -> None:
        """Add the rows of entries that the warehouse does not have."""
        if not entries:
            return
        own, chosen = OWN_ID[name], self.plan.columns[name]
        types = {column.name: _TYPES[column.kind] for column in TABLES[name].columns} | {LOCAL_TIME: pa.timestamp("us")}
        rows = [row for entry, known_at in entries for row in self._rows(entry, known_at)]
        posted = pa.Table.from_pylist(rows, pa.schema([(column, types[column]) for column in chosen]))
        self._db.register("posted", posted)
        self._db.execute(f"INSERT INTO {name} FROM posted ANTI JOIN {name} USING (member_id, {own})")

    def _rows(self, entry: Entry, known_at: datetime) -> list[dict[str, Any]]:
        """Complete rows by what an ingest adds: the time of day where the members live."""
        rows = entry.rows()
        for row in rows:
            time = datetime.fromisoformat(row[OCCURRED])
            row |= {
                OCCURRED: time,
                "known_at": known_at,
                LOCAL_TIME: time.astimezone(self._zone).replace(tzinfo=None),
            }
        return rows


def _quoted(file: Path) -> str:
    return str(file).replace("'", "''")
