"""A batch against the warehouse's last state: what changed so much that somebody should say it is meant."""

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import pyarrow as pa
from duckdb import DuckDBPyRelation

from features.errors import ContractError
from features.intake.conform import MADE_ID, OWN_IDS
from features.schema import TABLES, Table
from features.warehouse import LOCAL_TIME

ALLOWANCES: Final = {
    "shrink": "a table has less than half of the rows it had",
    "median": "a median is 5 times what it was, or a fifth",
    "columns": "a column that was there is gone",
    "types": "a column has another type",
    "bad-rows": "more than 1 % of a table's rows are bad, or any offer",
    "expired": "an offer's time is over",
}
FACTOR: Final = 5.0  # of a median: dollars that became cents are 100, seasons are below 2
FEWEST: Final = 30  # rows whose median says something


class Shift(NamedTuple):
    """Say what changed or is wrong, and the allowance that lets it pass; None: nothing does."""

    allowance: str | None
    text: str

    def __str__(self) -> str:
        return f"{self.text} ({self.allowance})" if self.allowance else self.text


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


@dataclass(frozen=True)
class Profile:
    """Say what a table is like: what two batches are compared by."""

    rows: int
    types: Mapping[str, pa.DataType]
    medians: Mapping[str, float | None]  # of money, counts and shares that are not zero, by size; None: of too few
    made_ids: bool


def profile(rows: DuckDBPyRelation, table: Table, schema: pa.Schema, columns: Mapping[str, str]) -> Profile:
    """Profile rows in one pass; `columns` says what those of the schema are called there.

    Zeros and signs are left out of medians: refunds and free items would hide a change of units. A median is that of a
    t-digest: it needs no memory, and is within a few percent where 5 times is what counts.
    """
    numbers = [c.name for c in table.columns if c.kind in {"money", "count", "share"} and c.name in schema.names]
    own = OWN_IDS.get(table.name)
    wanted = ["count(*)", f"coalesce(bool_and(starts_with({columns[own]}, '{MADE_ID}')), false)" if own else "false"]
    for name in numbers:
        size = f"abs({columns[name]})"
        wanted += [f"approx_quantile({size}, 0.5) FILTER ({size} > 0)", f"count(*) FILTER ({size} > 0)"]
    count, made, *found = rows.aggregate(", ".join(wanted)).fetchall()[0]
    medians = {
        name: float(median) if of >= FEWEST else None
        for name, median, of in zip(numbers, found[::2], found[1::2], strict=True)
    }
    return Profile(count, dict(zip(schema.names, schema.types, strict=True)), medians, made)


def shifts(batch: Mapping[str, Profile], standing: Mapping[str, Profile]) -> list[Shift]:
    """Compare tables with those the warehouse holds."""
    gone = [
        Shift("shrink", f"{name} had {before.rows:,} rows and was not brought")
        for name, before in standing.items()
        if name not in batch and before.rows
    ]
    return gone + [
        shift for name, now in batch.items() if name in standing for shift in _table(name, standing[name], now)
    ]


def renamed_rows(batch: Mapping[str, Profile], standing: Mapping[str, Profile]) -> list[Shift]:
    """Find tables whose rows would not be known again: ids made from equal rows are equal if their columns are."""
    text = "{} has ids made from its rows, and now {} came: rows that come again would count twice"
    return [
        Shift("columns", text.format(name, "other columns" if now.made_ids else repr(OWN_IDS[name])))
        for name, now in batch.items()
        if name in standing and (before := standing[name]).made_ids
        if not now.made_ids or set(now.types) != set(before.types)
    ]


def refusals(found: Iterable[Shift], allow: frozenset[str]) -> tuple[Shift, ...]:
    """Give what is not allowed."""
    return tuple(shift for shift in found if shift.allowance not in allow)


def _table(name: str, before: Profile, now: Profile) -> list[Shift]:
    found = []
    if now.rows * 2 < before.rows:
        found.append(Shift("shrink", f"{name} shrank from {before.rows:,} to {now.rows:,} rows"))
    if now.made_ids and not before.made_ids:
        found.append(Shift("columns", f"{name} came without {OWN_IDS[name]!r}, which the warehouse has"))
    return [*found, *_columns(name, before, now), *_medians(name, before, now)]


def _columns(name: str, before: Profile, now: Profile) -> list[Shift]:
    found = []
    strangers = [column for column in now.types if column not in before.types]
    for column in before.types:
        if column not in now.types and column != LOCAL_TIME:
            like = difflib.get_close_matches(column, strangers, n=1, cutoff=0.5)
            hint = f" ({like[0]!r} came: renamed?)" if like else ""
            found.append(Shift("columns", f"{name} lacks {column!r}, which the warehouse has{hint}"))
    for column, was in before.types.items():
        is_now = now.types.get(column, was)
        if was != is_now and not (pa.types.is_null(was) or pa.types.is_null(is_now)):
            found.append(Shift("types", f"{name}.{column} was {was} and is {is_now}"))
    return found


def _medians(name: str, before: Profile, now: Profile) -> list[Shift]:
    money = {column.name for column in TABLES[name].columns if column.kind == "money"}
    found = []
    for column, was in before.medians.items():
        is_now = now.medians.get(column)
        if was and is_now and not 1 / FACTOR < is_now / was < FACTOR:
            units = "; cents that became dollars, or back?" if column in money else ""
            text = f"the median of {name}.{column} moved from {was:,.6g} to {is_now:,.6g}{units}"
            found.append(Shift("median", text))
    return found
