"""A batch on its way in: each table conformed, checked and spilled, members from transactions if there are none."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Final
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa

from features.errors import ContractError
from features.intake.batch import first_seen
from features.intake.checks import check_values, set_guests_aside, table_diff, unknown_tables
from features.intake.conform import Notes, Units, conform, makes_ids
from features.intake.mapping import SourceMapping, TableMapping
from features.intake.parts import Parts, file_parts
from features.intake.staged import Staged, stage
from features.intake.values import read_ids
from features.intake.workbench import Workbench
from features.programme import Programme
from features.schema import TABLES

UTC: Final = ZoneInfo("UTC")
FIRST: Final = "first_seen.parquet"


@dataclass(frozen=True)
class Batch:
    """Hold the tables that are brought, how they are read, and how strictly they are judged."""

    tables: Mapping[str, Parts]
    source: str  # in words
    key: str  # the source's fingerprint; a batch that is already in the warehouse is not read again
    mapping: SourceMapping = field(default_factory=SourceMapping)
    allow: frozenset[str] = frozenset()
    now: datetime | None = None

    @property
    def derives(self) -> bool:
        """Whether members join with their first row of transactions."""
        return self.mapping.derives_members and "transactions" in self.tables


def stage_batch(bench: Workbench, batch: Batch, programme: Programme) -> tuple[dict[str, Staged], Notes]:
    """Check every value of every table; give the spilled tables and what people should know.

    Raises
    ------
    ContractError
        If rows can't be checked at all, because a table, a column or every row is missing.
    """
    notes = Notes()
    _refuse_faults(batch, programme)
    bring = partial(_stage, bench, batch, programme=programme, notes=notes)
    if not batch.derives:
        return {name: bring(name, parts) for name, parts in batch.tables.items()}, notes
    staged = {name: bring(name, parts) for name, parts in batch.tables.items() if name != "members"}
    there = first_seen(bench.queries, staged["transactions"], bench.folder / FIRST)
    if "members" in batch.tables:
        notes["members.joined_at is the time of the first transaction"] += 1
    else:
        notes["members came from transactions: {:,} who bought, joined with their first row"] += there
    parts = batch.tables.get("members", file_parts(bench.folder / FIRST, TableMapping()))
    return staged | {"members": bring("members", parts)}, notes


def _stage(bench: Workbench, batch: Batch, name: str, parts: Parts, *, programme: Programme, notes: Notes) -> Staged:
    form, units = batch.mapping.table(name), Units(UTC, programme.currency_digits)

    def check(part: pa.RecordBatch) -> tuple[pd.DataFrame, pd.Series]:
        frame = conform(name, part, form, units=units, notes=notes)
        if name == "members" and batch.derives:
            frame["joined_at"] = _joined(bench, frame["member_id"])
        rows, reasons = check_values(TABLES[name], frame, now=batch.now, currency=programme.currency)
        return rows, set_guests_aside(reasons) if form.guests else reasons

    made = makes_ids(name, next(parts()).schema.names, form)
    path = bench.folder / f"{name}.parquet"
    return stage(TABLES[name], parts, path, check=check, zone=programme.zone, made_ids=made)


def _joined(bench: Workbench, ids: pd.Series) -> pd.Series:
    """Look up when members joined, or when their first rows of transactions were."""
    part = bench.queries.from_arrow(pa.table({"place": range(len(ids)), "member_id": read_ids(ids)}))
    first = bench.queries.read_parquet(str(bench.folder / FIRST)).union(bench.queries.view("members_stand"))
    times = part.join(first, "member_id", how="left").order("place").project("joined_at").to_arrow_table()
    joined = times["joined_at"].cast(pa.timestamp("us", tz="UTC"))
    return pd.Series(joined.to_pandas().array, index=ids.index)


def _refuse_faults(batch: Batch, programme: Programme) -> None:
    """Look at the start of each table before any is read whole."""
    free = set(TABLES) if batch.mapping.adds else {"members"} if batch.derives else set()
    faults = unknown_tables(batch.tables.keys() | free)
    for name, parts in batch.tables.items():
        if name in TABLES:
            faults += _table_faults(name, parts, batch, programme)
    if faults:
        raise ContractError(f"the batch was refused, nothing changed: {'; '.join(faults)}")


def _table_faults(name: str, parts: Parts, batch: Batch, programme: Programme) -> list[str]:
    came = parts()
    first = next(came)
    if next(came, None) is None and not batch.mapping.adds:
        return [f"{name} is empty, at least one row was wanted"]
    units = Units(UTC, programme.currency_digits)
    columns = [*conform(name, first, batch.mapping.table(name), units=units, notes=Notes()).columns]
    return table_diff(name, [*columns, "joined_at"] if name == "members" and batch.derives else columns)
