"""The checks of a batch: every value against the contract, with a reason per row; every table, with a diff."""

import difflib
from collections.abc import Mapping
from datetime import datetime
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import pandera.pandas as pandera

from features.schema import ID_LENGTH, TABLES, Column, Table

MOST_BAD_ROWS: Final = 0.01  # a batch with a larger share of bad rows is a broken export, not a dirty one
LARGEST: Final = 2**53  # a whole number beyond it is no exact float64, and no amount or count of anything
CLOCK_WORDS: Final = ("now", "today")  # pandas reads them as times
HAPPENED: Final = ("joined_at", "occurred_at", "contacted_at")  # the other times may be plans
CURRENCY: Final = "currency"  # a column that says a row's currency
FLAGS: Final = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}

_Rows = npt.NDArray[np.intp]  # row numbers


def check_rows(
    table: Table,
    frame: pd.DataFrame,
    *,
    members: pd.Series,
    now: datetime | None = None,
    currency: str | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split a table's rows into good ones, typed, and bad ones with a column `reason`.

    Parameters
    ----------
    members : the ids that rows of other tables may belong to
    now : nothing has happened after it; None: anything may have
    currency : the programme's; rows that say another one are bad
    """
    typed, reasons = frame.reset_index(drop=True).copy(), pd.Series("", index=range(len(frame)), dtype=object)
    for column in table.columns:
        if column.name in typed:
            values = _typed(column, typed[column.name])
            lost = values.isna() & typed[column.name].notna()
            reasons[lost] += f"{column.name} is no {column.kind}; "
            typed[column.name] = values
    for rows, reason in _failures(table, typed) + _strays(typed, now=now, currency=currency):
        reasons[rows] += f"{reason}; "
    if table.name != "members" and "member_id" in typed:
        reasons[~typed["member_id"].isin(members) & typed["member_id"].notna()] += "member_id is not in members; "
    bad = reasons != ""
    return typed[~bad], frame.reset_index(drop=True)[bad].assign(reason=reasons[bad].str.removesuffix("; "))


def _failures(table: Table, typed: pd.DataFrame) -> list[tuple[_Rows, str]]:
    """Check values by pandera and give (rows, reason) for each kind of failure."""
    schema = pandera.DataFrameSchema({c.name: _pandera(c) for c in table.columns if c.name in typed})
    found: list[tuple[_Rows, str]] = []
    try:
        schema.validate(typed, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        cases = errors.failure_cases.dropna(subset=["index"])
        found = [
            (rows["index"].to_numpy(dtype=np.intp), f"{column}: {check}")
            for (column, check), rows in cases.groupby(["column", "check"], sort=False)
        ]
    if table.unique:
        again = typed.duplicated(list(table.unique)) & typed[list(table.unique)].notna().all(axis=1)
        found.append((np.flatnonzero(again), f"{', '.join(table.unique)} came before"))
    return found


def _strays(typed: pd.DataFrame, *, now: datetime | None, currency: str | None) -> list[tuple[_Rows, str]]:
    """Find rows of a time that has not come, and rows in another currency."""
    found: list[tuple[_Rows, str]] = []
    if now:
        late = f"is in the future (it is {now:%Y-%m-%d %H:%M} UTC)"
        times = [column for column in HAPPENED if column in typed]
        found += [(np.flatnonzero(typed[column] > now), f"{column} {late}") for column in times]
    if currency and CURRENCY in typed:
        said = typed[CURRENCY].astype("string").str.strip().str.upper()
        others = said[said != currency].dropna().unique()
        wanted = f"the programme's is {currency}"
        found += [(np.flatnonzero(said == other), f"{CURRENCY} is {other}, {wanted}") for other in others]
    return found


def _pandera(column: Column) -> pandera.Column:
    checks = []
    if column.kind == "id":
        checks = [pandera.Check.str_length(1, ID_LENGTH, error=f"wanted 1 to {ID_LENGTH} characters")]
    elif column.kind in {"money", "count"} and not column.signed:
        checks = [pandera.Check.ge(0, error="wanted 0 or more")]
    elif column.kind == "share":
        checks = [pandera.Check.in_range(0, 1, error="wanted 0 to 1")]
    return pandera.Column(checks=checks, nullable=not column.required)


def _typed(column: Column, values: pd.Series) -> pd.Series:
    """Cast to the kind's type; what can't be cast becomes missing."""
    if column.kind in {"id", "text"}:
        if pd.api.types.is_float_dtype(values) and (values.dropna() % 1 == 0).all():
            values = values.astype("Int64")  # whole numbers with gaps became floats: 17850 is no '17850.0'
        return values.astype("string")
    if column.kind == "time":
        form = None if pd.api.types.is_datetime64_any_dtype(values) else "ISO8601"
        if form:
            values = values.mask(values.astype("string").str.lower().isin(CLOCK_WORDS))
        return pd.to_datetime(values, utc=True, errors="coerce", format=form).astype("datetime64[us, UTC]")
    if column.kind == "flag":
        return values.astype("string").str.lower().map(FLAGS).astype("boolean")
    numbers = pd.to_numeric(values, errors="coerce")
    if column.kind == "share":
        return numbers.astype("Float64")
    return numbers.where((numbers == np.floor(numbers)) & numbers.between(-LARGEST, LARGEST)).astype("Int64")


def table_diff(name: str, frame: pd.DataFrame) -> list[str]:
    """Say what a table lacks, with the column that it may be."""
    if frame.empty:
        return [f"{name} is empty, at least one row was wanted"]
    strangers = [str(column) for column in frame.columns if column not in TABLES[name].known]
    reasons = []
    for column in TABLES[name].needed:
        if column not in frame:
            like = difflib.get_close_matches(column, strangers, n=1, cutoff=0.5)
            hint = f" ({like[0]!r} came: renamed?)" if like else f" (came: {', '.join(map(str, frame.columns))})"
            reasons.append(f"{name} lacks the column {column!r}{hint}; wanted: {', '.join(TABLES[name].needed)}")
    return reasons


def unknown_tables(frames: Mapping[str, pd.DataFrame]) -> list[str]:
    """Say which tables are none of the contract's, and which are missing."""
    unknown = [f"{name!r} is no table of the contract ({', '.join(TABLES)})" for name in frames if name not in TABLES]
    return unknown + [f"{name} is missing" for name, table in TABLES.items() if table.required and name not in frames]


def too_many(name: str, good: pd.DataFrame, bad: pd.DataFrame) -> list[str]:
    """Say if the share of bad rows is that of a broken export."""
    share = len(bad) / (len(good) + len(bad))
    if share <= MOST_BAD_ROWS:
        return []
    first = bad["reason"].value_counts().index[0]
    return [f"{name}: {len(bad):,} of {len(good) + len(bad):,} rows are bad ({share:.1%}; most often: {first})"]
