"""One batch: its rows judged against the contract, and the batch against what the warehouse holds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo

import pandas as pd
import pyarrow as pa

from features.checks import check_rows, table_diff, too_many, unknown_tables
from features.errors import ContractError
from features.files import write_whole
from features.home import Home
from features.programme import Programme
from features.schema import TABLES, Table
from features.shifts import Shift, refusals, shifts
from features.warehouse import LOCAL_TIME, Warehouse, order_tables

GUEST: Final = "a guest's row, set aside as the mapping says"


@dataclass(frozen=True)
class Batch:
    """Hold tables in the contract's columns, the rows they came from, and how strictly they are judged."""

    frames: Mapping[str, pd.DataFrame]
    source: str  # in words
    key: str  # the source's fingerprint; a batch that is already in the warehouse is not read again
    raw: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    guests: frozenset[str] = frozenset()  # tables whose rows without a member are no fault
    allow: frozenset[str] = frozenset()
    now: datetime | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Judged:
    """Hold what a batch would bring, what would go to quarantine, and why it is refused, if it is."""

    good: dict[str, pa.Table]
    bad: dict[str, pd.DataFrame]
    refused: tuple[str, ...]


def judge(batch: Batch, programme: Programme, standing: Warehouse | None) -> Judged:
    """Check a batch's columns, then its rows, then how far it is from what the warehouse holds.

    Raises
    ------
    ContractError
        If rows can't be checked at all, because a table or a column is missing.
    """
    names = order_tables(set(batch.frames))  # members come first: a row of a refused member is refused too
    refused = unknown_tables(batch.frames) + [
        reason for name in names for reason in table_diff(name, batch.frames[name])
    ]
    if refused:
        raise ContractError("the batch was refused, nothing changed: " + "; ".join(refused))
    found: list[Shift] = []
    members, good, bad = pd.Series(dtype="string"), {}, {}
    currency = programme.currency
    for name in names:
        rows, bad[name] = check_rows(
            TABLES[name], batch.frames[name], members=members, now=batch.now, currency=currency
        )
        members = rows["member_id"] if name == "members" else members
        faults = _without_guests(bad[name]) if name in batch.guests else bad[name]
        found += [Shift("bad-rows", text) for text in too_many(name, rows, faults)]
        good[name] = _arrow(TABLES[name], rows, programme.zone)
    if standing:
        found += shifts(good, standing)
    return Judged(good, bad, tuple(refusals(found, batch.allow)))


def refusal(judged: Judged) -> str:
    """Say why a batch is refused, and how to say that it is meant."""
    needed = sorted({text.rpartition("(")[2].rstrip(")") for text in judged.refused})
    return (
        f"the batch was refused, nothing changed: {'; '.join(judged.refused)}; "
        f"if it is right as it came, type --allow {','.join(needed)}"
    )


def quarantine(home: Home, name: str, bad: pd.DataFrame, batch: Batch) -> None:
    """Write refused rows as they came, with their reasons."""
    if bad.empty:
        return
    came = batch.raw[name].iloc[bad.index.to_numpy()] if name in batch.raw else bad.drop(columns="reason")
    rows = came.astype(object).mask(came.isna(), None).to_dict(orient="records")
    lines = [
        json.dumps(
            {"table": name, "source": batch.source, "row": int(row), "reason": reason, "values": values},
            default=str,
            allow_nan=False,
        )
        for row, reason, values in zip(bad.index, bad["reason"], rows, strict=True)
    ]
    text = "\n".join(lines) + "\n"
    path = home.quarantine / f"{name}-{batch.key}.jsonl"
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def _without_guests(bad: pd.DataFrame) -> pd.DataFrame:
    """Give the faults, and rename the reason of the rows that are nobody's."""
    guest = bad["member_id"].isna() & (bad["reason"] == "member_id: not_nullable")
    bad.loc[guest, "reason"] = GUEST
    return bad[~guest]


def _arrow(table: Table, good: pd.DataFrame, zone: ZoneInfo) -> pa.Table:
    """Order the rows and add the wall-clock time, so that days are counted where the members live."""
    time = next((c.name for c in table.columns if c.name in {"joined_at", "occurred_at", "contacted_at"}), None)
    if time:
        good = good.assign(**{LOCAL_TIME: good[time].dt.tz_convert(zone).dt.tz_localize(None)})
    by = [column for column in dict.fromkeys(("member_id", time or "member_id", *table.unique)) if column in good]
    ordered = good.sort_values(by, kind="stable")
    return pa.Table.from_pandas(ordered, preserve_index=False).replace_schema_metadata(None)
