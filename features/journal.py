"""The journal: purchases and events that came after the last ingest, durable, each counted once.

An entry is one purchase with all its lines, or one event. It stays until the warehouse has it and a snapshot that saw
it is online. The journal's clock never goes back, over restarts and processes: whoever computes vectors takes their
moment from it, and what is kept later is known later. So a vector that lacks an entry is older than one that has it.

One SQLite file with a rollback journal, which several processes may write to: the service's workers, and `features
materialize`. Those that bring entries into vectors do it one at a time, under `alone`.
"""

import fcntl
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self

from features.errors import UnwrittenError
from features.schema import TABLES
from features.stores.packed import microseconds
from features.transaction import delete_whole, transaction

OWN_ID: Final = {"transactions": "transaction_id", "events": "event_id"}  # the tables that are taken live
OCCURRED: Final = "occurred_at"
WAIT_SECONDS: Final = 10
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS entries (
  contract TEXT NOT NULL, entry_id TEXT NOT NULL, member_id TEXT NOT NULL, known_at INTEGER NOT NULL,
  lines TEXT NOT NULL, found INTEGER, PRIMARY KEY (contract, entry_id, member_id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS entries_by_member ON entries (member_id);
CREATE TABLE IF NOT EXISTS clock (one INTEGER PRIMARY KEY CHECK (one = 1), as_of INTEGER, reflected INTEGER);
INSERT OR IGNORE INTO clock VALUES (1, 0, 0);
"""


@dataclass(frozen=True)
class Entry:
    """Hold one purchase with all its lines, or one event."""

    table: str
    entry_id: str
    member_id: str
    lines: str  # the rows as JSON, the same text for the same rows in any order

    def rows(self) -> list[dict[str, Any]]:
        """Give the rows in the contract's columns; times are text."""
        lines: list[dict[str, Any]] = json.loads(self.lines)
        return lines


@dataclass(frozen=True)
class Posted:
    """Say of each entry of one post whether it is new; where one is in conflict, none is kept."""

    fresh: tuple[bool, ...]
    conflicts: tuple[int, ...] = ()


def entries_of(table: str, rows: Sequence[Mapping[str, Any]]) -> tuple[list[Entry], list[int]]:
    """Gather rows into entries, and say for each row which one it is of.

    >>> lines = [{"transaction_id": "t1", "member_id": "m1", "amount": amount} for amount in (250, 99)]
    >>> entries_of("transactions", lines)[1]
    [0, 0]
    """
    gathered: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        text = json.dumps(row, sort_keys=True, ensure_ascii=False, default=_text)
        gathered.setdefault(_key(table, row), []).append(text)
    entries = [Entry(table, *key, f"[{', '.join(sorted(lines))}]") for key, lines in gathered.items()]
    place = {key: number for number, key in enumerate(gathered)}
    return entries, [place[_key(table, row)] for row in rows]


class Journal:
    """Hold the file open; one thread at a time may use it.

    Raises
    ------
    UnwrittenError
        From everything that writes, if the disk does not take it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = TRUNCATE")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA secure_delete = ON")  # what is erased is overwritten, not only let go of
        self._db.executescript(_TABLES)
        self._turn = path.with_name(f"{path.name}.lock").open("w")
        self._version = self._data_version()
        self.reflected = self._reflected()  # the online store has what was known before; stored with the next entries

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
        self._turn.close()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep other processes from bringing entries into vectors meanwhile."""
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def written_by_others(self) -> bool:
        """Say whether another process has written since this was asked last, and learn how far it came."""
        before, self._version = self._version, self._data_version()
        if changed := before != self._version:
            self.reflected = max(self.reflected, self._reflected())
        return changed

    def add(self, posts: Sequence[Sequence[Entry]], now: datetime) -> tuple[list[Posted], datetime]:
        """Keep what is new in one flush of the disk; give the moment at which that, and nothing later, is known."""
        with self._writing() as db:
            as_of = self._tick(now)
            return [_add(db, post, known_at=as_of - 1) for post in posts], _time(as_of)

    def erase(self, member_ids: Iterable[str]) -> int:
        """Delete the entries of members, and say how many there were."""
        command = "DELETE FROM entries WHERE member_id IN (SELECT value FROM json_each(?))"
        return self._delete(command, json.dumps(list(member_ids)))

    def let_go(self, *, before: datetime) -> int:
        """Delete the entries that were known before a time, and say how many there were."""
        return self._delete("DELETE FROM entries WHERE known_at < ?", microseconds(before))

    def count(self, *, before: datetime) -> int:
        """Count the entries that were known before a time."""
        query = "SELECT count(*) FROM entries WHERE known_at < ?"
        return int(self._db.execute(query, (microseconds(before),)).fetchone()[0])

    def members(self, since: datetime | None = None) -> list[str]:
        """Name the members with entries, or with entries that became known at a time or later."""
        query = "SELECT DISTINCT member_id FROM entries WHERE known_at >= ? ORDER BY member_id"
        return [member for (member,) in self._db.execute(query, (microseconds(since or _EPOCH),))]

    def of_members(self, member_ids: Iterable[str], *, as_of: datetime) -> list[tuple[Entry, datetime]]:
        """Read the entries of members that were known before a moment, each with the time from which it was."""
        query = """SELECT contract, entry_id, member_id, lines, known_at FROM entries
            WHERE member_id IN (SELECT value FROM json_each(?)) AND known_at < ?"""
        rows = self._db.execute(query, (json.dumps(list(member_ids)), microseconds(as_of)))
        return [(Entry(*row[:4]), _time(row[4])) for row in rows]

    def settle(self, found: Iterable[tuple[str, str, str]], *, as_of: datetime) -> None:
        """Mark the entries (table, id, member) that the warehouse has; drop those marked before an older snapshot.

        A snapshot newer than every one that was there when an entry was found in the warehouse was computed after that,
        so that it saw the entry.
        """
        with self._writing() as db:
            db.execute("DELETE FROM entries WHERE found < ?", (microseconds(as_of),))
            mark = (
                "UPDATE entries SET found = ? WHERE contract = ? AND entry_id = ? AND member_id = ? AND found IS NULL"
            )
            db.executemany(mark, ((microseconds(as_of), *key) for key in found))

    def keys(self, table: str) -> list[tuple[str, str]]:
        """Give the id and the member of every entry of a table."""
        return self._db.execute("SELECT entry_id, member_id FROM entries WHERE contract = ?", (table,)).fetchall()

    def _reflected(self) -> datetime:
        ((reflected,),) = self._db.execute("SELECT reflected FROM clock").fetchall()
        return _time(reflected)

    def _data_version(self) -> int:
        ((version,),) = self._db.execute("PRAGMA data_version").fetchall()
        return int(version)

    def _tick(self, now: datetime) -> int:
        """Move the clock on by a microsecond at least."""
        query = "UPDATE clock SET as_of = max(as_of, ?) + 1, reflected = max(reflected, ?) RETURNING as_of"
        ((as_of,),) = self._db.execute(query, (microseconds(now), microseconds(self.reflected))).fetchall()
        return int(as_of)

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Keep all that is written, on the disk, or nothing."""
        try:
            with transaction(self._db):
                yield self._db
        except sqlite3.Error as error:
            raise UnwrittenError(f"the journal of live rows did not take an entry ({error}); send it again") from error

    def _delete(self, command: str, value: str | int) -> int:
        try:
            return delete_whole(self._db, command, (value,))
        except sqlite3.Error as error:
            raise UnwrittenError(f"the journal of live rows still holds what is to go ({error}); try again") from error


@contextmanager
def journal_alone(path: Path) -> Iterator[Journal | None]:
    """Open a journal and keep others from bringing its entries into vectors; nothing where there is none."""
    if not path.exists():
        yield None
        return
    with Journal(path) as journal, journal.alone():
        yield journal


def _add(db: sqlite3.Connection, post: Sequence[Entry], *, known_at: int) -> Posted:
    standing = [_standing(db, entry) for entry in post]
    pairs = list(zip(standing, post, strict=True))
    conflicts = tuple(place for place, (lines, entry) in enumerate(pairs) if lines not in {None, entry.lines})
    if not conflicts:
        new = [(one.table, one.entry_id, one.member_id, known_at, one.lines) for lines, one in pairs if lines is None]
        db.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, NULL)", new)
    return Posted(tuple(lines is None for lines in standing), conflicts)


def _standing(db: sqlite3.Connection, entry: Entry) -> str | None:
    """Give what an id stands for; that of an event names one event of anybody, one of a purchase the member's."""
    query, values = "SELECT lines FROM entries WHERE contract = ? AND entry_id = ?", [entry.table, entry.entry_id]
    if not TABLES[entry.table].unique:
        query, values = f"{query} AND member_id = ?", [*values, entry.member_id]
    found = db.execute(query, values).fetchone()
    return None if found is None else str(found[0])


def _key(table: str, row: Mapping[str, Any]) -> tuple[str, str]:
    return row[OWN_ID[table]], row["member_id"]


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def _time(since: int) -> datetime:
    return _EPOCH + timedelta(microseconds=since)
