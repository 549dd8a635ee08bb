"""The erasure of members from the log: rows about them go, and what an experiment counts stays without them.

A decision stays as what was drawn, with which probabilities, on which day and at what cost; an outcome as its kind, its
amount and how many whole days after the decision it came. Each decision is nobody's of its own, so that two of one
member no longer show to be of one. Answers under a key lose what they said of the member.

Whoever writes the log does no more at a time than decisions can wait for: where else members show is found by a reader,
and their own decisions go some at a time. SQLite looks by itself: each row that it hands to Python costs a turn of the
interpreter, which a busy service gives up only after milliseconds.
"""

import json
import secrets
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from features.log.entries import Part
from features.log.register import Marks
from features.log.rows import text, to_json

ERASED: Final = "erased-"  # what ids of nobody begin with
PIECE: Final = 50  # decisions on erased members that one entry makes nobody's

_BLANK: Final = """
UPDATE decisions SET decision_id = ?, member_id = ?, decided_at = ?, fallback_reason = NULL, draw = 0, asked = 'null',
  churn_probability = NULL, value = NULL, uplift = '[]', net_value = '[]', segment = NULL, lifecycle_stage = NULL,
  reasons = '[]', features = x'', scores = x'', facts = '{}', standing = '{}', event_timestamp = NULL, context = ?,
  idempotency_key = NULL
WHERE decision_id = ?
"""
_BEGIN: Final = """
INSERT INTO erasing VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET contact_ids = excluded.contact_ids WHERE excluded.contact_ids <> '[]'
"""
_THEIRS: Final = """
SELECT decision_id, member_id, decided_at, idempotency_key FROM decisions
WHERE member_id IN (SELECT value FROM json_each(?)) LIMIT ?
"""
_MARK_KEY: Final = """
UPDATE decisions SET idempotency_key = ?
WHERE idempotency_key = ? AND decision_id IN (SELECT value FROM json_each(?))
"""
_FORGET_CONTEXTS: Final = """
UPDATE decisions SET context = '{}' WHERE context <> '{}' AND decision_id IN (SELECT value FROM json_each(?))
"""


@dataclass(frozen=True)
class Erasure:
    """Name whom to erase, and the contacts of other systems that outcomes may name them by."""

    receipt_id: str
    member_ids: tuple[str, ...]
    contact_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Traces:
    """Name decisions on others in which members show: by what callers wanted kept, or by the key they share."""

    contexts: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()


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


def find_traces(db: sqlite3.Connection, member_ids: Sequence[str]) -> Traces:
    """Look through the whole log for decisions on others in which members show; nothing is changed."""
    named = to_json([to_json(member_id)[1:-1] for member_id in member_ids])
    told = "context <> '{}' AND EXISTS (SELECT 1 FROM json_each(?) WHERE instr(context, value))"
    theirs = "SELECT idempotency_key FROM decisions WHERE member_id IN (SELECT value FROM json_each(?))"
    return Traces(
        contexts=_ids_where(db, told, named), keys=_ids_where(db, f"idempotency_key IN ({theirs})", to_json(member_ids))
    )


def _ids_where(db: sqlite3.Connection, condition: str, value: str) -> tuple[str, ...]:
    asked = f"SELECT json_group_array(decision_id) FROM decisions WHERE {condition}"  # noqa: S608 (own words)
    return tuple(json.loads(db.execute(asked, (value,)).fetchone()[0]))


def until_gone(erase: Callable[[], Mapping[str, int]]) -> dict[str, int]:
    """Repeat `Eraser.erase`, however it is reached, until no decision is left; give what all of them counted."""
    counts: Counter[str] = Counter()
    gone = PIECE
    while gone == PIECE:
        found = erase()
        counts.update(found)
        gone = found.get("decisions", 0)
    return dict(counts)


class Eraser:
    """Erase from the log's own tables, within a transaction of its writer."""

    def __init__(self, db: sqlite3.Connection, marks: Marks, now: datetime) -> None:
        self.buried: set[str] = set()  # marks of the tombstones that were set
        self._db, self._marks, self._now = db, marks, now

    def begin(self, erasure: Erasure) -> None:
        """Set the tombstones, and keep whom to erase until it is done; again, to name contacts once they are known."""
        contact_ids = to_json(erasure.contact_ids)
        for member_id in erasure.member_ids:
            self._bury(member_id)
            self._db.execute(_BEGIN, (member_id, erasure.receipt_id, contact_ids))

    def erase(self, erasure: Erasure, traces: Traces) -> dict[str, int]:
        """Erase members, and say how many rows of each table that changed or removed.

        Where that is `PIECE` decisions there are more of them, and all else is left for when there are not.
        """
        counts: Counter[str] = Counter()
        db, named = self._db, to_json(erasure.member_ids)
        rows = db.execute(_THEIRS, (named, PIECE)).fetchall()
        for decision_id, member_id, decided_at, key in rows:
            if key is not None:
                counts["answers"] += self._release_key(key, member_id, traces)
            counts["outcomes"] += self.make_nobodys(decision_id, decided_at)
        counts["decisions"] += len(rows)
        if len(rows) < PIECE:
            for table in ("contacts", "preferences"):
                gone = f"DELETE FROM {table} WHERE member_id IN (SELECT value FROM json_each(?))"  # noqa: S608 (own names)
                counts[table] += db.execute(gone, (named,)).rowcount
            counts["contexts"] += db.execute(_FORGET_CONTEXTS, (to_json(traces.contexts),)).rowcount
            for contact_id in erasure.contact_ids:
                self._bury(contact_id)
                counts["outcomes"] += db.execute("DELETE FROM outcomes WHERE contact_id = ?", (contact_id,)).rowcount
        return {name: count for name, count in counts.items() if count}

    def make_nobodys(self, decision_id: str, decided_at: str) -> int:
        """Leave of a decision what an experiment counts, and count its outcomes, which follow it."""
        new = nobody(self._now)
        outcomes = self._release_outcomes(decision_id, new, decided_at)
        row = (new, nobody(self._now), day(datetime.fromisoformat(decided_at)), "{}", decision_id)
        self._db.execute(_BLANK, row)
        return outcomes

    def renew_part(self, renewed: Renewed) -> None:
        """Let the log vouch for a part without the erased; their outcomes follow their decisions."""
        part = renewed.part
        asked = "SELECT decided_at FROM batches WHERE batch_id = ?"
        ((decided_at,),) = self._db.execute(asked, (part.batch_id,)).fetchall()
        self._db.execute(
            "UPDATE parts SET path = ?, sha256 = ? WHERE batch_id = ? AND part = ?",
            (part.path, part.sha256, part.batch_id, part.part),
        )
        for old, new in renewed.decision_ids.items():
            # when a batch decided is everybody's: it stays, and what followed keeps its distance
            self._release_outcomes(old, new, decided_at, since=decided_at)

    def end(self, receipt_id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Keep the receipt with what others removed who went on with the same, forget whom it is about, and give it."""
        found = kept_receipt(self._db, receipt_id)
        kept = _both(found, body) if found else dict(body)
        row = (receipt_id, to_json(kept), text(self._now))
        self._db.execute("INSERT OR REPLACE INTO receipts VALUES (?, ?, ?)", row)
        self._db.execute("DELETE FROM erasing WHERE receipt_id = ?", (receipt_id,))
        return kept

    def _bury(self, name: str) -> None:
        mark = self._marks.of(name)
        self._db.execute("INSERT OR IGNORE INTO tombstones VALUES (?, ?)", (mark, day(self._now)))
        self.buried.add(mark)

    def _release_outcomes(self, decision_id: str, new: str, decided_at: str, *, since: str | None = None) -> int:
        """Give a decision's outcomes to the one that stands for it; those that come later are of nobody.

        Parameters
        ----------
        since : from when their whole days are counted now; by default the day of the decision
        """
        decided = datetime.fromisoformat(decided_at)
        base = datetime.fromisoformat(since or day(decided))
        asked = "SELECT rowid, occurred_at FROM outcomes WHERE decision_id = ?"
        rows = self._db.execute(asked, (decision_id,)).fetchall()
        for rowid, occurred_at in rows:
            days = (datetime.fromisoformat(occurred_at) - decided) // timedelta(days=1)
            self._db.execute(
                "UPDATE outcomes SET outcome_id = ?, decision_id = ?, occurred_at = ?, received_at = ? WHERE rowid = ?",
                (nobody(self._now), new, text(base + timedelta(days=days)), day(self._now), rowid),
            )
        self._bury(decision_id)
        return len(rows)

    def _release_key(self, key: str, member_id: str, traces: Traces) -> int:
        """Keep an answer, and decisions on others, under the mark of a key: it may name the member, as may the request.

        What the answer says of the member goes, and the hash of the request that stood there.
        """
        mark = key.removeprefix(ERASED) if key.startswith(ERASED) else self._marks.of(key)
        self._db.execute(_MARK_KEY, (ERASED + mark, key, to_json(traces.keys)))
        asked = "SELECT body FROM answers WHERE idempotency_key IN (?, ?)"
        found = self._db.execute(asked, (key, mark)).fetchone()
        if found is None:
            return 0
        self._db.execute(
            "UPDATE answers SET idempotency_key = ?, body_sha256 = '', body = ? WHERE idempotency_key IN (?, ?)",
            (mark, without(found[0], [member_id]), key, mark),
        )
        return 1


def _both(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Add up what two who went on with the same erasure removed."""
    members = dict.fromkeys([*one["members"], *other["members"]])
    removed = Counter(one["removed"]) + Counter(other["removed"])
    return {**other, "members": [*members], "removed": dict(sorted(removed.items()))}


def kept_receipt(db: sqlite3.Connection, receipt_id: str) -> dict[str, Any] | None:
    """Give a receipt as it is kept."""
    found = db.execute("SELECT body FROM receipts WHERE receipt_id = ?", (receipt_id,)).fetchone()
    return dict(json.loads(found[0])) if found else None


def pending(db: sqlite3.Connection) -> list[Erasure]:
    """Give the erasures that began and did not end."""
    rows = db.execute("SELECT receipt_id, member_id, contact_ids FROM erasing ORDER BY receipt_id").fetchall()
    members: dict[str, list[str]] = {}
    contacts: dict[str, set[str]] = {}
    for receipt_id, member_id, contact_ids in rows:
        members.setdefault(receipt_id, []).append(member_id)
        contacts.setdefault(receipt_id, set()).update(json.loads(contact_ids))
    return [Erasure(receipt_id, tuple(ids), tuple(sorted(contacts[receipt_id]))) for receipt_id, ids in members.items()]


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
