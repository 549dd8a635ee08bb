"""A batch against the warehouse's last state: what changed so much that somebody should say it is meant."""

import difflib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features.conform import MADE_ID, OWN_IDS
from features.errors import ContractError
from features.schema import TABLES
from features.warehouse import LOCAL_TIME

if TYPE_CHECKING:
    from features.warehouse import Warehouse

ALLOWANCES: Final = {
    "shrink": "a table has less than half of the rows it had",
    "median": "a median is 5 times what it was, or a fifth",
    "columns": "a column that was there is gone",
    "types": "a column has another type",
    "bad-rows": "more than 1 % of a table's rows are bad",
}
FACTOR: Final = 5.0  # of a median: dollars that became cents are 100, seasons are below 2
FEWEST: Final = 30  # rows whose median says something


class Shift(NamedTuple):
    """Say what changed, and the allowance that lets it pass."""

    allowance: str
    text: str


def parse_allowances(text: str) -> frozenset[str]:
    """Read `shrink,median`.

    >>> sorted(parse_allowances("shrink, median"))
    ['median', 'shrink']
    """
    came = frozenset(part.strip() for part in text.split(",") if part.strip())
    if came - set(ALLOWANCES):
        known = "; ".join(f"{name}: {meaning}" for name, meaning in ALLOWANCES.items())
        raise ContractError(f"--allow knows no {', '.join(sorted(came - set(ALLOWANCES)))}; wanted of {known}")
    return came


def shifts(batch: dict[str, pa.Table], standing: "Warehouse") -> list[Shift]:
    """Compare tables with those the warehouse holds."""
    gone = [
        Shift("shrink", f"{name} had {table.rows:,} rows and was not brought")
        for name, table in standing.tables.items()
        if name not in batch and table.rows
    ]
    return gone + [
        shift for name, rows in batch.items() if name in standing.tables for shift in _table(name, rows, standing)
    ]


def refusals(found: Iterable[Shift], allow: frozenset[str]) -> list[str]:
    """Give what is not allowed, in words."""
    return [f"{shift.text} ({shift.allowance})" for shift in found if shift.allowance not in allow]


def _table(name: str, rows: pa.Table, standing: "Warehouse") -> list[Shift]:
    path = standing.home.warehouse / standing.tables[name].file
    before, had = pq.read_schema(path), standing.tables[name].rows
    found = []
    if rows.num_rows * 2 < had:
        found.append(Shift("shrink", f"{name} shrank from {had:,} to {rows.num_rows:,} rows"))
    strangers = [column for column in rows.column_names if column not in before.names]
    for column in before.names:
        if column not in rows.column_names and column != LOCAL_TIME:
            like = difflib.get_close_matches(column, strangers, n=1, cutoff=0.5)
            hint = f" ({like[0]!r} came: renamed?)" if like else ""
            found.append(Shift("columns", f"{name} lacks {column!r}, which the warehouse has{hint}"))
    for column in set(before.names) & set(rows.column_names):
        was, now = before.field(column).type, rows.schema.field(column).type
        if was != now and not (pa.types.is_null(was) or pa.types.is_null(now)):
            found.append(Shift("types", f"{name}.{column} was {was} and is {now}"))
    own = OWN_IDS.get(name, "")
    if own in before.names and _made(rows, own) and not _made(pq.read_table(path, columns=[own]), own):
        found.append(Shift("columns", f"{name} came without {own!r}, which the warehouse has"))
    return found + _medians(name, rows, standing)


def _medians(name: str, rows: pa.Table, standing: "Warehouse") -> list[Shift]:
    found = []
    before = standing.frame(name)
    for column in TABLES[name].columns:
        if column.kind not in {"money", "count", "share"} or not {column.name} <= set(before) & set(rows.column_names):
            continue
        was, now = (_median(values) for values in (before[column.name], rows[column.name].to_pandas()))
        if was and now and not 1 / FACTOR < now / was < FACTOR:
            units = "; cents that became dollars, or back?" if column.kind == "money" else ""
            text = f"the median of {name}.{column.name} moved from {was:,.6g} to {now:,.6g}{units}"
            found.append(Shift("median", text))
    return found


def _median(values: pd.Series) -> float | None:
    """Give the middle of what is not zero, by size: refunds and free items would hide a change of units."""
    size = values.dropna().abs()
    size = size[size > 0]
    return float(size.median()) if len(size) >= FEWEST else None


def _made(rows: pa.Table, own: str) -> bool:
    return rows.num_rows > 0 and str(rows[own][0].as_py()).startswith(MADE_ID)
