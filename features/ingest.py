"""A company's tables -> the warehouse. A bad row goes to quarantine with its reason; a bad batch is refused whole."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import pandas as pd

from features import complete_journey
from features.batch import Batch, judge, quarantine, refusal
from features.conform import conform
from features.errors import ContractError, NotFoundError
from features.files import fingerprint, write_whole
from features.home import Home
from features.mapping import SourceMapping
from features.programme import Programme, read_programme
from features.proposal import propose
from features.schema import TABLES
from features.sheet import Sheet
from features.sources import Source, content_key, read_database, read_file, table_paths
from features.warehouse import Warehouse, open_warehouse, replace_tables

UTC: Final = ZoneInfo("UTC")
DIGITS: Final = {"JPY": 0, "KRW": 0, "CLP": 0, "ISK": 0, "VND": 0, "KWD": 3, "BHD": 3, "OMR": 3, "TND": 3, "JOD": 3}


@dataclass(frozen=True)
class Brought:
    """Say what the warehouse holds after an ingest, or would hold after it, and what people should know."""

    sheet: Sheet
    fresh: bool
    warehouse: Warehouse | None = None  # None: it was a rehearsal


def ingest(frames: Mapping[str, pd.DataFrame], *, home: Home, programme: Programme, source: str, key: str) -> Warehouse:
    """Check every row of a batch and let it take the place of the one before.

    Raises
    ------
    ContractError
        With every reason at once; the warehouse stays as it was.
    """
    return _take(home, Batch(frames, source, key), programme)


def ingest_source(home: Home, source: str) -> tuple[Warehouse, bool]:
    """Ingest a folder of tables, or the built-in source; give the warehouse, and whether anything had to be done."""
    if source != complete_journey.NAME:
        brought = bring(home, Source(folder=Path(source)), SourceMapping())
        return brought.warehouse or open_warehouse(home), brought.fresh
    if not home.settings.exists():
        _write_text(home.settings, complete_journey.SETTINGS)
    programme = read_programme(home.settings)
    key = fingerprint(complete_journey.source_fingerprint(), programme.timezone)
    standing = ingested(home, key)
    if standing:
        return standing, False
    frames = complete_journey.read_tables()
    return ingest(frames, home=home, programme=programme, source=complete_journey.SOURCE, key=key), True


def bring(
    home: Home,
    source: Source,
    mapping: SourceMapping,
    *,
    allow: frozenset[str] = frozenset(),
    now: datetime | None = None,
    rehearse: bool = False,
) -> Brought:
    """Ingest any source by its mapping; a rehearsal reads and judges the same and writes nothing.

    Raises
    ------
    ContractError
        If the batch is refused; the warehouse stays as it was.
    """
    programme, settings = _programme(home, mapping)
    raw: Mapping[str, pd.DataFrame] = {}
    paths: dict[str, Path] = {}
    if source.database:
        raw = read_database(source.database, mapping)
        key = content_key(raw)
    else:
        paths = table_paths(source, mapping)
        key = fingerprint(*paths, *paths.values())
    key = fingerprint(key, mapping.model_dump(), programme.timezone, programme.currency, programme.currency_digits)
    standing = ingested(home, key)
    if standing:
        return Brought(warehouse_sheet(standing), fresh=False, warehouse=standing)
    raw = raw or {name: read_file(path, mapping.table(name)) for name, path in paths.items()}
    frames, notes = conform(raw, mapping, zone=UTC, digits=programme.currency_digits)
    guests = frozenset(name for name in TABLES if mapping.table(name).guests)
    batch = Batch(frames, source.title, key, raw, guests, allow, now, notes)
    if rehearse:
        return Brought(_rehearsal(home, batch, programme), fresh=True)
    warehouse = _take(home, batch, programme, settings=settings)
    return Brought(warehouse_sheet(warehouse, *notes), fresh=True, warehouse=warehouse)


def write_proposal(folder: Path, path: Path) -> str:
    """Propose a mapping for a folder's files and write it where no file is yet.

    Raises
    ------
    ContractError
        If there is one: it may have been mended by hand.
    """
    if path.exists():
        raise ContractError(f"{path} is there already; move it away, or type --mapping for another place")
    text = propose(folder)
    try:
        _write_text(path, text)
    except OSError as error:
        raise ContractError(f"{path} can't be written: {error}; type --mapping for another place") from error
    return text


def warehouse_sheet(warehouse: Warehouse, *notes: str) -> Sheet:
    """Show what the warehouse holds, what was refused, and what was made of the source."""
    refused = sum(table.quarantined for table in warehouse.tables.values())
    return Sheet(
        f"Warehouse: {warehouse.source}",
        ("table", "rows", "quarantined"),
        tuple((table.table, f"{table.rows:,}", f"{table.quarantined:,}") for table in warehouse.tables.values()),
        (*notes, *([f"the refused rows, with their reasons: {warehouse.home.quarantine}"] if refused else [])),
    )


def ingested(home: Home, key: str) -> Warehouse | None:
    """Give the warehouse if it already holds the batch with this fingerprint."""
    warehouse = _standing(home)
    return warehouse if warehouse and warehouse.source_fingerprint == key else None


def _take(home: Home, batch: Batch, programme: Programme, *, settings: str | None = None) -> Warehouse:
    judged = judge(batch, programme, _standing(home))
    for name, bad in judged.bad.items():
        quarantine(home, name, bad, batch)
    if judged.refused:
        raise ContractError(f"{refusal(judged)}; see {home.quarantine}")
    if settings:
        _write_text(home.settings, settings)
    tables = {name: (rows, len(judged.bad[name])) for name, rows in judged.good.items()}
    return replace_tables(home, batch.source, batch.key, tables)


def _rehearsal(home: Home, batch: Batch, programme: Programme) -> Sheet:
    standing = _standing(home)
    judged = judge(batch, programme, standing)
    if judged.refused:
        raise ContractError(refusal(judged))
    held = standing.tables if standing else {}
    rows = []
    for name, table in judged.good.items():
        bad = judged.bad[name]
        most = bad["reason"].value_counts().index[0] if len(bad) else ""
        before = f"{held[name].rows:,}" if name in held else "none"
        rows.append((name, before, f"{table.num_rows:,}", f"{len(bad):,}", most))
    header = ("table", "rows now", "rows then", "to quarantine", "most often because")
    return Sheet("A rehearsal: nothing was written", header, tuple(rows), batch.notes)


def _standing(home: Home) -> Warehouse | None:
    try:
        return open_warehouse(home)
    except NotFoundError:
        return None


def _programme(home: Home, mapping: SourceMapping) -> tuple[Programme, str | None]:
    """Read the settings; where there are none yet, give the first ones, of the mapping's currency and time zone."""
    if home.settings.exists() or not (mapping.currency or mapping.timezone):
        programme = read_programme(home.settings)
        if mapping.currency not in {None, programme.currency}:
            raise ContractError(
                f"the mapping says {mapping.currency}, the programme's currency is {programme.currency}; "
                f"one of them is wrong: see currency in {home.settings}"
            )
        return programme, None
    currency = mapping.currency or Programme().currency
    text = (
        f'currency = "{currency}"\ncurrency_digits = {DIGITS.get(currency, 2)}\n'
        f'timezone = "{mapping.timezone or Programme().timezone}"\n'
    )
    return Programme.model_validate(tomllib.loads(text)), text


def _write_text(path: Path, text: str) -> None:
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))
