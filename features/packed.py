"""The online format: per member and view one packed vector, its words, when it was true and when it became known.

Numbers are float64, little-endian, in the order of the row's schema, NaN where missing; words are a JSON list. A row
names its schema, and a reader takes features out by name, so that after a change of features a row is refused, never
misread.

One SQLite table in WAL mode: readers open it read-only, never wait, and see a write whole or not at all. SQLite before
3.51.3 can corrupt a write-ahead log that two connections write to, so a lock file lets in one writer at a time.
"""

import contextlib
import fcntl
import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import repeat
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.errors import ContractError, CorruptError, NotFoundError
from features.files import fingerprint

Words = tuple[str | None, ...]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_ASKED: Final = 10_000  # ids in one statement; SQLite takes 32,766
_PAGE: Final = 8192  # a quarter of it is what a row may fill before it spills: some 240 numbers
_TABLES: Final = """
CREATE TABLE IF NOT EXISTS schemas (code TEXT PRIMARY KEY, numbers TEXT NOT NULL, words TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS vectors (
  view TEXT NOT NULL, member_id TEXT NOT NULL, event_timestamp INTEGER NOT NULL, created INTEGER NOT NULL,
  schema TEXT NOT NULL, numbers BLOB NOT NULL, words TEXT NOT NULL, PRIMARY KEY (view, member_id)
) WITHOUT ROWID;
"""
# what is as new as what stands replaces it: a snapshot that is computed again counts
_WRITE: Final = """
INSERT INTO vectors VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (view, member_id) DO UPDATE SET
  event_timestamp = excluded.event_timestamp, created = excluded.created, schema = excluded.schema,
  numbers = excluded.numbers, words = excluded.words
WHERE (excluded.event_timestamp, excluded.created) >= (vectors.event_timestamp, vectors.created)
"""


@dataclass(frozen=True)
class Schema:
    """Name the features of a row, in the order in which they are packed."""

    numbers: tuple[str, ...]
    words: tuple[str, ...]

    @cached_property
    def code(self) -> str:
        """What rows of this schema carry."""
        return fingerprint(self.numbers, self.words)

    def places(self, numbers: Sequence[str], words: Sequence[str]) -> tuple[list[int], list[int]]:
        """Find features by their names.

        Raises
        ------
        ContractError
            If one is not among them.
        """
        try:
            return [self._number[name] for name in numbers], [self.words.index(name) for name in words]
        except (KeyError, ValueError) as error:
            absent = [*(n for n in numbers if n not in self.numbers), *(w for w in words if w not in self.words)]
            raise ContractError(
                f"the online store was filled with other features, without {', '.join(absent)}; "
                f"`holdfast features materialize` fills it anew"
            ) from error

    @cached_property
    def _number(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.numbers)}


@dataclass(frozen=True)
class Batch:
    """Hold rows to write; times are microseconds since 1970 in UTC."""

    member_ids: Sequence[str]
    numbers: NDArray[np.float64]  # (n_members, n_numbers), in the order of the schema
    words: Sequence[Words]  # a tuple per member, in the order of the schema
    event_timestamp: Sequence[int]
    created: Sequence[int]


@dataclass(frozen=True)
class Vectors:
    """Hold rows as read, one per id asked for and in that order, features in the order asked."""

    numbers: NDArray[np.float64]  # (n_members, n_numbers), NaN where missing
    words: tuple[Words, ...]
    known: NDArray[np.bool_]  # (n_members,)
    event_timestamp: tuple[datetime | None, ...]  # UTC


class PackedTable:
    """Write and read packed vectors; one object may be used by many threads."""

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
        """Store rows in one transaction; a row older than the one that stands is left out."""
        with self._writing() as db:
            names = json.dumps(schema.numbers), json.dumps(schema.words)
            db.execute("INSERT OR IGNORE INTO schemas VALUES (?, ?, ?)", (schema.code, *names))
            for batch in batches:
                db.executemany(_WRITE, _rows(view, schema, batch))

    def forget(self, view: str) -> None:
        """Delete every row of a view."""
        with self._writing() as db:
            db.execute("DELETE FROM vectors WHERE view = ?", (view,))

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
            rows, schemas = self._fetch(view, member_ids)
        place = {row[0]: number for number, row in enumerate(rows)}
        order = np.array([place.get(member_id, -1) for member_id in member_ids], dtype=np.intp)
        known = order >= 0
        X, said = _decode(rows, schemas, numbers=numbers, words=words)
        times = {row[1]: _EPOCH + timedelta(microseconds=row[1]) for row in rows}
        values = np.full((len(member_ids), len(numbers)), np.nan)
        values[known] = X[order[known]]
        nothing: Words = (None,) * len(words)
        return Vectors(
            numbers=values,
            words=tuple(said[at] if at >= 0 else nothing for at in order.tolist()),
            known=known,
            event_timestamp=tuple(times[rows[at][1]] if at >= 0 else None for at in order.tolist()),
        )

    def close(self) -> None:
        """Let go of the file."""
        with self._reading:
            if self._reader:
                self._reader.close()
            self._reader = None

    def _fetch(self, view: str, member_ids: Sequence[str]) -> tuple[list[Any], dict[str, Schema]]:
        if self._reader is None:
            self._reader = _open_to_read(self.path)
        rows: list[Any] = []
        self._reader.execute("BEGIN")
        try:
            for start in range(0, len(member_ids), _ASKED):
                asked = member_ids[start : start + _ASKED]
                marks = ",".join("?" * len(asked))
                query = f"SELECT member_id, event_timestamp, schema, numbers, words FROM vectors WHERE view = ? AND member_id IN ({marks})"  # noqa: E501, S608 (marks only)
                rows += self._reader.execute(query, (view, *asked)).fetchall()
            codes = {row[2] for row in rows}
            if not codes <= self._schemas.keys():
                found = self._reader.execute("SELECT code, numbers, words FROM schemas").fetchall()
                self._schemas = {code: Schema(tuple(json.loads(n)), tuple(json.loads(w))) for code, n, w in found}
        finally:
            self._reader.execute("COMMIT")
        return rows, {code: self._schemas[code] for code in codes}

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Wait to be the only writer, and keep all that is written or nothing."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.with_name(f"{self.path.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.closing(sqlite3.connect(self.path, isolation_level=None)) as db:
                db.execute(f"PRAGMA page_size = {_PAGE}")
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = NORMAL")  # what a power cut takes, the snapshots still have
                db.executescript(_TABLES)
                db.execute("BEGIN IMMEDIATE")
                try:
                    yield db
                except BaseException:
                    db.execute("ROLLBACK")
                    raise
                db.execute("COMMIT")


def microseconds(time: datetime) -> int:
    """Count microseconds since 1970; a time without a zone is UTC, as in Feast's contract.

    >>> microseconds(datetime(1970, 1, 1, 0, 0, 1, 5))
    1000005
    """
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


def _rows(view: str, schema: Schema, batch: Batch) -> Iterator[tuple[Any, ...]]:
    packed, width = np.ascontiguousarray(batch.numbers, dtype="<f8").tobytes(), 8 * len(schema.numbers)
    vectors = [packed[start : start + width] for start in range(0, len(packed), width)]
    texts = {words: json.dumps(words, ensure_ascii=False) for words in set(batch.words)}  # few: they are categories
    return zip(
        repeat(view, len(vectors)),
        batch.member_ids,
        batch.event_timestamp,
        batch.created,
        repeat(schema.code, len(vectors)),
        vectors,
        [texts[words] for words in batch.words],
        strict=True,
    )


def _decode(
    rows: list[Any], schemas: dict[str, Schema], *, numbers: Sequence[str], words: Sequence[str]
) -> tuple[NDArray[np.float64], list[Words]]:
    """Unpack rows; those of one schema, mostly all, in one go."""
    X = np.empty((len(rows), len(numbers)))
    said: list[Words] = [()] * len(rows)
    for code, schema in schemas.items():
        columns, places = schema.places(numbers, words)
        chosen = [at for at, row in enumerate(rows) if row[2] == code]
        packed = b"".join([rows[at][3] for at in chosen])
        if len(packed) != 8 * len(schema.numbers) * len(chosen):
            raise CorruptError("a vector in the online store has another length than its schema; delete the file")
        X[chosen] = np.frombuffer(packed, dtype="<f8").reshape(len(chosen), -1)[:, columns]
        spoken = {text: json.loads(text) for text in {rows[at][4] for at in chosen}}
        picked = {text: tuple(all_words[place] for place in places) for text, all_words in spoken.items()}
        for at in chosen:
            said[at] = picked[rows[at][4]]
    return X, said


def _open_to_read(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise NotFoundError(f"there is no online store at {path}; `holdfast features materialize` fills one")
    address = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
