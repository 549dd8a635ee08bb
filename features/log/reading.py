"""Read the decision log while it is written, and when it is not: decisions, of batches too, outcomes, catalogues."""

import contextlib
import json
import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from features.errors import CorruptError, NotFoundError
from features.log.entries import BATCH, DECISION, OUTCOME, PART, Batch, Part
from features.log.parts import find_in_part, held_by_part, read_part, rows_of_member
from features.log.rows import decode, open_to_read, select, text


def read_decisions(path: Path, *, since: datetime | None = None) -> list[dict[str, Any]]:
    """Read decisions from `since` on, in the order they were taken, as rows that `pandas.DataFrame` takes.

    Those of batches come after the others of the same time. `features` comes as a float32 array in the order of the
    release's features, and `eligible` says of each offer whether it was possible.
    """
    rows = [*_read(path, "decisions", DECISION, time="decided_at", since=since), *_batch_rows(path, since)]
    return sorted((_judged(row) for row in rows), key=lambda row: row["decided_at"])


def find_decision(path: Path, decision_id: str) -> dict[str, Any]:
    """Look one decision up, of a batch or not.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    with contextlib.closing(open_to_read(path)) as db:
        row = find(db, path.parent, decision_id)
    if row is None:
        raise NotFoundError(f"{path} holds no decision {decision_id!r}; answers of /v1/decisions name theirs")
    return row


def latest_decision(path: Path, member_id: str) -> tuple[str | None, int]:
    """Name the latest decision on a member, and say how many there are."""
    with contextlib.closing(open_to_read(path)) as db:
        query = "SELECT decided_at, decision_id FROM decisions WHERE member_id = ? ORDER BY decided_at"
        found = [(datetime.fromisoformat(at), name) for at, name in db.execute(query, (member_id,))]
    for _, part in read_parts(path):
        found += [(row["decided_at"], row["decision_id"]) for row in rows_of_member(path.parent, part, member_id)]
    return (max(found)[1], len(found)) if found else (None, 0)


def read_outcomes(path: Path, *, since: datetime | None = None) -> list[dict[str, Any]]:
    """Read the outcomes that occurred from `since` on, in order of time, as rows that `pandas.DataFrame` takes."""
    return _read(path, "outcomes", OUTCOME, time="occurred_at", since=since)


def read_unmatched(path: Path) -> list[dict[str, Any]]:
    """Read the outcomes of decisions that the log does not hold, or not yet, in order of time."""
    where = "decision_id IS NOT NULL AND decision_id NOT IN (SELECT decision_id FROM decisions)"
    with contextlib.closing(open_to_read(path)) as db:
        rows = db.execute(f"{select('outcomes', OUTCOME, where=where)} ORDER BY occurred_at, rowid").fetchall()
    outcomes = [decode(OUTCOME, row) for row in rows]
    asked = {row["decision_id"] for row in outcomes}
    batches = {decision_id.rpartition("-")[0] for decision_id in asked}
    parts = [part for batch, part in read_parts(path) if batch.batch_id in batches]
    known = {decision_id for part in parts for decision_id in held_by_part(path.parent, part, asked)}
    return [row for row in outcomes if row["decision_id"] not in known]


def read_catalogue_body(path: Path, catalogue_id: str) -> dict[str, Any]:
    """Read a catalogue that decisions were taken by.

    Raises
    ------
    NotFoundError
        If none was stored under this id.
    """
    with contextlib.closing(open_to_read(path)) as db:
        found = db.execute("SELECT body FROM catalogues WHERE catalogue_id = ?", (catalogue_id,)).fetchone()
    if found is None:
        raise NotFoundError(f"{path} holds no catalogue {catalogue_id}; its decisions can't be replayed")
    body: dict[str, Any] = json.loads(found[0])
    return body


def read_parts(path: Path) -> list[tuple[Batch, Part]]:
    """Read which batches were decided, part by part, in the order they began."""
    with contextlib.closing(open_to_read(path)) as db:
        batches = db.execute(f"{select('batches', BATCH, where='1')} ORDER BY decided_at, batch_id").fetchall()
        parts = db.execute(f"{select('parts', PART, where='1')} ORDER BY part").fetchall()
    begun = [Batch(**decode(BATCH, row)) for row in batches]
    decided = [Part(*row) for row in parts]
    return [(batch, part) for batch in begun for part in decided if part.batch_id == batch.batch_id]


def find_batch(path: Path, batch_id: str) -> Batch | None:
    """Look up what a batch is, if it has begun."""
    with contextlib.closing(open_to_read(path)) as db:
        row = db.execute(select("batches", BATCH, where="batch_id = ?"), (batch_id,)).fetchone()
    return Batch(**decode(BATCH, row)) if row else None


def _batch_rows(path: Path, since: datetime | None) -> Iterator[dict[str, Any]]:
    for batch, part in read_parts(path):
        if since is None or batch.decided_at >= since:
            yield from read_part(path.parent, part, DECISION)


def _read(
    path: Path, table: str, columns: tuple[str, ...], *, time: str, since: datetime | None
) -> list[dict[str, Any]]:
    first = text(since) if since else ""
    with contextlib.closing(open_to_read(path)) as db:
        try:
            rows = db.execute(f"{select(table, columns, where=f'{time} >= ?')} ORDER BY {time}, rowid", (first,))
            return [decode(columns, row) for row in rows]
        except sqlite3.DatabaseError as error:
            raise CorruptError(f"{path} is not a decision log ({error})") from error


def find(db: sqlite3.Connection, folder: Path, decision_id: str) -> dict[str, Any] | None:
    """Look one decision up; the id of one of a batch begins with the batch's."""
    row = db.execute(select("decisions", DECISION, where="decision_id = ?"), (decision_id,)).fetchone()
    if row is not None:
        return _judged(decode(DECISION, row))
    parts = db.execute(select("parts", PART, where="batch_id = ?"), (decision_id.rpartition("-")[0],)).fetchall()
    for part in parts:
        if found := find_in_part(folder, Part(*part), DECISION, decision_id):
            return _judged(found)
    return None


def _judged(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "eligible": [not word for word in row["refusals"]]}
