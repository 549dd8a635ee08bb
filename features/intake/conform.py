"""From a company's columns to the contract's, as the mapping says; each guess and each rounding becomes a note.

A part of a table is conformed like the whole: no value's meaning depends on the rows beside it.
"""

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import ContractError
from features.intake.mapping import FIRST_TRANSACTION, ROW_HASH, TableMapping
from features.intake.values import (
    ARROW_TEXT,
    CLOCK_WORDS,
    MARKED,
    NUMBERS,
    TEXT,
    fast_zone,
    pointed,
    read_text,
    read_written,
    regular_times,
)
from features.schema import TABLES, Table

MADE_ID: Final = "row-"  # how an id that was made from a row's content begins
OWN_IDS: Final = {"transactions": "transaction_id", "events": "event_id", "contacts": "contact_id"}
UNREADABLE: Final = "unreadable: "  # what can't be converted fails its check, whatever it was
CLOSE: Final = 1e-6  # of a minor unit: what a float may be off
ELSE: Final = re.compile(r"(?P<column>.+) else '(?P<text>.*)'")
Notes = Counter[str]  # what people should know -> of how many rows; `{:,}` is where the number goes


@dataclass(frozen=True)
class Units:
    """State the zone of times that don't say theirs, unless the mapping says, and the digits of the minor unit."""

    zone: ZoneInfo
    digits: int


def conform(name: str, raw: pa.RecordBatch, form: TableMapping, *, units: Units, notes: Notes) -> pd.DataFrame:
    """Rename, convert and derive the columns of a part; give as many rows as came, and count what people should know.

    Raises
    ------
    ContractError
        If the mapping names a column that did not come.
    """
    return _convert(
        TABLES[name], _choose(name, raw.to_pandas(types_mapper=NUMBERS.get), form, notes), form, units, notes
    )


def written(notes: Notes) -> tuple[str, ...]:
    """Say the notes with their numbers."""
    return tuple(note.format(count) for note, count in notes.items())


def makes_ids(name: str, columns: Sequence[str], form: TableMapping) -> bool:
    """Whether a table's own ids are made from its rows: because the mapping says so, or nothing is like an id."""
    own = OWN_IDS.get(name, "")
    if own in form.columns:
        return form.columns[own] == ROW_HASH and ROW_HASH not in columns
    known = (*TABLES[name].known, *form.columns, *form.columns.values())
    strangers = [column for column in columns if column not in known]
    return bool(own) and own not in columns and not difflib.get_close_matches(own, strangers, cutoff=0.5)


def _choose(name: str, raw: pd.DataFrame, form: TableMapping, notes: Notes) -> pd.DataFrame:
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
    if makes_ids(name, list(raw.columns), form) and OWN_IDS[name] not in chosen:
        notes[f"{name} came without {OWN_IDS[name]}: each row got one made from its content ({MADE_ID}...)"] += 1
        chosen = {OWN_IDS[name]: _row_hash(raw)} | chosen
    return pd.DataFrame(chosen | kept, index=raw.index)


def _expression(target: str, where: str, raw: pd.DataFrame, form: TableMapping) -> pd.Series:
    if len(where) > 1 and where[0] == where[-1] == "'":
        return pd.Series(where[1:-1], index=raw.index, dtype=ARROW_TEXT)
    if (filled := ELSE.fullmatch(where)) and filled["column"] in raw:
        text = read_text(raw[filled["column"]])
        return text.mask(text.str.strip().fillna("") == "", filled["text"])
    product = pd.Series(1.0, index=raw.index)
    factors = [part.strip() for part in where.split("*")]
    for factor in factors:
        if factor in raw:
            product = product * _number(raw[factor], form)
        elif len(factors) > 1 and factor.replace(".", "", 1).isdigit():
            product = product * float(factor)
        else:
            like = difflib.get_close_matches(factor, map(str, raw.columns), n=1)
            hint = f"; {like[0]!r} came" if like else f"; there: {', '.join(map(str, raw.columns))}"
            raise ContractError(f"{target} is to come from {where!r}, but no column is called {factor!r}{hint}")
    return product


def _convert(table: Table, frame: pd.DataFrame, form: TableMapping, units: Units, notes: Notes) -> pd.DataFrame:
    zone = ZoneInfo(form.timezone) if form.timezone else units.zone
    major = form.major_units if isinstance(form.major_units, tuple) else None
    for column in table.columns:
        if column.name not in frame:
            continue
        values, target = frame[column.name], f"{table.name}.{column.name}"
        if column.kind == "id" and (count := pointed(values)):
            notes[f"{target}: {{:,}} ids came with .0, as whole numbers beside gaps do, and are kept without"] += count
        elif column.kind == "time":
            frame[column.name] = _utc(target, values, form.date_format, zone, notes)
        elif column.kind == "money" and (column.name in major if major is not None else form.major_units):
            if table.name != "events" or major:  # the value of an event is a score as often as an amount
                whole = "*" in form.columns.get(column.name, "")
                frame[column.name] = _minor(target, values, form, (units.digits, whole), notes)
        elif column.kind in {"money", "count", "share"} and (form.decimal or form.symbol):
            frame[column.name] = _or_unreadable(_number(values, form), values)
    return frame


def _minor(target: str, values: pd.Series, form: TableMapping, how: tuple[int, bool], notes: Notes) -> pd.Series:
    """Turn major units into whole minor ones; an amount with more digits than the currency has is unreadable."""
    digits, rounded = how
    exact = _number(values, form) * 10**digits
    whole = exact.round()
    near = (exact - whole).abs() <= CLOSE * np.maximum(1.0, exact.abs() * 1e-6)
    if rounded and (off := int((~near & exact.notna()).sum())):
        notes[f"{target}: {{:,}} products were rounded to whole minor units"] += off
    return _or_unreadable(whole if rounded else whole.where(near), values)


def _utc(target: str, values: pd.Series, form: str | None, zone: ZoneInfo, notes: Notes) -> pd.Series:
    if form is None and zone.key == "UTC":
        return values  # as the contract has it: the check reads it
    regular = regular_times(values) if form is None else None
    values = values if regular is None else regular
    if pd.api.types.is_datetime64_any_dtype(values):
        return values if values.dt.tz is not None else _localize(target, values, zone, notes)
    text = read_text(values)
    text = text.mask(text.str.lower().isin(CLOCK_WORDS))  # pandas reads them as times
    marked = text.str.contains(MARKED, regex=True).fillna(False).astype(bool) if form is None else "%z" in (form or "")
    layout = form or "ISO8601"
    wall = pd.to_datetime(text.mask(pd.Series(marked, index=text.index)), errors="coerce", format=layout)
    own = pd.to_datetime(text.where(pd.Series(marked, index=text.index)), errors="coerce", format=layout, utc=True)
    return _or_unreadable(_localize(target, wall, zone, notes).fillna(own), values)


def _localize(target: str, wall: pd.Series, zone: ZoneInfo, notes: Notes) -> pd.Series:
    """Read wall-clock times; in the hour that comes twice the first is meant, one that never was moves forward."""
    fast = fast_zone(zone, wall)
    strict = wall.dt.tz_localize(fast, ambiguous="NaT", nonexistent="NaT")
    unclear = int((strict.isna() & wall.notna()).sum())
    if unclear:
        notes[f"{target}: {{:,}} times lie where the clocks of {zone.key} change; the first hour was taken"] += unclear
        first = np.ones(len(wall), dtype=bool)
        strict = wall.dt.tz_localize(fast, ambiguous=first, nonexistent="shift_forward")
    utc: pd.Series = strict.dt.tz_convert("UTC").astype("datetime64[us, UTC]")
    return utc


def _row_hash(raw: pd.DataFrame) -> pd.Series:
    """Name rows by their content: equal rows get equal names, whatever is beside them and in whatever order."""
    columns = [pa.chunked_array(read_text(raw[name]).array.__arrow_array__()) for name in sorted(raw.columns)]
    joined = pc.binary_join_element_wise(
        *columns, pa.scalar("\x1f", TEXT), null_handling="replace", null_replacement="\0"
    )
    digest = pd.util.hash_array(joined.to_pandas().to_numpy(dtype=object), categorize=False)
    return pd.Series([f"{MADE_ID}{number:016x}" for number in digest.tolist()], index=raw.index, dtype=ARROW_TEXT)


def _number(values: pd.Series, form: TableMapping) -> pd.Series:
    return read_written(values, decimal=form.decimal, symbol=form.symbol).astype("float64")


def _or_unreadable(values: pd.Series, came: pd.Series) -> pd.Series:
    lost = values.isna() & came.notna()
    if not lost.any():
        return values
    return values.astype(object).where(~lost, UNREADABLE + came.astype(ARROW_TEXT))
