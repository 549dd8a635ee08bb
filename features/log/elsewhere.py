"""What others committed, as it comes into this log, and what of this one they lack: rows as they stand, as lines.

What a campaign and an offer came to elsewhere stands in a table of its own, by instance, so that sums are never added
twice. Where two instances wrote one row while they were apart: of answers each keeps its own, and the ledger the first;
of preferences and prices the later one stands; of all else, what the ledger has.
"""

import secrets
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any, Final

from features.log import changes
from features.log.book import Contact, Totals
from features.log.erasing import Eraser, Erasure, find_traces, until_gone
from features.log.ledger import Line
from features.log.register import Marks, Preference
from features.log.rows import to_json

SHARED: Final = tuple(source for source in changes.KEYS if source not in {"batches", "parts"})  # those are files' here
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS agreement (instance TEXT NOT NULL, seen INTEGER NOT NULL, written INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS elsewhere (
  instance TEXT NOT NULL, campaign_id TEXT NOT NULL, offer_id TEXT NOT NULL, contacts INTEGER NOT NULL,
  spent INTEGER NOT NULL, PRIMARY KEY (instance, campaign_id, offer_id)
) WITHOUT ROWID;
"""
_LATER: Final = {"preferences": 2, "prices": 3}  # where `set_at` stands

Name = tuple[str, str]  # table and key


@dataclass(frozen=True)
class Heard:
    """Hold what came that counts in memory."""

    contacts: tuple[Contact, ...] = ()
    spending: Totals = field(default_factory=dict)
    preferences: tuple[Preference, ...] = ()
    tombstones: frozenset[str] = frozenset()
    doubled: tuple[str, ...] = ()  # keys that were answered here as well

    @property
    def erases(self) -> bool:
        """Whether somebody was erased."""
        return bool(self.tombstones)


def begin(db: sqlite3.Connection) -> str:
    """Make what it takes to agree, and give this log's name, which it has for good."""
    fresh = changes.follow(db)
    for statement in filter(str.strip, _TABLES.split(";")):
        db.execute(statement)
    if (found := db.execute("SELECT instance FROM agreement").fetchone()) is None:
        if not fresh:  # what was drained before anybody agreed, others have not heard of
            changes.note(db)
        found = (secrets.token_hex(8),)
        db.execute("INSERT INTO agreement VALUES (?, 0, 0)", found)
    return str(found[0])


def place(db: sqlite3.Connection) -> tuple[int, int]:
    """Say up to which line of the ledger this log has read, and up to which change it has written its own."""
    seen, written = db.execute("SELECT seen, written FROM agreement").fetchone()
    return int(seen), int(written)


def move(db: sqlite3.Connection, seen: int, written: int) -> None:
    """Note how far this log is."""
    db.execute("UPDATE agreement SET seen = ?, written = ?", (seen, written))


def lacking(db: sqlite3.Connection, written: int, most: int) -> tuple[int, list[Line]]:
    """Give the first rows that others lack, as they stand, and the number of the last change that these cover."""
    number, keys = changes.pending(db, most, after=written)
    lines: list[Line] = []
    for source in SHARED:
        if named := keys.get(source):
            asked = f"SELECT {changes.KEYS[source]}, * FROM {source} WHERE {changes.KEYS[source]} IN (SELECT value FROM json_each(?))"  # noqa: S608, E501 (own names)
            there = {key: row for key, *row in db.execute(asked, (to_json(named),))}
            lines += [Line(source, key, there.get(key)) for key in named]
    return max(number, written), lines


def lacks(db: sqlite3.Connection, written: int) -> bool:
    """Say whether there are changes after one."""
    return db.execute("SELECT 1 FROM changes WHERE number > ?", (written,)).fetchone() is not None


def take(db: sqlite3.Connection, lines: Sequence[Line], marks: Marks, *, instance: str, written: int) -> Heard:
    """Bring lines into this log, whose own name is given, and say what counts in memory."""
    if not lines:
        return Heard()
    ours = _unwritten(db, written)
    noted = changes.last(db)
    doubled = [line.key for line in lines if _doubled(line, ours, instance)]
    fresh = [line for line in lines if not _stands(db, line, ours, instance)]
    for line in fresh:
        _put(db, line, instance)
    changes.forget_after(db, noted)  # they are no changes of this log's own
    for key in doubled:
        changes.leave_out(db, "answers", key)
    gone = {line.key: line.row[1] for line in fresh if line.source == "tombstones" and line.row}
    _erase_unwritten(db, ours, marks, gone)
    return Heard(
        contacts=tuple(Contact(*line.row) for line in fresh if line.source == "contacts" and line.row),
        spending=dict(_elsewhere(line) for line in fresh if line.source == "spending" and line.instance != instance),
        preferences=tuple(_preference(line) for line in fresh if line.source == "preferences"),
        tombstones=frozenset(gone),
        doubled=tuple(doubled),
    )


def totals_elsewhere(db: sqlite3.Connection) -> Totals:
    """Read what others came to."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'elsewhere'").fetchone():
        return {}
    return {
        (name, campaign, offer): (n, spent) for name, campaign, offer, n, spent in db.execute("SELECT * FROM elsewhere")
    }


def _unwritten(db: sqlite3.Connection, written: int) -> set[Name]:
    """Name the rows that changed here and that others have not heard of."""
    return set(db.execute("SELECT source, key FROM changes WHERE number > ?", (written,)).fetchall())


def _doubled(line: Line, ours: Collection[Name], instance: str) -> bool:
    return line.source == "answers" and line.instance != instance and line[:2] in ours and line.row is not None


def _stands(db: sqlite3.Connection, line: Line, ours: Collection[Name], instance: str) -> bool:
    """Say whether this log's own row is to stay."""
    if line[:2] not in ours:
        return False
    if line.instance == instance or line.source == "answers":
        return True
    if line.source not in _LATER or line.row is None:
        return False
    own = db.execute(f"SELECT set_at FROM {line.source} WHERE {changes.KEYS[line.source]} = ?", (line.key,)).fetchone()  # noqa: S608 (own names)
    return own is not None and own[0] > line.row[_LATER[line.source]]


def _put(db: sqlite3.Connection, line: Line, instance: str) -> None:
    if line.source == "spending" and line.instance != instance:
        if line.row is not None:
            db.execute("INSERT OR REPLACE INTO elsewhere VALUES (?, ?, ?, ?, ?)", (line.instance, *line.row))
    elif line.row is None:
        db.execute(f"DELETE FROM {line.source} WHERE {changes.KEYS[line.source]} = ?", (line.key,))  # noqa: S608 (own names)
    else:
        db.execute(f"INSERT OR REPLACE INTO {line.source} VALUES ({', '.join('?' * len(line.row))})", tuple(line.row))  # noqa: S608


def _elsewhere(line: Line) -> tuple[tuple[str, str, str], tuple[int, int]]:
    campaign_id, offer_id, contacts, spent = line.row or (*line.key.split(changes.APART), 0, 0)
    return (line.instance, str(campaign_id), str(offer_id)), (int(contacts), int(spent))


def _preference(line: Line) -> Preference:
    """Read what a member wants; one that is gone was of somebody erased, for whom the tombstone speaks."""
    return Preference(line.key, personalisation=line.row is None or bool(line.row[1]))


def _erase_unwritten(db: sqlite3.Connection, ours: Collection[Name], marks: Marks, gone: Mapping[str, Any]) -> None:
    """Erase from what nobody else has what is about members whom others have erased meanwhile."""
    if not gone or not ours:
        return
    keys = to_json([key for source, key in ours if source == "decisions"])
    asked = "SELECT DISTINCT member_id FROM decisions WHERE decision_id IN (SELECT value FROM json_each(?))"
    named = {member_id for (member_id,) in db.execute(asked, (keys,))}
    named |= {key for source, key in ours if source == "preferences"}
    for member_id in named:
        if (erased_at := gone.get(marks.of(member_id))) is not None:
            eraser, erasure = Eraser(db, marks, datetime.fromisoformat(erased_at)), Erasure("", (member_id,))
            traces = find_traces(db, erasure.member_ids)
            until_gone(partial(eraser.erase, erasure, traces))
