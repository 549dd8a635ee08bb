"""Outcomes from files: checked row by row, recorded as the service records them, matched whenever they are read.

An outcome is known by its id, so files may overlap and come in any order and any number of times: what the log holds at
the end is the same. One whose decision has not come yet is kept, and has it as soon as it is there.
"""

import difflib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

import pandas as pd

from features.decisions import Log, Outcome, open_log, read_outcomes, read_unmatched
from features.errors import ConflictError, ContractError, NotFoundError
from features.files import fingerprint, write_whole
from features.home import Home
from features.intake.checks import check_values
from features.intake.mapping import TableMapping
from features.intake.parts import ROWS, file_parts
from features.intake.values import NUMBERS
from features.schema import Column, Table
from features.sheet import Progress, Sheet
from features.warehouse import open_warehouse

OUTCOMES: Final = Table(
    "outcomes",
    (
        Column("outcome_id", "id"),
        Column("decision_id", "id", required=False),
        Column("contact_id", "id", required=False),
        Column("kind", "text"),
        Column("occurred_at", "time"),
        Column("amount", "money", required=False, signed=True),
    ),
    unique=("outcome_id",),
)
KIND: Final = "[a-z][a-z0-9_]{0,63}"  # as the service has it
JSON_LINES: Final = (".jsonl", ".ndjson")
UNREAD: Final = "line"  # the column of what is no outcome as JSON
LISTED: Final = 20  # unmatched outcomes, in a terminal

Refused = dict[str, Any]  # row, reason, values: as in the quarantine of a table


@dataclass(frozen=True)
class Received:
    """Say what became of a file's rows."""

    source: Path
    new: int
    repeated: int  # the same outcome had come before
    reasons: dict[str, int]  # of the rows that were refused
    quarantine: Path | None  # where those are

    @property
    def refused(self) -> int:
        """How many rows were not recorded."""
        return sum(self.reasons.values())


def bring_outcomes(home: Home, path: Path, *, now: datetime, progress: Progress) -> Received:
    """Record a CSV, Parquet or JSON lines file of outcomes; what is wrong goes to quarantine with its reason.

    Raises
    ------
    NotFoundError
        If there is no such file.
    ContractError
        For a file that is no table of outcomes.
    """
    if not path.is_file():
        raise NotFoundError(f"{path} is no file; name a CSV, Parquet or JSON lines file of outcomes")
    frames = _frames(path)
    _check_columns(path, next(frames).columns)
    came, refused, rows = Counter[bool](), list[Refused](), 0
    with open_log(home) as log:
        for frame in frames:
            for row, found in enumerate(_record(log, frame, now=now)):
                if isinstance(found, bool):
                    came[found] += 1
                else:
                    refused.append({"row": rows + row, "reason": found, "values": frame.iloc[row].dropna().to_dict()})
            rows += len(frame)
            progress("recording outcomes", rows, rows)
    quarantine = _quarantine(home, path, refused) if refused else None
    return Received(path, came[True], came[False], dict(Counter(row["reason"] for row in refused)), quarantine)


def received_sheet(received: Received) -> Sheet:
    """Show what became of a file's rows."""
    rows = (
        ("new", f"{received.new:,}"),
        ("came before", f"{received.repeated:,}"),
        ("refused", f"{received.refused:,}"),
    )
    reasons = [f"{count:,} refused: {reason}" for reason, count in received.reasons.items()]
    if any("amount is no money" in reason for reason in received.reasons):
        reasons.append("amounts are whole minor units: 12.50 is 1250")
    where = [f"the refused rows: {received.quarantine}"] if received.quarantine else []
    return Sheet(f"Outcomes of {received.source.name}", ("", "rows"), rows, (*reasons, *where))


def unmatched_outcomes(home: Home) -> list[dict[str, Any]]:
    """Give the outcomes, in order of time, whose decision or contact is not there; it may still come."""
    contacted = contact_ids(home)
    of_contacts = (row for row in read_outcomes(home.decisions) if row["contact_id"] is not None)
    waiting = [row for row in of_contacts if row["contact_id"] not in contacted]
    return sorted([*read_unmatched(home.decisions), *waiting], key=lambda row: row["occurred_at"])


def contact_ids(home: Home) -> frozenset[str]:
    """Give the ids of the warehouse's contacts; none where there is no such table, or no warehouse."""
    try:
        warehouse = open_warehouse(home)
    except NotFoundError:
        return frozenset()
    return frozenset(
        warehouse.frame("contacts", ["contact_id"])["contact_id"] if "contacts" in warehouse.tables else ()
    )


def unmatched_sheet(rows: list[dict[str, Any]]) -> Sheet:
    """List outcomes that wait for their decision or contact, the first ones."""
    header = ("outcome", "of", "kind", "occurred at", "amount")
    lines = tuple(
        (
            row["outcome_id"],
            row["decision_id"] or f"contact {row['contact_id']}",
            row["kind"],
            f"{row['occurred_at']:%Y-%m-%d %H:%M}",
            "" if row["amount"] is None else f"{row['amount']:,}",
        )
        for row in rows[:LISTED]
    )
    notes = (f"{len(rows):,} in all; each is matched as soon as its decision or contact comes",)
    return Sheet("Outcomes without their decision", header, lines, notes)


def _record(log: Log, frame: pd.DataFrame, *, now: datetime) -> Iterator[bool | str]:
    """Record the rows that are good; give for each whether it is new, or why it was refused."""
    typed, reasons = _check(frame, now)
    columns = [_values(typed, column.name) for column in OUTCOMES.columns]
    recorded = [
        log.record(Outcome(*row), now=now) if reason is None else reason
        for *row, reason in zip(*columns, reasons, strict=True)
    ]
    for found in recorded:
        try:
            yield found if isinstance(found, str) else found.result()
        except ConflictError as error:
            yield str(error)


def _check(frame: pd.DataFrame, now: datetime) -> tuple[pd.DataFrame, list[str | None]]:
    """Type the rows, and say why each is bad: every reason, None where there is none."""
    known = [name for name in OUTCOMES.known if name in frame]
    typed, found = check_values(OUTCOMES, frame[known], now=now)
    typed = typed.reindex(columns=list(OUTCOMES.known))
    ill_named = ~typed["kind"].str.fullmatch(KIND).fillna(value=True).astype(bool)
    causes = typed[["decision_id", "contact_id"]].notna().sum(axis=1)
    faults = {
        "kind: wanted lower case letters, digits and _, such as purchase": ill_named,
        "one of decision_id and contact_id was wanted": causes != 1,
    }
    reasons = [[] if reason is pd.NA else [reason] for reason in found]
    for fault, wrong in faults.items():
        for row in wrong.to_numpy().nonzero()[0]:
            reasons[row].append(fault)
    if UNREAD in frame:
        wanted = f"wanted one JSON object a line, of {', '.join(OUTCOMES.known)}"
        for row in frame[UNREAD].notna().to_numpy().nonzero()[0]:
            reasons[row] = [wanted]
    return typed, ["; ".join(why) or None for why in reasons]


def _values(typed: pd.DataFrame, name: str) -> list[Any]:
    values = typed[name]
    if name == "occurred_at":
        return list(pd.DatetimeIndex(values).to_pydatetime())
    return [None if missing else value for value, missing in zip(values.tolist(), values.isna(), strict=True)]


def _frames(path: Path) -> Iterator[pd.DataFrame]:
    """Read a file's rows part by part; the first part has no rows and says the columns."""
    if path.suffix in JSON_LINES:
        yield pd.DataFrame(columns=list(OUTCOMES.known))
        with path.open(encoding="utf-8", errors="replace") as lines:
            while rows := [_object(line) for line in islice(lines, ROWS)]:
                yield pd.DataFrame.from_records(rows).reindex(columns=[*OUTCOMES.known, UNREAD])
        return
    for part in file_parts(path, TableMapping())():
        yield part.to_pandas(types_mapper=NUMBERS.get)


def _object(line: str) -> dict[str, str | None]:
    """Read one JSON object as text, which is checked as that of any file is."""
    try:
        value = json.loads(line)
    except ValueError:
        return {UNREAD: line}
    if not isinstance(value, dict) or not value.keys() <= set(OUTCOMES.known):
        return {UNREAD: line}
    return {name: it if it is None or isinstance(it, str) else json.dumps(it) for name, it in value.items()}


def _check_columns(path: Path, came: pd.Index) -> None:
    faults = [f"lacks the column {name!r}" for name in OUTCOMES.needed if name not in came]
    for name in came:
        if name not in OUTCOMES.known:
            like = difflib.get_close_matches(str(name), OUTCOMES.known, n=1)
            faults.append(f"has the column {str(name)!r}{f': {like[0]!r} was meant?' if like else ''}")
    if faults:
        raise ContractError(f"{path} {' and '.join(faults)}; wanted {', '.join(OUTCOMES.known)}")


def _quarantine(home: Home, path: Path, refused: list[Refused]) -> Path:
    """Write the refused rows, one JSON object a line."""
    place = home.quarantine / f"outcomes-{fingerprint(path)}.jsonl"
    origin = {"table": OUTCOMES.name, "source": str(path)}
    text = "".join(f"{json.dumps(origin | row, default=str)}\n" for row in refused)
    write_whole(place, lambda beside: beside.write_text(text, encoding="utf-8"))
    return place
