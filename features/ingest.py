"""A company's tables -> the warehouse. A bad row goes to quarantine with its reason; a bad batch is refused whole."""

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa

from features import complete_journey
from features.checks import check_rows, table_diff, too_many, unknown_tables
from features.errors import ContractError, NotFoundError
from features.files import fingerprint, write_whole
from features.home import Home
from features.programme import Programme, read_programme
from features.schema import TABLES, Table
from features.sheet import Sheet
from features.warehouse import Warehouse, open_warehouse, order_tables, replace_tables

LOCAL_TIME: Final = "local_time"  # derived: the row's time as the programme's wall clock shows it


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
    refused = unknown_tables(frames) + [
        reason for name in order_tables(set(frames)) for reason in table_diff(name, frames[name])
    ]
    if refused:
        raise ContractError("the batch was refused, nothing changed: " + "; ".join(refused))
    members, checked = pd.Series(dtype="string"), {}
    for name in order_tables(set(frames)):  # members come first: a row of a refused member is refused too
        checked[name] = check_rows(TABLES[name], frames[name], members=members)
        members = checked["members"][0]["member_id"]
    refused = [reason for name, (good, bad) in checked.items() for reason in too_many(name, good, bad)]
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
    paths = {
        name: path for name in TABLES for path in (folder / f"{name}.parquet", folder / f"{name}.csv") if path.exists()
    }
    missing = [name for name, table in TABLES.items() if table.required and name not in paths]
    if missing:
        came = ", ".join(sorted(path.name for path in folder.glob("*"))) or "nothing"
        raise NotFoundError(
            f"{folder} lacks {' and '.join(f'{name}.csv or {name}.parquet' for name in missing)} (there: "
            f"{came if folder.is_dir() else 'no such folder'}); name the files after their tables "
            f"({', '.join(TABLES)}), or type {complete_journey.NAME!r} for the built-in data"
        )
    return paths


def _quarantine(home: Home, name: str, bad: pd.DataFrame, *, source: str, key: str) -> None:
    if bad.empty:
        return
    lines = [
        json.dumps(
            {"table": name, "source": source, "row": int(str(row)), "reason": values.pop("reason"), "values": values},
            default=str,
            allow_nan=False,
        )
        for row, values in bad.astype(object).mask(bad.isna(), None).to_dict(orient="index").items()
    ]
    text = "\n".join(lines) + "\n"
    write_whole(home.quarantine / f"{name}-{key}.jsonl", lambda beside: beside.write_text(text, encoding="utf-8"))


def _arrow(table: Table, good: pd.DataFrame, zone: ZoneInfo) -> pa.Table:
    """Order the rows and add the wall-clock time, so that days are counted where the members live."""
    time = next((c.name for c in table.columns if c.name in {"joined_at", "occurred_at", "contacted_at"}), None)
    if time:
        good = good.assign(**{LOCAL_TIME: good[time].dt.tz_convert(zone).dt.tz_localize(None)})
    by = [column for column in dict.fromkeys(("member_id", time or "member_id", *table.unique)) if column in good]
    ordered = good.sort_values(by, kind="stable")
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
