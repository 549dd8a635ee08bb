"""The erasure of members from the log: rows about them go, and what an experiment counts stays without them.

A decision stays as what was drawn, with which probabilities, on which day and at what cost; an outcome as its kind, its
amount and how many whole days after the decision it came. Each decision is nobody's of its own, so that two of one
member no longer show to be of one. Answers under a key lose what they said of the member.
"""

import json
import re
import secrets
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from features.log.entries import Part
from features.log.register import Marks
from features.log.rows import text, to_json

ERASED: Final = "erased-"  # what ids of nobody begin with

_BLANK: Final = """
UPDATE decisions SET decision_id = ?, member_id = ?, decided_at = ?, fallback_reason = NULL, draw = 0, asked = 'null',
  churn_probability = NULL, value = NULL, uplift = '[]', net_value = '[]', segment = NULL, lifecycle_stage = NULL,
  reasons = '[]', features = x'', scores = x'', facts = '{}', standing = '{}', event_timestamp = NULL, context = ?,
  idempotency_key = NULL
WHERE decision_id = ?
"""


@dataclass(frozen=True)
class Erasure:
    """Name whom to erase, and the contacts of other systems that outcomes may name them by."""

    receipt_id: str
    member_ids: tuple[str, ...]
    contact_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Renewed:
    """Name a part of a batch without the erased, and the ids under which it had their decisions, old to new."""

    part: Part
    decision_ids: dict[str, str]


def nobody(erased: datetime) -> str:
    """Make an id that stands for nobody since a day: what came after it is not known.

    >>> nobody(datetime(2024, 3, 1)).startswith("erased-2024-03-01-")
    True
    """
    return f"{ERASED}{erased:%Y-%m-%d}-{secrets.token_hex(12)}"


def is_erased(row: Mapping[str, Any]) -> bool:
    """Say whether a decision is one of a member who was erased: it counts, and nothing can be learned from it."""
    return str(row["decision_id"]).startswith(ERASED)


def begin(db: sqlite3.Connection, marks: Marks, erasure: Erasure, *, now: datetime) -> None:
    """Set the tombstones, and keep whom to erase until it is done."""
    contact_ids = to_json(erasure.contact_ids)
    for member_id in erasure.member_ids:
        db.execute("INSERT OR IGNORE INTO tombstones VALUES (?, ?)", (marks.of(member_id), day(now)))
        row = (member_id, erasure.receipt_id, contact_ids)
        db.execute("INSERT OR IGNORE INTO erasing VALUES (?, ?, ?)", row)


def erase(db: sqlite3.Connection, marks: Marks, erasure: Erasure, *, now: datetime) -> dict[str, int]:
    """Erase members from the log's own tables, and say how many rows of each that changed or removed."""
    counts: Counter[str] = Counter()
    for member_id in erasure.member_ids:
        rows = db.execute(
            "SELECT decision_id, decided_at, idempotency_key FROM decisions WHERE member_id = ?", (member_id,)
        ).fetchall()
        for decision_id, decided_at, key in rows:
            if key is not None:
                mark = key.removeprefix(ERASED) if key.startswith(ERASED) else marks.of(key)
                counts["answers"] += _release_answer(db, key, mark, member_id)
                # the decisions on others of that request name it by the mark, too
                db.execute("UPDATE decisions SET idempotency_key = ? WHERE idempotency_key = ?", (ERASED + mark, key))
            counts["outcomes"] += make_nobodys(db, marks, decision_id, decided_at, now=now)
        counts["decisions"] += len(rows)
        for table in ("contacts", "preferences"):
            counts[table] += db.execute(f"DELETE FROM {table} WHERE member_id = ?", (member_id,)).rowcount  # noqa: S608 (own names)
    counts["contexts"] += _forget_contexts(db, erasure.member_ids)
    for contact_id in erasure.contact_ids:
        db.execute("INSERT OR IGNORE INTO tombstones VALUES (?, ?)", (marks.of(contact_id), day(now)))
        counts["outcomes"] += db.execute("DELETE FROM outcomes WHERE contact_id = ?", (contact_id,)).rowcount
    return {name: count for name, count in counts.items() if count}


def make_nobodys(db: sqlite3.Connection, marks: Marks, decision_id: str, decided_at: str, *, now: datetime) -> int:
    """Leave of a decision what an experiment counts, and count its outcomes, which follow it."""
    new = nobody(now)
    outcomes = release_outcomes(db, marks, decision_id, new, decided_at, now=now)
    db.execute(_BLANK, (new, nobody(now), day(datetime.fromisoformat(decided_at)), "{}", decision_id))
    return outcomes


def renew_part(db: sqlite3.Connection, marks: Marks, renewed: Renewed, *, now: datetime) -> None:
    """Let the log vouch for a part without the erased; their outcomes follow their decisions."""
    part = renewed.part
    ((decided_at,),) = db.execute("SELECT decided_at FROM batches WHERE batch_id = ?", (part.batch_id,)).fetchall()
    db.execute(
        "UPDATE parts SET path = ?, sha256 = ? WHERE batch_id = ? AND part = ?",
        (part.path, part.sha256, part.batch_id, part.part),
    )
    for old, new in renewed.decision_ids.items():
        # when a batch decided is everybody's: it stays, and what followed keeps its distance
        release_outcomes(db, marks, old, new, decided_at, since=decided_at, now=now)


def end(db: sqlite3.Connection, receipt_id: str, body: Mapping[str, Any], *, now: datetime) -> None:
    """Keep the receipt, and forget whom it is about."""
    db.execute("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?)", (receipt_id, to_json(body), text(now)))
    db.execute("DELETE FROM erasing WHERE receipt_id = ?", (receipt_id,))


def release_outcomes(
    db: sqlite3.Connection,
    marks: Marks,
    decision_id: str,
    new: str,
    decided_at: str,
    *,
    now: datetime,
    since: str | None = None,
) -> int:
    """Give a decision's outcomes to the one that stands for it; those that come later are of nobody.

    Parameters
    ----------
    since : from when their whole days are counted now; by default the day of the decision
    """
    decided = datetime.fromisoformat(decided_at)
    base = datetime.fromisoformat(since or day(decided))
    rows = db.execute("SELECT rowid, occurred_at FROM outcomes WHERE decision_id = ?", (decision_id,)).fetchall()
    for rowid, occurred_at in rows:
        days = (datetime.fromisoformat(occurred_at) - decided) // timedelta(days=1)
        db.execute(
            "UPDATE outcomes SET outcome_id = ?, decision_id = ?, occurred_at = ?, received_at = ? WHERE rowid = ?",
            (nobody(now), new, text(base + timedelta(days=days)), day(now), rowid),
        )
    db.execute("INSERT OR IGNORE INTO tombstones VALUES (?, ?)", (marks.of(decision_id), day(now)))
    return len(rows)


def pending(db: sqlite3.Connection) -> list[Erasure]:
    """Give the erasures that began and did not end."""
    rows = db.execute("SELECT receipt_id, member_id, contact_ids FROM erasing ORDER BY receipt_id").fetchall()
    members: dict[str, list[str]] = {}
    contacts: dict[str, tuple[str, ...]] = {}
    for receipt_id, member_id, contact_ids in rows:
        members.setdefault(receipt_id, []).append(member_id)
        contacts[receipt_id] = tuple(json.loads(contact_ids))
    return [Erasure(receipt_id, tuple(ids), contacts[receipt_id]) for receipt_id, ids in members.items()]


def day(time: datetime) -> str:
    """Write the day of a time, as a time that the log can read."""
    return text(time.replace(hour=0, minute=0, second=0, microsecond=0))


def without(body: bytes, member_ids: Iterable[str]) -> bytes:
    """Take what an answer said of members out of it.

    >>> without(b'{"decisions":[{"member_id":"m1"},{"member_id":"m2"}]}', ["m1"])
    b'{"decisions":[{"member_id":"m2"}]}'
    """
    answer = json.loads(body)
    answer["decisions"] = [one for one in answer["decisions"] if one["member_id"] not in set(member_ids)]
    return json.dumps(answer, separators=(",", ":"), ensure_ascii=False).encode()


def _forget_contexts(db: sqlite3.Connection, member_ids: Collection[str]) -> int:
    """Drop what callers wanted kept with decisions on others where it names a member: the log is read once for all."""
    if not member_ids:
        return 0
    told = re.compile("|".join(re.escape(to_json(member_id)[1:-1]) for member_id in member_ids))
    db.create_function("names_them", 1, lambda context: told.search(context) is not None, deterministic=True)
    return db.execute("UPDATE decisions SET context = '{}' WHERE context <> '{}' AND names_them(context)").rowcount


def _release_answer(db: sqlite3.Connection, key: str, mark: str, member_id: str) -> int:
    """Keep an answer under the mark of its key: it may name the member, as may the request whose hash stood there."""
    found = db.execute("SELECT body FROM answers WHERE idempotency_key IN (?, ?)", (key, mark)).fetchone()
    if found is None:
        return 0
    db.execute(
        "UPDATE answers SET idempotency_key = ?, body_sha256 = '', body = ? WHERE idempotency_key IN (?, ?)",
        (mark, without(found[0], [member_id]), key, mark),
    )
    return 1
