"""A company's tables -> the warehouse. A bad row goes to quarantine with its reason; a bad batch is refused whole."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa

from features import complete_journey
from features.errors import ContractError, NotFoundError
from features.files import fingerprint, write_whole
from features.home import Home
from features.intake.arrival import Batch, stage_batch
from features.intake.batch import Judged, judge, refusal, write_rows
from features.intake.conform import Notes, written
from features.intake.databases import database_parts
from features.intake.erased import leave_out
from features.intake.held import hold
from features.intake.mapping import SourceMapping, TableMapping
from features.intake.offered import catalogue_faults
from features.intake.parts import file_parts, table_parts
from features.intake.proposal import propose
from features.intake.quarantine import quarantine
from features.intake.shifts import refusals
from features.intake.sources import Source, table_paths
from features.intake.workbench import Workbench, open_workbench
from features.offers import OFFERS
from features.privacy.consent import read_consent
from features.programme import Programme, read_programme
from features.sheet import Sheet
from features.warehouse import (
    NewTable,
    Warehouse,
    add_tables,
    open_warehouse,
    read_by,
    refuse_other_units,
    replace_tables,
)
from features.world.history import write_history
from features.world.law import World
from features.world.source import world_fingerprint, world_settings, world_title

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
    tables = {name: pa.Table.from_pandas(frame, preserve_index=False) for name, frame in frames.items()}
    batch = Batch({name: table_parts(table) for name, table in tables.items()}, source, key)
    with open_workbench(home) as bench:
        return _take(home, bench, batch, programme)[0]


def ingest_source(home: Home, source: str) -> tuple[Warehouse, bool]:
    """Ingest a folder of tables, or the built-in source; give the warehouse, and whether anything had to be done."""
    if source == complete_journey.NAME:
        brought = ingest_journey(home)
    else:
        brought = bring(home, Source(folder=Path(source)), SourceMapping())
    return brought.warehouse or open_warehouse(home), brought.fresh


def ingest_journey(home: Home) -> Brought:
    """Ingest the real retailer's year."""
    if not home.settings.exists():
        _write_text(home.settings, complete_journey.SETTINGS)
    programme = read_programme(home.settings)
    key = fingerprint(complete_journey.source_fingerprint(), programme.timezone)
    standing = ingested(home, key)
    if standing:
        return Brought(warehouse_sheet(standing), fresh=False, warehouse=standing)
    frames = complete_journey.read_tables()
    warehouse = ingest(frames, home=home, programme=programme, source=complete_journey.SOURCE, key=key)
    return Brought(warehouse_sheet(warehouse), fresh=True, warehouse=warehouse)


def ingest_world(
    home: Home, world: World, seed: int, *, allow: frozenset[str] = frozenset(), memory: int | None = None
) -> Brought:
    """Let a synthetic world live and ingest its tables; the same world again changes nothing."""
    settings = None if home.settings.exists() else world_settings(world)
    programme = Programme.model_validate(tomllib.loads(settings)) if settings else read_programme(home.settings)
    key = fingerprint(world_fingerprint(world, seed), programme.timezone, programme.currency)
    standing = ingested(home, key)
    if standing:
        return Brought(warehouse_sheet(standing), fresh=False, warehouse=standing)
    with open_workbench(home, memory) as bench:
        folder = bench.folder / "world"
        write_history(world, folder, np.random.default_rng(seed))
        paths = table_paths(Source(folder=folder), SourceMapping())
        tables = {name: file_parts(path, TableMapping()) for name, path in paths.items()}
        batch = Batch(tables, world_title(world, seed), key, allow=allow)
        warehouse, notes = _take(home, bench, batch, programme, settings=settings)
    return Brought(warehouse_sheet(warehouse, *notes), fresh=True, warehouse=warehouse)


def bring(
    home: Home,
    source: Source,
    mapping: SourceMapping,
    *,
    allow: frozenset[str] = frozenset(),
    now: datetime | None = None,
    rehearse: bool = False,
    memory: int | None = None,
) -> Brought:
    """Ingest any source by its mapping; a rehearsal reads and judges the same and leaves nothing.

    An addition to an empty home is its first batch.

    Parameters
    ----------
    memory : what queries may take, in bytes; by default a share of what there is

    Raises
    ------
    ContractError
        If the batch is refused; the warehouse stays as it was.
    """
    programme, settings = _programme(home, mapping)
    before = _standing(home)
    mapping = mapping.model_copy(update={"adds": mapping.adds and before is not None})
    if before and mapping.adds:
        refuse_other_units(before, programme)
    paths = {} if source.database else table_paths(source, mapping)
    tables = {name: file_parts(path, mapping.table(name)) for name, path in paths.items()}
    said = (mapping.model_dump(), programme.timezone, programme.currency, programme.currency_digits)
    key = fingerprint(fingerprint(*paths, *paths.values()), *said)
    standing = ingested(home, key)
    if standing and not source.database:
        return Brought(warehouse_sheet(standing), fresh=False, warehouse=standing)
    with open_workbench(home, memory) as bench:
        if source.database:
            tables, came = database_parts(source.database, mapping, bench)
            key = fingerprint(came, *said)
        standing = ingested(home, key)
        if standing:
            return Brought(warehouse_sheet(standing), fresh=False, warehouse=standing)
        batch = Batch(tables, source.title, key, mapping, allow, now)
        if rehearse:
            return Brought(_rehearsal(home, bench, batch, programme), fresh=True)
        warehouse, notes = _take(home, bench, batch, programme, settings=settings)
    return Brought(warehouse_sheet(warehouse, *notes), fresh=warehouse != before, warehouse=warehouse)


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


def _take(
    home: Home, bench: Workbench, batch: Batch, programme: Programme, *, settings: str | None = None
) -> tuple[Warehouse, tuple[str, ...]]:
    judged, notes = _judge(home, bench, batch, programme)
    verdicts = judged.verdicts
    for verdict in verdicts.values():
        if verdict.bad:
            quarantine(home, bench.queries, verdict.staged, source=batch.source, key=batch.key)
    if judged.refused:
        raise ContractError(f"{refusal(judged)}; see {home.quarantine}")
    if settings:
        _write_text(home.settings, settings)
    tables = {
        name: NewTable(partial(write_rows, bench.queries, verdict), verdict.rows, verdict.bad)
        for name, verdict in verdicts.items()
    }
    standing = _standing(home)
    if standing and batch.mapping.adds:
        return add_tables(standing, batch.key, tables), written(notes)
    warehouse = replace_tables(
        home, tables, source=batch.source, source_fingerprint=batch.key, read_by=read_by(programme)
    )
    return warehouse, written(notes)


def _judge(home: Home, bench: Workbench, batch: Batch, programme: Programme) -> tuple[Judged, Notes]:
    standing, adds = _standing(home), batch.mapping.adds
    held = hold(bench.queries, standing if adds else None)
    staged, notes = stage_batch(bench, batch, programme)
    staged = leave_out(bench.queries, staged, read_consent(home), notes)
    allow = batch.allow | {"shrink"} if adds else batch.allow
    judged = judge(bench.queries, staged, held=held, standing=standing, allow=allow)
    if OFFERS not in judged.verdicts:
        return judged, notes
    now = batch.now and (programme.replay_from or batch.now)
    faults = refusals(catalogue_faults(bench.queries, judged.verdicts[OFFERS], programme, now=now), allow)
    return replace(judged, refused=(*judged.refused, *faults)), notes


def _rehearsal(home: Home, bench: Workbench, batch: Batch, programme: Programme) -> Sheet:
    judged, notes = _judge(home, bench, batch, programme)
    if judged.refused:
        raise ContractError(refusal(judged))
    standing = _standing(home)
    held = standing.tables if standing else {}
    rows = []
    for name, verdict in judged.verdicts.items():
        before = f"{held[name].rows:,}" if name in held else "none"
        most = verdict.reasons[0][0] if verdict.reasons else ""
        rows.append((name, before, f"{verdict.rows:,}", f"{verdict.bad:,}", most))
    header = ("table", "rows now", "rows then", "to quarantine", "most often because")
    return Sheet("A rehearsal: nothing was written", header, tuple(rows), written(notes))


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
