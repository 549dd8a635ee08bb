"""From a company's columns to the contract's, as the mapping says; each guess and each rounding becomes a note."""

import difflib
from collections.abc import Mapping
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from features.checks import CLOCK_WORDS
from features.errors import ContractError
from features.mapping import FIRST_TRANSACTION, ROW_HASH, SourceMapping, TableMapping
from features.schema import TABLES, Table

MADE_ID: Final = "row-"  # how an id that was made from a row's content begins
OWN_IDS: Final = {"transactions": "transaction_id", "events": "event_id", "contacts": "contact_id"}
MARKED: Final = r"(?:[Zz]|[+-]\d{2}:?\d{2})$"  # a time that says its own zone
UNREADABLE: Final = "unreadable: "  # what can't be converted fails its check, whatever it was
CLOSE: Final = 1e-6  # of a minor unit: what a float may be off


def conform(
    raw: Mapping[str, pd.DataFrame], mapping: SourceMapping, *, zone: ZoneInfo, digits: int
) -> tuple[dict[str, pd.DataFrame], tuple[str, ...]]:
    """Rename, convert and derive columns; give the tables, as many rows as came, and what people should know.

    Parameters
    ----------
    zone : of times that don't say theirs, unless the mapping says
    digits : of the currency's minor unit, for amounts in major units

    Raises
    ------
    ContractError
        If the mapping names a column that did not come.
    """
    notes: list[str] = []
    frames = {}
    for name, frame in raw.items():
        if name not in TABLES:
            raise ContractError(f"{name!r} is no table of the contract ({', '.join(TABLES)})")
        form = mapping.table(name)
        frames[name] = _convert(TABLES[name], _choose(name, frame, form, notes), form, (zone, digits), notes)
    if mapping.derives_members and "transactions" in frames:
        frames["members"] = _join_members(frames.get("members"), frames["transactions"], notes)
    return {name: frames[name] for name in TABLES if name in frames}, tuple(notes)


def _choose(name: str, raw: pd.DataFrame, form: TableMapping, notes: list[str]) -> pd.DataFrame:
    """Give the contract's columns first, by their names; columns that served only as a source lose their old name."""
    chosen, renamed = {}, set()
    for column, where in form.columns.items():
        if where in raw:
            chosen[column] = raw[where]
            renamed.add(where)
        elif where == ROW_HASH:
            chosen[column] = _row_hash(raw)
        elif where != FIRST_TRANSACTION:
            chosen[column] = _expression(f"{name}.{column}", where, raw, form)
    kept = {str(column): raw[column] for column in raw.columns if column not in renamed and column not in chosen}
    frame = pd.DataFrame(chosen | kept, index=raw.index)
    own = OWN_IDS.get(name, "")
    strangers = [column for column in kept if column not in TABLES[name].known]
    if own and own not in frame and not difflib.get_close_matches(own, strangers, cutoff=0.5):
        notes.append(f"{name} came without {own}: each row got one made from its content ({MADE_ID}...)")
        frame.insert(0, own, _row_hash(raw))
    return frame


def _expression(target: str, where: str, raw: pd.DataFrame, form: TableMapping) -> pd.Series:
    if len(where) > 1 and where[0] == where[-1] == "'":
        return pd.Series(where[1:-1], index=raw.index, dtype="string")
    product = pd.Series(1.0, index=raw.index)
    factors = [part.strip() for part in where.split("*")]
    for factor in factors:
        if factor in raw:
            product = product * _number(raw[factor], form.decimal)
        elif len(factors) > 1 and factor.replace(".", "", 1).isdigit():
            product = product * float(factor)
        else:
            like = difflib.get_close_matches(factor, map(str, raw.columns), n=1)
            hint = f"; {like[0]!r} came" if like else f"; there: {', '.join(map(str, raw.columns))}"
            raise ContractError(f"{target} is to come from {where!r}, but no column is called {factor!r}{hint}")
    return product


def _convert(
    table: Table, frame: pd.DataFrame, form: TableMapping, units: tuple[ZoneInfo, int], notes: list[str]
) -> pd.DataFrame:
    zone = ZoneInfo(form.timezone) if form.timezone else units[0]
    major = form.major_units if isinstance(form.major_units, tuple) else None
    for column in table.columns:
        if column.name not in frame:
            continue
        values, target = frame[column.name], f"{table.name}.{column.name}"
        if column.kind == "time":
            frame[column.name] = _utc(target, values, form.date_format, zone, notes)
        elif column.kind == "money" and (column.name in major if major is not None else form.major_units):
            if table.name != "events" or major:  # the value of an event is a score as often as an amount
                whole = "*" in form.columns.get(column.name, "")
                frame[column.name] = _minor(target, values, form, (units[1], whole), notes)
        elif column.kind in {"money", "count", "share"} and form.decimal == ",":
            frame[column.name] = _or_unreadable(_number(values, form.decimal), values)
    return frame


def _minor(target: str, values: pd.Series, form: TableMapping, how: tuple[int, bool], notes: list[str]) -> pd.Series:
    """Turn major units into whole minor ones; an amount with more digits than the currency has is unreadable."""
    digits, rounded = how
    exact = _number(values, form.decimal) * 10**digits
    whole = exact.round()
    near = (exact - whole).abs() <= CLOSE * np.maximum(1.0, exact.abs() * 1e-6)
    if rounded and not near.all():
        notes.append(f"{target}: {int((~near & exact.notna()).sum()):,} products were rounded to whole minor units")
    return _or_unreadable(whole if rounded else whole.where(near), values)


def _utc(target: str, values: pd.Series, form: str | None, zone: ZoneInfo, notes: list[str]) -> pd.Series:
    if pd.api.types.is_datetime64_any_dtype(values):
        return values if values.dt.tz is not None else _localize(target, values, zone, notes)
    if form is None and zone.key == "UTC":
        return values  # as the contract has it: the check reads it
    text = _text(values)
    text = text.mask(text.str.lower().isin(CLOCK_WORDS))  # pandas reads them as times
    marked = text.str.contains(MARKED, regex=True).fillna(False).astype(bool) if form is None else "%z" in (form or "")
    layout = form or "ISO8601"
    wall = pd.to_datetime(text.mask(pd.Series(marked, index=text.index)), errors="coerce", format=layout)
    own = pd.to_datetime(text.where(pd.Series(marked, index=text.index)), errors="coerce", format=layout, utc=True)
    return _or_unreadable(_localize(target, wall, zone, notes).fillna(own), values)


def _localize(target: str, wall: pd.Series, zone: ZoneInfo, notes: list[str]) -> pd.Series:
    """Read wall-clock times; in the hour that comes twice the first is meant, one that never was moves forward."""
    strict = wall.dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    unclear = int((strict.isna() & wall.notna()).sum())
    if unclear:
        notes.append(f"{target}: {unclear:,} times lie where the clocks of {zone.key} change; the first hour was taken")
        first = np.ones(len(wall), dtype=bool)
        strict = wall.dt.tz_localize(zone, ambiguous=first, nonexistent="shift_forward")
    utc: pd.Series = strict.dt.tz_convert("UTC").astype("datetime64[us, UTC]")
    return utc


def _join_members(members: pd.DataFrame | None, transactions: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Let each member join with the first row of transactions that can be read."""
    bought = transactions[["member_id", "occurred_at"]].dropna()
    times = pd.to_datetime(bought["occurred_at"], errors="coerce", utc=True, format="ISO8601")
    first = times.groupby(_text(bought["member_id"])).min().dropna()
    if members is None:
        notes.append(f"members came from transactions: {len(first):,} who bought, joined with their first row")
        return first.rename("joined_at").rename_axis("member_id").reset_index()
    notes.append("members.joined_at is the time of the first transaction")
    return members.assign(joined_at=_text(members["member_id"]).map(first))


def _row_hash(raw: pd.DataFrame) -> pd.Series:
    """Name rows by their content; the second of two equal rows gets `-1`, so that no row is lost."""
    digest = pd.util.hash_pandas_object(raw.astype("string"), index=False)
    again = digest.groupby(digest).cumcount()
    made = MADE_ID + digest.map("{:016x}".format)
    return made.where(again == 0, made + "-" + again.astype("string")).astype("string")


def _number(values: pd.Series, decimal: str) -> pd.Series:
    if decimal == "," and not pd.api.types.is_numeric_dtype(values):
        values = values.astype("string").str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
    return pd.to_numeric(values, errors="coerce").astype("float64")


def _text(values: pd.Series) -> pd.Series:
    """Show values as text; whole floats, which is what whole numbers with gaps become, without their `.0`."""
    if pd.api.types.is_float_dtype(values) and (values.dropna() % 1 == 0).all():
        values = values.astype("Int64")
    return values.astype("string")


def _or_unreadable(values: pd.Series, came: pd.Series) -> pd.Series:
    lost = values.isna() & came.notna()
    if not lost.any():
        return values
    return values.astype(object).where(~lost, UNREADABLE + came.astype("string"))
