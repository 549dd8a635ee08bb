"""The checks of a batch: every value against the contract, with a reason per row; every table, with a diff."""

import difflib
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pandera.pandas as pandera

from features.intake.values import ARROW_TEXT, read_ids, read_numbers, read_text, read_times
from features.schema import ID_LENGTH, TABLES, Column, Table

MOST_BAD_ROWS: Final = 0.01  # a batch with a larger share of bad rows is a broken export, not a dirty one
LARGEST: Final = 2**53  # a whole number beyond it is no exact float64, and no amount or count of anything
HAPPENED: Final = ("joined_at", "occurred_at", "contacted_at")  # the other times may be plans
GUEST: Final = "a guest's row, set aside as the mapping says"
NOBODYS: Final = "member_id is missing"  # what is wrong with a guest's row where no guests are expected
CURRENCY: Final = "currency"  # a column that says a row's currency
HINTS: Final = {  # where every row has the same fault, the mapping may be what is wrong
    "is no money": "amounts are whole minor units, unless the mapping says major_units",
    "is no time": "times are ISO 8601, unless the mapping says date_format",
}
FLAGS: Final = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}

_Rows = npt.NDArray[np.intp]  # row numbers


def check_values(
    table: Table, frame: pd.DataFrame, *, now: datetime | None = None, currency: str | None = None
) -> tuple[pd.DataFrame, pd.Series]:
    """Type a part of a table; give it, and why each row is bad: every reason, missing where there is none.

    Parameters
    ----------
    frame : its rows, numbered from 0
    now : nothing has happened after it; None: anything may have
    currency : the programme's; rows that say another one are bad
    """
    typed, found = dict(frame.items()), []
    for column in table.columns:
        if column.name in typed:
            came = typed[column.name]
            typed[column.name] = values = _typed(column, came)
            found.append((np.flatnonzero(values.isna() & came.notna()), f"{column.name} is no {column.kind}"))
            if column.required:
                found.append((np.flatnonzero(came.isna()), f"{column.name} is missing"))
    if CURRENCY in typed:
        typed[CURRENCY] = typed[CURRENCY].astype(ARROW_TEXT)
    rows = pd.DataFrame(typed)
    found += _failures(table, rows) + _strays(rows, now=now, currency=currency)
    return rows, _join_reasons(found, len(frame))


def _join_reasons(found: list[tuple[_Rows, str]], rows: int) -> pd.Series:
    reasons = pd.Series(None, index=range(rows), dtype=ARROW_TEXT)
    for places, reason in found:
        if len(places):
            before = reasons.iloc[places]
            reasons.iloc[places] = (before + f"; {reason}").fillna(reason).array
    return reasons


def _failures(table: Table, typed: pd.DataFrame) -> list[tuple[_Rows, str]]:
    """Check values by pandera and give (rows, reason) for each kind of failure."""
    schema = pandera.DataFrameSchema({c.name: _pandera(c) for c in table.columns if c.name in typed})
    try:
        schema.validate(typed, lazy=True, inplace=True)
    except pandera.errors.SchemaErrors as errors:
        cases = errors.failure_cases.dropna(subset=["index"])
        return [
            (rows["index"].to_numpy(dtype=np.intp), f"{column}: {check}")
            for (column, check), rows in cases.groupby(["column", "check"], sort=False)
        ]
    return []


def _strays(typed: pd.DataFrame, *, now: datetime | None, currency: str | None) -> list[tuple[_Rows, str]]:
    """Find rows of a time that has not come, and rows in another currency."""
    found: list[tuple[_Rows, str]] = []
    if now:
        late = f"is in the future (it is {now:%Y-%m-%d %H:%M} UTC)"
        times = [column for column in HAPPENED if column in typed]
        found += [(np.flatnonzero(typed[column] > now), f"{column} {late}") for column in times]
    if currency and CURRENCY in typed:
        said = typed[CURRENCY].str.strip().str.upper()
        others = said[said != currency].dropna().unique()
        wanted = f"the programme's is {currency}"
        found += [
            (np.flatnonzero((said == other).fillna(value=False)), f"{CURRENCY} is {other}, {wanted}")
            for other in others
        ]
    return found


def _pandera(column: Column) -> pandera.Column:
    checks = []
    if column.kind == "id":
        checks = [pandera.Check.str_length(1, ID_LENGTH, error=f"wanted 1 to {ID_LENGTH} characters")]
    elif column.kind in {"money", "count"} and not column.signed:
        checks = [pandera.Check.ge(0, error="wanted 0 or more")]
    elif column.kind == "share":
        checks = [pandera.Check.in_range(0, 1, error="wanted 0 to 1")]
    return pandera.Column(checks=checks, nullable=True)  # a value that is missing may be one that could not be read


def _typed(column: Column, values: pd.Series) -> pd.Series:
    """Cast to the kind's type; what can't be cast becomes missing."""
    if column.kind in {"id", "text"}:
        return read_ids(values) if column.kind == "id" else read_text(values)
    if column.kind == "time":
        return read_times(values)
    if column.kind == "flag":
        return values.astype(ARROW_TEXT).str.lower().map(FLAGS).astype("boolean")
    numbers = read_numbers(values)
    if column.kind == "share":
        return numbers.astype("Float64")
    if pd.api.types.is_integer_dtype(numbers):
        return numbers.where(numbers.between(-LARGEST, LARGEST)).astype("Int64")
    return numbers.where((numbers == np.floor(numbers)) & numbers.between(-LARGEST, LARGEST)).astype("Int64")


def table_diff(name: str, columns: Collection[str]) -> list[str]:
    """Say what a table lacks, with the column that it may be."""
    strangers = [column for column in columns if column not in TABLES[name].known]
    reasons = []
    for column in TABLES[name].needed:
        if column not in columns:
            like = difflib.get_close_matches(column, strangers, n=1, cutoff=0.5)
            hint = f" ({like[0]!r} came: renamed?)" if like else f" (came: {', '.join(columns)})"
            reasons.append(f"{name} lacks the column {column!r}{hint}; wanted: {', '.join(TABLES[name].needed)}")
    return reasons


def unknown_tables(names: Collection[str]) -> list[str]:
    """Say which tables are none of the contract's, and which are missing."""
    unknown = [f"{name!r} is no table of the contract ({', '.join(TABLES)})" for name in names if name not in TABLES]
    return unknown + [f"{name} is missing" for name, table in TABLES.items() if table.required and name not in names]


def too_many(name: str, rows: int, faults: Sequence[tuple[str, int]]) -> list[str]:
    """Say if the share of bad rows is that of a broken export; the most frequent of the faults comes first.

    Of a table whose rows count together one is too many, and every fault is said.
    """
    bad = sum(count for _, count in faults)
    whole = TABLES[name].whole
    if not bad or (not whole and bad <= rows * MOST_BAD_ROWS):
        return []
    said = ", ".join(fault for fault, _ in faults) if whole else f"{bad / rows:.1%}; most often: {faults[0][0]}"
    hints = [hint for fault, hint in HINTS.items() if fault in said]
    return [f"{name}: {bad:,} of {rows:,} rows are bad ({'; '.join([said, *hints])})"]


def set_guests_aside(reasons: pd.Series) -> pd.Series:
    """Rename the reason of rows that are nobody's, and have no other fault."""
    return reasons.mask((reasons == NOBODYS).fillna(value=False), GUEST)
