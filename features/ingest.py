"""A company's tables -> the warehouse. A bad row goes to quarantine with its reason; a bad batch is refused whole."""

import difflib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pandera.pandas as pandera
import pyarrow as pa

from features import complete_journey
from features.errors import ContractError, NotFoundError
from features.files import fingerprint, write_whole
from features.home import Home
from features.programme import Programme, read_programme
from features.schema import ID_LENGTH, TABLES, Column, Table
from features.sheet import Sheet
from features.warehouse import Warehouse, open_warehouse, order_tables, replace_tables

MOST_BAD_ROWS: Final = 0.01  # a batch with a larger share of bad rows is a broken export, not a dirty one
LOCAL_TIME: Final = "local_time"  # derived: the row's time as the programme's wall clock shows it
_DTYPES: Final = {"time": "datetime64[us, UTC]", "money": "Int64", "count": "Int64", "share": "Float64", "flag": "boolean"}


def ingest(frames: Mapping[str, pd.DataFrame], *, home: Home, programme: Programme, source: str, key: str) -> Warehouse:
    """Check every row of a batch and let it take the place of the one before.

    Parameters
    ----------
    frames : table name -> rows, columns named as in the contract
    source : where the batch comes from, in words
    key : the source's fingerprint; a batch whose key is already in the warehouse is not read again

    Raises
    ------
    ContractError
        With every reason at once; the warehouse stays as it was.
    """
    refused = _unknown_tables(frames) + [reason for name in order_tables(set(frames)) for reason in _diff(name, frames[name])]
    if refused:
        raise ContractError("the batch was refused, nothing changed: " + "; ".join(refused))
    members = frames["members"]["member_id"].astype("string")
    checked = {name: check_rows(TABLES[name], frames[name], members=members) for name in order_tables(set(frames))}
    refused = [reason for name, (good, bad) in checked.items() for reason in _too_many(name, good, bad)]
    for name, (_, bad) in checked.items():
        _quarantine(home, name, bad, source=source, key=key)
    if refused:
        raise ContractError(f"the batch was refused, nothing changed: {'; '.join(refused)}; see {home.quarantine}")
    batch = {name: (_arrow(TABLES[name], good, programme.zone), len(bad)) for name, (good, bad) in checked.items()}
    return replace_tables(home, source, key, batch)


def ingest_source(home: Home, source: str) -> tuple[Warehouse, bool]:
    """Ingest a folder of tables, or the built-in source; give the warehouse, and whether anything had to be done."""
    if source == complete_journey.NAME:
        key, read = complete_journey.source_fingerprint(), complete_journey.read_tables
        if not home.settings.exists():
            text = complete_journey.SETTINGS
            write_whole(home.settings, lambda beside: beside.write_text(text, encoding="utf-8"))
        title = complete_journey.SOURCE
    else:
        paths = table_paths(Path(source))
        key, title = fingerprint(*paths, *paths.values()), source
        read = partial(_read_all, paths)
    programme = read_programme(home.settings)
    key = fingerprint(key, programme.timezone)
    standing = ingested(home, key)
    if standing:
        return standing, False
    return ingest(read(), home=home, programme=programme, source=title, key=key), True


def warehouse_sheet(warehouse: Warehouse) -> Sheet:
    """Show what the warehouse holds, and what was refused."""
    refused = sum(table.quarantined for table in warehouse.tables.values())
    return Sheet(
        f"Warehouse: {warehouse.source}",
        ("table", "rows", "quarantined"),
        tuple((table.table, f"{table.rows:,}", f"{table.quarantined:,}") for table in warehouse.tables.values()),
        (f"the refused rows, with their reasons: {warehouse.home.quarantine}",) if refused else (),
    )


def ingested(home: Home, key: str) -> Warehouse | None:
    """Give the warehouse if it already holds the batch with this fingerprint."""
    try:
        warehouse = open_warehouse(home)
    except NotFoundError:
        return None
    return warehouse if warehouse.source_fingerprint == key else None


def table_paths(folder: Path) -> dict[str, Path]:
    """Find `<table>.parquet` or `<table>.csv` for every table of the contract.

    Raises
    ------
    NotFoundError
        If the folder, `members` or `transactions` is missing.
    """
    paths = {name: path for name in TABLES for path in (folder / f"{name}.parquet", folder / f"{name}.csv") if path.exists()}
    missing = [name for name, table in TABLES.items() if table.required and name not in paths]
    if missing:
        came = ", ".join(sorted(path.name for path in folder.glob("*"))) or "nothing"
        raise NotFoundError(
            f"{folder} lacks {' and '.join(f'{name}.csv or {name}.parquet' for name in missing)} "
            f"(there: {came if folder.is_dir() else 'no such folder'}); name the files after their tables ({', '.join(TABLES)}), "
            f"or type {complete_journey.NAME!r} for the built-in data"
        )
    return paths


def check_rows(table: Table, frame: pd.DataFrame, *, members: pd.Series) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split a table's rows into good ones, typed, and bad ones with a column `reason`."""
    typed, reasons = frame.reset_index(drop=True).copy(), pd.Series("", index=range(len(frame)), dtype=object)
    for column in table.columns:
        if column.name in typed:
            values = _typed(column, typed[column.name])
            lost = values.isna() & typed[column.name].notna()
            reasons[lost] += f"{column.name} is no {column.kind}; "
            typed[column.name] = values
    for row, reason in _failures(table, typed):
        reasons[row] += f"{reason}; "
    if table.name != "members" and "member_id" in typed:
        reasons[~typed["member_id"].isin(members) & typed["member_id"].notna()] += "member_id is not in members; "
    bad = reasons != ""
    return typed[~bad], frame.reset_index(drop=True)[bad].assign(reason=reasons[bad].str.removesuffix("; "))


def _failures(table: Table, typed: pd.DataFrame) -> list[tuple[int, str]]:
    """Check values by pandera and give (row, reason) for each failure."""
    schema = pandera.DataFrameSchema({c.name: _pandera(c) for c in table.columns if c.name in typed})
    found: list[tuple[int, str]] = []
    try:
        schema.validate(typed, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        cases = errors.failure_cases.dropna(subset=["index"])
        found = [(int(row), f"{column}: {check}") for row, column, check in cases[["index", "column", "check"]].to_numpy()]
    if table.unique:
        again = typed.duplicated(list(table.unique)) & typed[list(table.unique)].notna().all(axis=1)
        found += [(int(row), f"{', '.join(table.unique)} came before") for row in np.flatnonzero(again)]
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
        return values.astype("string")
    if column.kind == "time":
        return pd.to_datetime(values, utc=True, errors="coerce", format=None if _is_time(values) else "ISO8601").astype(_DTYPES["time"])
    if column.kind == "flag":
        return values.map({True: True, False: False, "true": True, "false": False, "1": True, "0": False}).astype("boolean")
    numbers = pd.to_numeric(values, errors="coerce")
    if column.kind in {"money", "count"}:
        numbers = numbers.where(numbers == np.floor(numbers))
    return numbers.astype(_DTYPES[column.kind])


def _is_time(values: pd.Series) -> bool:
    return pd.api.types.is_datetime64_any_dtype(values)


def _diff(name: str, frame: pd.DataFrame) -> list[str]:
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


def _unknown_tables(frames: Mapping[str, pd.DataFrame]) -> list[str]:
    unknown = [f"{name!r} is no table of the contract ({', '.join(TABLES)})" for name in frames if name not in TABLES]
    return unknown + [f"{name} is missing" for name, table in TABLES.items() if table.required and name not in frames]


def _too_many(name: str, good: pd.DataFrame, bad: pd.DataFrame) -> list[str]:
    share = len(bad) / (len(good) + len(bad))
    if share <= MOST_BAD_ROWS:
        return []
    first = bad["reason"].value_counts().index[0]
    return [f"{name}: {len(bad):,} of {len(good) + len(bad):,} rows are bad ({share:.1%}; most often: {first})"]


def _quarantine(home: Home, name: str, bad: pd.DataFrame, *, source: str, key: str) -> None:
    if bad.empty:
        return
    lines = [
        json.dumps({"table": name, "source": source, "row": int(str(row)), "reason": values.pop("reason"), "values": values}, default=str)
        for row, values in bad.to_dict(orient="index").items()
    ]
    text = "\n".join(lines) + "\n"
    write_whole(home.quarantine / f"{name}-{key}.jsonl", lambda beside: beside.write_text(text, encoding="utf-8"))


def _arrow(table: Table, good: pd.DataFrame, zone: ZoneInfo) -> pa.Table:
    """Order the rows and add the wall-clock time, so that days are counted where the members live."""
    time = next((c.name for c in table.columns if c.name in {"joined_at", "occurred_at", "contacted_at"}), None)
    if time:
        good = good.assign(**{LOCAL_TIME: good[time].dt.tz_convert(zone).dt.tz_localize(None)})
    by = [column for column in ("member_id", time, *table.unique) if column in good]
    ordered = good.sort_values(list(dict.fromkeys(by)), kind="stable") if by else good
    return pa.Table.from_pandas(ordered, preserve_index=False).replace_schema_metadata(None)


def _read_all(paths: Mapping[str, Path]) -> dict[str, pd.DataFrame]:
    return {name: _read(path) for name, path in paths.items()}


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype="string", keep_default_na=False, na_values=[""])
    except (ValueError, OSError) as error:
        raise ContractError(f"{path} could not be read: {error}; wanted UTF-8, commas, and a header line") from error
