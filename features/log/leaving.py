"""What has stood in the log for long enough: found by a reader, let go of by the writer, some at a time.

A decision is not deleted: it becomes nobody's, as after an erasure, and its outcomes with it, so that what an
experiment counts stays as it was. Answers, contacts and outcomes of no decision are deleted. No piece is large, so that
decisions don't wait, and each is let go of whole or not at all.
"""

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any

from features.log.erasing import ERASED, PIECE, Eraser
from features.log.reading import read_unmatched
from features.log.rows import microseconds, open_to_read, text


@dataclass(frozen=True)
class Terms:
    """Say until when each kind has to have come to be let go of."""

    decisions: datetime
    outcomes: datetime
    answers: datetime


@dataclass(frozen=True)
class Leaving:
    """Name what is let go of."""

    decisions: tuple[str, ...] = ()
    outcomes: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    contacts: tuple[tuple[str, int, str], ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each."""
        return {field.name: len(getattr(self, field.name)) for field in fields(self)}

    def pieces(self, size: int = PIECE) -> Iterator["Leaving"]:
        """Cut it into pieces of one kind each."""
        for field in fields(self):
            every = getattr(self, field.name)
            for start in range(0, len(every), size):
                yield Leaving(**{field.name: every[start : start + size]})


def find_leaving(path: Path, terms: Terms) -> Leaving:
    """Find what has stood for long enough; nothing is changed."""
    with contextlib.closing(open_to_read(path)) as db:
        decided = (text(terms.decisions), ERASED, f"{ERASED}~")
        ids = db.execute(
            "SELECT decision_id FROM decisions WHERE decided_at < ? AND decision_id NOT BETWEEN ? AND ?", decided
        )
        decisions = tuple(one for (one,) in ids)
        of_contacts = "SELECT outcome_id FROM outcomes WHERE decision_id IS NULL AND occurred_at < ?"
        outcomes = [one for (one,) in db.execute(of_contacts, (text(terms.outcomes),))]
        keys = db.execute("SELECT idempotency_key FROM answers WHERE created_at < ?", (text(terms.answers),))
        answers = tuple(one for (one,) in keys)
        query = "SELECT member_id, contacted_at, decision_id FROM contacts WHERE contacted_at < ?"
        contacts = tuple(db.execute(query, (microseconds(terms.decisions),)).fetchall())
    outcomes += [
        row["outcome_id"]
        for row in read_unmatched(path)
        if row["occurred_at"] < terms.outcomes and not row["decision_id"].startswith(ERASED)
    ]
    return Leaving(decisions, tuple(outcomes), answers, contacts)


def let_go(db: sqlite3.Connection, eraser: Eraser, leaving: Leaving) -> dict[str, int]:
    """Let go of what is there still, and say how many rows that was."""
    counts: Counter[str] = Counter()
    for decision_id in leaving.decisions:
        row = db.execute("SELECT decided_at FROM decisions WHERE decision_id = ?", (decision_id,)).fetchone()
        if row is not None:
            eraser.make_nobodys(decision_id, row[0])
            counts["decisions"] += 1
    for table, key, values in (
        ("outcomes", "outcome_id = ?", [(one,) for one in leaving.outcomes]),
        ("answers", "idempotency_key = ?", [(one,) for one in leaving.answers]),
        ("contacts", "member_id = ? AND contacted_at = ? AND decision_id = ?", leaving.contacts),
    ):
        counts[table] += _delete(db, table, key, values)
    return {name: count for name, count in counts.items() if count}


def _delete(db: sqlite3.Connection, table: str, key: str, values: Any) -> int:  # noqa: ANN401 (rows of any width)
    return sum(db.execute(f"DELETE FROM {table} WHERE {key}", row).rowcount for row in values)  # noqa: S608 (own names)
