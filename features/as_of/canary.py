"""Another future: the tables as they were known at a moment, with everything later made up.

A feature as of that moment has to be the same in both; if it is not, it saw what nobody could know.
"""

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.programme import Programme
from features.schema import KNOWN_AT, TABLES
from features.warehouse import LOCAL_TIME, Warehouse

if TYPE_CHECKING:
    import ibis.expr.types as ir

HAPPENED: Final = ("joined_at", "occurred_at", "contacted_at", "started_at")
DECIDED: Final = ("renewed_at", "cancelled_at")  # what befalls a row after it began
LATER: Final = "known_later"  # a column that nobody had
EXTRA: Final = 4  # made-up rows per member
POOL: Final = 50_000  # rows whose values are drawn from
DAYS: Final = 400
_TIME: Final = pa.timestamp("us", tz="UTC")


def scrambled(
    warehouse: Warehouse, as_of: datetime, *, programme: Programme, rng: np.random.Generator
) -> dict[str, "ir.Table"]:
    """Give the tables of members, with other rows for those that happened or became known at or after a moment."""
    import ibis

    members = pa.array(warehouse.frame("members", ["member_id"])["member_id"], pa.string())
    tables = {}
    for name in warehouse.tables:
        table = warehouse.expression(name)
        if "member_id" in table.columns:
            made_up = ibis.memtable(_made_up(warehouse, name, members, as_of, programme=programme, rng=rng))
            past = _past(table, name, as_of, rng)
            tables[name] = past.union(made_up.cast(past.schema()).select(past.columns))
    return tables


def _past(table: "ir.Table", name: str, as_of: datetime, rng: np.random.Generator) -> "ir.Table":
    """Keep what had happened and was known, and undo or put off what was still to befall it."""
    import ibis

    moment, undone = ibis.literal(as_of), ibis.null("timestamp('UTC')")
    if KNOWN_AT in TABLES[name].columns and KNOWN_AT.name not in table.columns:
        table = table.mutate(**{KNOWN_AT.name: undone})
    past = table.filter(table[_happened(table.columns)] < moment)
    if KNOWN_AT.name in past.columns:
        past = past.filter(past[KNOWN_AT.name].isnull() | (past[KNOWN_AT.name] < moment))
    other = undone if rng.random() < 1 / 2 else ibis.literal(as_of + timedelta(days=int(rng.integers(DAYS))))
    changed = {c: ibis.ifelse(past[c] >= moment, other, past[c]) for c in DECIDED if c in past.columns}
    return past.mutate(**changed, **{LATER: ibis.literal(0)})


def _made_up(
    warehouse: Warehouse,
    name: str,
    members: pa.Array,
    as_of: datetime,
    *,
    programme: Programme,
    rng: np.random.Generator,
) -> pa.Table:
    """Draw every column by itself from the table; half of the rows happened before and became known after."""
    with pq.ParquetFile(warehouse.path(name)) as file:
        pool = next(file.iter_batches(POOL))
    n = EXTRA * len(members)
    columns = {field: pool.column(field).take(rng.integers(0, len(pool), n)) for field in pool.schema.names}
    after = rng.integers(0, DAYS * 86_400 * 10**6, n) * (rng.random(n) < 0.99)  # noqa: PLR2004 (some at the very moment)
    happened = after.copy()
    if KNOWN_AT in TABLES[name].columns:
        happened[::2] *= -1
        columns[KNOWN_AT.name] = _times(as_of, after)
    columns[_happened(columns)] = _times(as_of, happened)
    local = columns[_happened(columns)].to_pandas().dt.tz_convert(programme.zone).dt.tz_localize(None)
    columns |= {LOCAL_TIME: pa.array(local, pa.timestamp("us")), LATER: pa.array(rng.integers(0, 2**40, n))}
    someone = members.take(rng.integers(0, len(members), n))
    columns["member_id"] = someone if name != "members" else pa.array([f"later-{number}" for number in range(n)])
    return pa.table(columns)


def _happened(columns: "list[str] | tuple[str, ...] | dict[str, pa.Array]") -> str:
    return next(name for name in HAPPENED if name in columns)


def _times(as_of: datetime, microseconds: "np.typing.NDArray[np.int64]") -> pa.Array:
    start = np.datetime64(as_of.replace(tzinfo=None), "us")
    return pa.array(start + microseconds.astype("timedelta64[us]"), pa.timestamp("us")).cast(_TIME)
