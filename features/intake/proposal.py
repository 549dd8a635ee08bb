"""A first mapping for files nobody described: what each column seems to be, why, and what people have to decide."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final

import pandas as pd

from features.errors import NotFoundError
from features.intake.checks import CURRENCY
from features.intake.conform import OWN_IDS
from features.intake.look import (
    LOOKED_AT,
    SUFFIXES,
    Look,
    date_formats,
    is_currency,
    is_named,
    likeness,
    line_product,
    look_at,
    match_columns,
    match_values,
    numbers,
)
from features.intake.mapping import FIRST_TRANSACTION, ROW_HASH
from features.schema import CONTROL, TABLES, Column, Table

SHEETS: Final = (".xlsx", ".xls", ".ods")
SOME: Final = 0.01
SAME: Final = {"text": "'mail'", "money": "'5'"}  # what may well be the same in every row


def propose(folder: Path) -> str:
    """Write a mapping file's text for the files of a folder; nothing is decided that its comments do not say.

    Raises
    ------
    NotFoundError
        If there is no file to look at.
    """
    paths = sorted(path for path in folder.glob("*") if path.suffix in SUFFIXES and path.is_file())
    if not paths:
        sheets = [path.name for path in sorted(folder.glob("*")) if path.suffix in SHEETS]
        hint = f"; save {', '.join(sheets)} as CSV" if sheets else ""
        raise NotFoundError(f"{folder} has no {', '.join(SUFFIXES)} file to look at{hint}")
    looks = [look_at(path) for path in paths]
    fits = sorted(
        ((likeness(table, look), table, look) for table in TABLES.values() for look in looks), key=lambda fit: -fit[0]
    )
    chosen: dict[str, Look] = {}
    for score, table, look in fits:
        if score >= 1 and table.name not in chosen and look not in chosen.values():
            chosen[table.name] = look
    rest = [look for look in looks if look not in chosen.values()]
    if "transactions" not in chosen and rest:  # it is needed: the one whose values tell most, and the longest of those
        chosen["transactions"] = max(rest, key=lambda look: (len(_alone(look)), look.path.stat().st_size))
    return "\n".join([*_head(looks, chosen), *_tables(chosen)]) + "\n"


def _head(looks: list[Look], chosen: Mapping[str, Look]) -> Iterator[str]:
    yield f"# A proposal, from the first {LOOKED_AT:,} rows of each file and some of the rest. Read it, mend it, then:"
    yield "#   holdfast ingest FOLDER --mapping THIS_FILE --dry-run"
    for look in looks:
        if look not in chosen.values():
            came = ", ".join(map(str, look.frame.columns))
            yield f"# {_shown(look.path.name)} is like no table of the contract (columns: {_shown(came)}): not read"
            yield from _missed(look, chosen)
    yield _currency(chosen)
    yield '# timezone = "Europe/Berlin"  # of times that do not say theirs: UTC unless you say'


def _currency(chosen: Mapping[str, Look]) -> str:
    """Name the currency that all rows looked at say, if one of the columns is called so."""
    columns = [look.frame[name] for look in chosen.values() for name in look.frame.columns]
    said = {word.strip().upper() for values in columns if is_currency(values) for word in values.dropna().unique()}
    if len(said) == 1:
        return f"currency = {_toml(said.pop())}  # of every row looked at"
    why = f"the files say {', '.join(sorted(said))}" if said else "not in the files"
    return f'# currency = "USD"            # {why}: say yours'


def _missed(look: Look, chosen: Mapping[str, Look]) -> Iterator[str]:
    """Say what a file lacks whose name is that of a table."""
    for name, table in TABLES.items():
        if name not in chosen and is_named(table, look):
            lacking = [needed for needed in table.needed if needed not in match_columns(table, look.frame)]
            yield f"#   if it is your {name}, bring columns for {', '.join(lacking)} as well"


def _tables(chosen: Mapping[str, Look]) -> Iterator[str]:
    for name, table in TABLES.items():
        if name in chosen:
            yield from _table(table, chosen[name])
        elif name == "members":
            yield from ("", "[members.columns]  # no file is like it: made from transactions")
            yield f'joined_at = "{FIRST_TRANSACTION}"'
        elif table.required:
            yield from ("", f"[{name}]", '# file = "?"  # no file is like it, and it is needed')


def _table(table: Table, look: Look) -> Iterator[str]:
    found = match_columns(table, look.frame)
    alone = _alone(look, found) if table.name == "transactions" else {}
    found |= alone
    yield from ("", f"[{table.name}]  # {', '.join(table.needed)} are needed", f"file = {_toml(look.path.name)}")
    for key, value in look.form.items():
        yield f"{key} = {_toml(value)}"
    if "member_id" in found and look.frame[found["member_id"]].isna().mean() > SOME and table.name == "transactions":
        share = look.frame[found["member_id"]].isna().mean()
        yield f"guests = true  # {share:.0%} of the rows have no {_shown(found['member_id'])}: set aside, not bad"
    yield from _units(table, look.frame, found)
    formats = _formats(table, look.frame, found)
    yield from _dates(formats)
    yield from ("", f"[{table.name}.columns]")
    product = line_product(look.frame)
    for column in table.columns:
        if column.name in found:
            source = found[column.name]
            yield _given(column, _times(look.frame[source], formats.get(source, [])), alone)
        elif column.name == "amount" and product:
            yield f"amount = {_toml(product)}  # no total of a line: its number times its price"
        elif column.required:
            yield _lacking(column)
    for source in map(str, look.frame.columns):
        if is_currency(look.frame[source]) and CURRENCY not in {source, *table.known}:
            yield f"{CURRENCY} = {_toml(source)}  # a row in another is bad; {_range(look.frame[source])}"
        elif source not in found.values():
            yield f"# {_shown(source)}: kept as it is; {_range(look.frame[source])}"


def _lacking(column: Column) -> str:
    if column.name in OWN_IDS.values():
        return f'{column.name} = "{ROW_HASH}"  # nothing is like it: made from each row'
    if column.name == "joined_at":
        return f'{column.name} = "{FIRST_TRANSACTION}"  # nothing is like it'
    same = f", or the same for all: {_toml(SAME[column.kind])}" if column.kind in SAME else ""
    return f'# {column.name} = "?"  # needed, and nothing is like it; wanted: {column.kind}{same}'


def _given(column: Column, values: pd.Series, alone: Mapping[str, str]) -> str:
    where = source = str(values.name)
    why = f"{_why(column, source, alone)}; {_range(values)}"
    if column.name == "treatment" and values.isna().any():
        where, why = f"{source} else '{CONTROL}'", f"{why}: they were sent nothing"
    return f"{column.name} = {_toml(where)}  # {why}"


def _alone(look: Look, found: Mapping[str, str] = MappingProxyType({})) -> dict[str, str]:
    alone = match_values(TABLES["transactions"], look.frame, found)
    return {name: source for name, source in alone.items() if name != "amount" or not line_product(look.frame)}


def _units(table: Table, frame: pd.DataFrame, found: Mapping[str, str]) -> Iterator[str]:
    money = [found[c.name] for c in table.columns if c.kind == "money" and c.name in found]
    prices = (
        (line_product(frame) or "").split(" * ")[1:] if "amount" not in found and table.name == "transactions" else []
    )
    cents = [name for name in money + prices if (numbers(frame[name]).dropna() % 1 != 0).any()]
    if cents:
        yield f"major_units = true  # {_shown(', '.join(cents))} has values such as {_fraction(frame[cents[0]])}"
    elif money:
        yield f"# major_units = true  # {_shown(', '.join(money))} has no fractions: cents, unless you say"
    elif not prices and any(c.kind == "money" and c.name in table.needed for c in table.columns):
        yield "# major_units = true  # amounts are cents, unless you say"


def _formats(table: Table, frame: pd.DataFrame, found: Mapping[str, str]) -> dict[str, list[str]]:
    """Give the formats that fit each column of times."""
    times = [found[column.name] for column in table.columns if column.kind == "time" and column.name in found]
    return {source: date_formats(frame[source]) for source in times}


def _dates(formats: Mapping[str, list[str]]) -> Iterator[str]:
    told = {source: fits for source, fits in formats.items() if fits and fits != ["ISO8601"]}
    if told:
        source, fits = min(told.items(), key=lambda one: len(one[1]))  # one above the twelfth decides for the others
        sure = len(fits) == 1
        rest = "" if sure else f"; {' and '.join(fits[1:])} fits as well: decide, and take the # away"
        yield f"{'' if sure else '# '}date_format = {_toml(fits[0])}  # of {_shown(source)}{rest}"


def _why(column: Column, source: str, alone: Mapping[str, str]) -> str:
    if column.name in alone:
        return "by its values alone: no other column holds such"
    return "the contract's own name" if column.name == source else "by its name and its values"


def _times(values: pd.Series, fits: list[str]) -> pd.Series:
    """Read times that sort otherwise than their letters do, if their format is beyond doubt; leave others alone."""
    if len(fits) != 1 or fits == ["ISO8601"]:
        return values
    return pd.to_datetime(values, errors="coerce", format=fits[0])


def _range(values: pd.Series) -> str:
    known = values.dropna()
    if known.empty:
        return "no values"
    found = numbers(known)
    if found.notna().all() and not pd.api.types.is_datetime64_any_dtype(known):
        span = f"{found.min():.12g} to {found.max():.12g}"
    else:
        span = f"{known.astype(str).min()} to {known.astype(str).max()}"
    return _shown(f"{span}, {values.isna().mean():.0%} missing")


def _fraction(values: pd.Series) -> str:
    found = numbers(values).dropna()
    return str(found[found % 1 != 0].iloc[0])


def _shown(text: str) -> str:
    """Make text fit for a comment: one line, whatever is in it."""
    return text.encode("unicode_escape").decode()[:120]


def _toml(value: object) -> str:
    return json.dumps(value, ensure_ascii=True)
