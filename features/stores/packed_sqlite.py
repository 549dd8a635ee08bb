"""Packed vectors on one machine: a SQLite table in WAL mode.

Readers open it read-only, never wait, and see a write whole or not at all. SQLite before 3.51.3 can corrupt a
write-ahead log that two connections write to, so a lock file lets in one writer at a time.
"""

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.errors import NotFoundError, UnwrittenError
from features.files import changing
from features.gaps import Gaps
from features.stores.packed import Batch, Row, Schema, Vectors, text, vectors
from features.transaction import transaction

_WAIT_SECONDS: Final = 5.0
_TRIES: Final = 10  # of as many seconds each, to empty the write-ahead log
_ASKED: Final = 10_000  # ids in one statement; SQLite takes 32,766
_PART: Final = 1_000  # members that are named at once
_PAGE: Final = 16_384  # the larger, the faster a snapshot is written; a quarter is what a row may fill before it spills
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS schemas (code TEXT PRIMARY KEY, numbers TEXT NOT NULL, words TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS vectors (
  view TEXT NOT NULL, member_id TEXT NOT NULL, event_timestamp INTEGER NOT NULL, created INTEGER NOT NULL,
  schema TEXT NOT NULL, numbers BLOB NOT NULL, words TEXT NOT NULL, PRIMARY KEY (view, member_id)
) WITHOUT ROWID;
"""
_WRITE: Final = """
INSERT INTO vectors VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (view, member_id) DO UPDATE SET
  event_timestamp = excluded.event_timestamp, created = excluded.created, schema = excluded.schema,
  numbers = excluded.numbers, words = excluded.words
WHERE (excluded.event_timestamp, excluded.created) >= (vectors.event_timestamp, vectors.created)
"""


class SqliteTable:
    """Keep packed vectors in a file; a write is one transaction, a read sees one state of the table."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reading = threading.Lock()
        self._reader: sqlite3.Connection | None = None
        self._schemas: dict[str, Schema] = {}

    def create(self) -> None:
        """Make the table where there is none."""
        with self._writing():
            pass

    def write(self, view: str, schema: Schema, batches: Iterable[Batch]) -> None:
        """Store rows, all or none; one older than the one that stands is left out."""
        with self._writing() as db:
            names = json.dumps(schema.numbers), json.dumps(schema.words)
            db.execute("INSERT OR IGNORE INTO schemas VALUES (?, ?, ?)", (schema.code, *names))
            for batch in batches:
                db.executemany(_WRITE, _rows(view, schema, batch))

    def fill(self, view: str, schema: Schema, batches: Iterable[Batch]) -> None:
        """Store rows of all members: a write is one transaction as it is."""
        self.write(view, schema, batches)

    def forget(self, view: str) -> None:
        """Delete every row of a view."""
        with self._writing() as db:
            db.execute("DELETE FROM vectors WHERE view = ?", (view,))

    def erase(self, view: str, member_ids: Sequence[str]) -> int:
        """Delete the rows of members, and say how many there were; no byte of them stays in the file."""
        with self._writing() as db:
            query = "DELETE FROM vectors WHERE view = ? AND member_id IN (SELECT value FROM json_each(?))"
            found = db.execute(query, (view, json.dumps(list(member_ids)))).rowcount
        self._wipe()
        return found

    def read(self, view: str, member_ids: Sequence[str], *, numbers: Sequence[str], words: Sequence[str]) -> Vectors:
        """Read features of members, all of one state of the table.

        Raises
        ------
        ContractError
            If a row was written without one of the features.
        NotFoundError
            If there is no table yet.
        """
        with self._reading:
            rows = self._fetch(view, member_ids)
        return vectors(rows, self._schemas, member_ids, numbers=numbers, words=words)

    def members(self, view: str) -> Iterator[list[str]]:
        """Name who has a row, in order, some at a time; nobody where there is no table."""
        last, query = "", "SELECT member_id FROM vectors WHERE view = ? AND member_id > ? ORDER BY member_id LIMIT ?"
        if not self.path.exists():
            return
        with contextlib.closing(_open_to_read(self.path)) as db:
            while part := [name for (name,) in db.execute(query, (view, last, _PART))]:
                yield part
                last = part[-1]

    def rows(self, view: str, member_ids: Sequence[str]) -> list[tuple[Schema, Row]]:
        """Give the rows of members as they are kept, of those that have one."""
        if not self.path.exists():
            return []
        with self._reading:
            return [(self._schemas[row.schema], row) for row in self._fetch(view, member_ids)]

    def close(self) -> None:
        """Let go of the file."""
        with self._reading:
            if self._reader:
                self._reader.close()
            self._reader = None

    def _wipe(self) -> None:
        """Empty the write-ahead log, where rows still stand, as soon as nobody reads them; and the gaps of pages."""
        with self._alone() as db:
            for _ in range(_TRIES):
                if not db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
                    with Gaps(self.path) as gaps:
                        gaps.overwrite()
                    return
        raise UnwrittenError(
            f"{self.path} is being read all the time; what was erased goes from the disk the next time"
        )

    def _fetch(self, view: str, member_ids: Sequence[str]) -> list[Row]:
        if self._reader is None:
            self._reader = _open_to_read(self.path)
        rows: list[Row] = []
        self._reader.execute("BEGIN")
        try:
            for start in range(0, len(member_ids), _ASKED):
                asked = member_ids[start : start + _ASKED]
                marks = ",".join("?" * len(asked))
                query = f"SELECT member_id, event_timestamp, schema, numbers, words, created FROM vectors WHERE view = ? AND member_id IN ({marks})"  # noqa: E501, S608 (marks only)
                rows += map(Row._make, self._reader.execute(query, (view, *asked)))
            if not {row.schema for row in rows} <= self._schemas.keys():
                found = self._reader.execute("SELECT code, numbers, words FROM schemas").fetchall()
                self._schemas = {code: Schema(tuple(json.loads(n)), tuple(json.loads(w))) for code, n, w in found}
        finally:
            self._reader.execute("COMMIT")
        return rows

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Wait to be the only writer, and keep all that is written or nothing."""
        with self._alone() as db, transaction(db):
            yield db

    @contextlib.contextmanager
    def _alone(self) -> Iterator[sqlite3.Connection]:
        opened = partial(sqlite3.connect, self.path, isolation_level=None, timeout=_WAIT_SECONDS)
        with changing(self.path), contextlib.closing(opened()) as db:
            db.execute(f"PRAGMA page_size = {_PAGE}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")  # what a power cut takes, the snapshots still have
            db.execute("PRAGMA secure_delete = ON")  # what is erased or replaced is overwritten
            db.executescript(_TABLES)
            yield db


def _rows(view: str, schema: Schema, batch: Batch) -> Iterator[tuple[Any, ...]]:
    packed, width = np.ascontiguousarray(batch.numbers, dtype="<f8").tobytes(), schema.width
    size = len(batch.member_ids)
    return zip(
        repeat(view, size),
        batch.member_ids,
        batch.event_timestamp,
        batch.created,
        repeat(schema.code, size),
        [packed[width * number : width * (number + 1)] for number in range(size)],
        map(text, batch.words),
        strict=True,
    )


def _open_to_read(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise NotFoundError(f"there is no online store at {path}; `holdfast features materialize` fills one")
    address = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
