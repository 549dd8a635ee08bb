"""The decision log: what was decided for whom, why, with which propensity, and what followed.

A decision is durable before it is answered. One thread writes; what waits while it flushes the disk shares the next
transaction (group commit). SQLite before 3.51.3 can corrupt a write-ahead log that two connections write to, so a lock
file keeps a second writer out; readers open the file read-only and never wait for the writer.
"""

import contextlib
import fcntl
import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, Literal, Self

import numpy as np

from features.errors import ConflictError, ContractError, CorruptError, HoldfastError, NotFoundError, UnwrittenError

FORMAT: Final = 1
GROUP: Final = 256  # entries that share one flush of the disk at most

Decided = Literal["model", "fallback", "opt_out", "hold_out"]


@dataclass(frozen=True)
class Decision:
    """Hold one decision and all it takes to replay it; money in minor units, times in UTC.

    `eligible`, `uplift` and `net_value` have one entry per offer, `probabilities` one per entry of `treatments`, where
    `control` stands first. Who could not be scored has no `churn_probability`, `value`, `uplift` or `net_value`.
    """

    decision_id: str
    member_id: str
    campaign_id: str | None
    decided_at: datetime
    release_id: str
    outcome: Decided
    fallback_reason: str | None
    treatment: str
    propensity: float
    draw: float
    treatments: tuple[str, ...]
    probabilities: tuple[float, ...]
    eligible: tuple[bool, ...]
    churn_probability: float | None
    value: int | None
    uplift: tuple[int, ...]
    net_value: tuple[int, ...]
    segment: str | None
    lifecycle_stage: str | None
    reasons: tuple[dict[str, Any], ...]
    features: bytes  # float32, little-endian, in the release's order, NaN where missing
    event_timestamp: datetime | None
    context: dict[str, Any]
    idempotency_key: str | None


@dataclass(frozen=True)
class Answer:
    """Hold what a request was answered, so that its repetition gets the same bytes."""

    idempotency_key: str
    body_sha256: str
    status: int
    body: bytes


@dataclass(frozen=True)
class Outcome:
    """Hold what followed a decision or a contact; `amount` in minor units."""

    outcome_id: str
    decision_id: str | None
    contact_id: str | None
    kind: str
    occurred_at: datetime
    amount: int | None


_SCHEMA: Final = """
CREATE TABLE decisions (
  decision_id TEXT PRIMARY KEY, member_id TEXT NOT NULL, campaign_id TEXT, decided_at TEXT NOT NULL,
  release_id TEXT NOT NULL, outcome TEXT NOT NULL, fallback_reason TEXT, treatment TEXT NOT NULL,
  propensity REAL NOT NULL, draw REAL NOT NULL, treatments TEXT NOT NULL, probabilities TEXT NOT NULL,
  eligible TEXT NOT NULL, churn_probability REAL, value INTEGER, uplift TEXT NOT NULL, net_value TEXT NOT NULL,
  segment TEXT, lifecycle_stage TEXT, reasons TEXT NOT NULL, features BLOB NOT NULL, event_timestamp TEXT,
  context TEXT NOT NULL, idempotency_key TEXT
);
CREATE INDEX decisions_by_member ON decisions (member_id, decided_at);
CREATE INDEX decisions_by_time ON decisions (decided_at);
CREATE TABLE answers (
  idempotency_key TEXT PRIMARY KEY, body_sha256 TEXT NOT NULL, status INTEGER NOT NULL, body BLOB NOT NULL,
  created_at TEXT NOT NULL
);
CREATE TABLE outcomes (
  outcome_id TEXT PRIMARY KEY, decision_id TEXT, contact_id TEXT, kind TEXT NOT NULL, occurred_at TEXT NOT NULL,
  amount INTEGER, received_at TEXT NOT NULL
);
CREATE INDEX outcomes_by_decision ON outcomes (decision_id);
CREATE INDEX outcomes_by_time ON outcomes (occurred_at);
"""
_JSON: Final = frozenset({"treatments", "probabilities", "eligible", "uplift", "net_value", "reasons", "context"})
_TIMES: Final = frozenset({"decided_at", "event_timestamp", "occurred_at", "received_at", "created_at"})
_DECISION: Final = tuple(field.name for field in fields(Decision))
_ANSWER: Final = tuple(field.name for field in fields(Answer))
_OUTCOME: Final = tuple(field.name for field in fields(Outcome))

_Write = Callable[[sqlite3.Connection], Any]
_Job = tuple[_Write, "Future[Any]"]


class DecisionLog:
    """Write decisions, answers and outcomes; a future is done once its entry is on the disk.

    From asyncio, await `asyncio.wrap_future(log.append(...))`; elsewhere, call `.result()`.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock_file = path.with_name(f"{path.name}.lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._db = _open_to_write(path)
            self._reader = _open_to_read(path)
        except BlockingIOError as error:
            self._lock_file.close()
            raise ContractError(f"{path} has a writer already; stop that `holdfast serve` first") from error
        except HoldfastError:
            self._lock_file.close()
            raise
        self._reading = threading.Lock()
        self._entering = threading.Lock()
        self._closed = False
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="decision-log", daemon=True)
        self._writer.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def backlog(self) -> int:
        """Entries that wait for the disk."""
        return self._jobs.qsize()

    def append(
        self, decisions: Sequence[Decision], *, now: datetime, answer: Answer | None = None
    ) -> "Future[Answer | None]":
        """Store decisions and the answer they were given in one transaction.

        The future gives the answer that stands under the key. If one stood already, nothing is stored and that one
        comes back: of two racing requests with one key, one decides and both answer the same.
        """
        rows = [_encode(_DECISION, decision) for decision in decisions]

        def write(db: sqlite3.Connection) -> Answer | None:
            if answer and (standing := _answer(db, answer.idempotency_key)):
                return standing
            db.executemany(_insert("decisions", _DECISION), rows)
            if answer:
                db.execute(_insert("answers", (*_ANSWER, "created_at")), (*_encode(_ANSWER, answer), _text(now)))
            return answer

        return self._submit(write)

    def record(self, outcome: Outcome, *, now: datetime) -> "Future[bool]":
        """Store an outcome, known decision or not; the future is True if it is new and False if it came before.

        Raises
        ------
        ConflictError
            From the future, if the id came before with other content.
        """
        row = _encode(_OUTCOME, outcome)

        def write(db: sqlite3.Connection) -> bool:
            known = db.execute(_select("outcomes", _OUTCOME, where="outcome_id = ?"), row[:1]).fetchone()
            if known is None:
                db.execute(_insert("outcomes", (*_OUTCOME, "received_at")), (*row, _text(now)))
            elif known != row:
                raise ConflictError("this outcome_id stands for another outcome; give each outcome an id of its own")
            return known is None

        return self._submit(write)

    def answer(self, idempotency_key: str) -> Answer | None:
        """Look up what was answered under a key."""
        with self._reading:
            return _answer(self._reader, idempotency_key)

    def decision(self, decision_id: str) -> dict[str, Any] | None:
        """Look up one decision."""
        with self._reading:
            query = _select("decisions", _DECISION, where="decision_id = ?")
            row = self._reader.execute(query, (decision_id,)).fetchone()
        return row and _decode(_DECISION, row)

    def close(self) -> None:
        """Write what waits, then let go of the file."""
        with self._entering:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._writer.join()
        self._reader.close()
        self._db.close()
        self._lock_file.close()

    def _submit(self, write: _Write) -> "Future[Any]":
        stored: Future[Any] = Future()
        with self._entering:
            if self._closed:
                raise UnwrittenError("the decision log is closed; nothing was stored")
            self._jobs.put((write, stored))
        return stored

    def _write(self) -> None:
        running = True
        while running:
            group = [self._jobs.get()]
            with contextlib.suppress(Empty):
                while group[-1] is not None and len(group) < GROUP:
                    group.append(self._jobs.get_nowait())
            running = group[-1] is not None
            self._commit([job for job in group if job is not None])

    def _commit(self, group: list[_Job]) -> None:
        """Write a group in one transaction, then acknowledge; an entry that is refused leaves the others alone."""
        group = [job for job in group if job[1].set_running_or_notify_cancel()]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            results = [_attempt(self._db, write) for write, _ in group]
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            results = [UnwrittenError(f"the decision log did not take an entry ({error}); send it again")] * len(group)
        for (_, stored), result in zip(group, results, strict=True):
            if isinstance(result, Exception):
                stored.set_exception(result)
            else:
                stored.set_result(result)


def read_decisions(path: Path, *, since: datetime | None = None) -> list[dict[str, Any]]:
    """Read decisions from `since` on, in the order they were taken, as rows that `pandas.DataFrame` takes.

    `features` comes as a float32 array in the order of the release's features.
    """
    return _read(path, "decisions", _DECISION, time="decided_at", since=since)


def read_outcomes(path: Path, *, since: datetime | None = None) -> list[dict[str, Any]]:
    """Read the outcomes that occurred from `since` on, in order of time, as rows that `pandas.DataFrame` takes."""
    return _read(path, "outcomes", _OUTCOME, time="occurred_at", since=since)


def _read(
    path: Path, table: str, columns: tuple[str, ...], *, time: str, since: datetime | None
) -> list[dict[str, Any]]:
    first = _text(since) if since else ""
    with contextlib.closing(_open_to_read(path)) as db:
        try:
            rows = db.execute(f"{_select(table, columns, where=f'{time} >= ?')} ORDER BY {time}, rowid", (first,))
            return [_decode(columns, row) for row in rows]
        except sqlite3.DatabaseError as error:
            raise CorruptError(f"{path} is not a decision log ({error})") from error


def _open_to_write(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        if (came := db.execute("PRAGMA user_version").fetchone()[0]) == 0:
            db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;")
        elif came != FORMAT:
            raise CorruptError(f"{path} has format {came}, {FORMAT} was wanted; move the file away to begin a new log")
    except sqlite3.DatabaseError as error:
        db.close()
        raise CorruptError(f"{path} is not a decision log ({error}); move the file away to begin a new one") from error
    return db


def _open_to_read(path: Path) -> sqlite3.Connection:
    if not path.exists():
        raise NotFoundError(f"there is no decision log at {path}; `holdfast serve` begins one")
    address = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)


def _attempt(db: sqlite3.Connection, write: _Write) -> Any:  # noqa: ANN401 (what the entry's future gives)
    db.execute("SAVEPOINT entry")
    try:
        result = write(db)
    except (ContractError, sqlite3.IntegrityError) as error:
        db.execute("ROLLBACK TO entry")
        result = error
    db.execute("RELEASE entry")
    return result


def _answer(db: sqlite3.Connection, idempotency_key: str) -> Answer | None:
    row = db.execute(_select("answers", _ANSWER, where="idempotency_key = ?"), (idempotency_key,)).fetchone()
    return Answer(*row) if row else None


def _select(table: str, columns: tuple[str, ...], *, where: str) -> str:
    return f"SELECT {', '.join(columns)} FROM {table} WHERE {where}"  # noqa: S608 (names of this module's own)


def _insert(table: str, columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 (own names)


def _text(time: datetime) -> str:
    """Write a time so that the order of texts is the order of times."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def _encode(columns: tuple[str, ...], entry: Decision | Answer | Outcome) -> tuple[Any, ...]:
    return tuple(_to_sql(name, getattr(entry, name)) for name in columns)


def _to_sql(name: str, value: Any) -> Any:  # noqa: ANN401 (any column)
    if name in _JSON:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    return _text(value) if name in _TIMES and value is not None else value


def _decode(columns: tuple[str, ...], row: tuple[Any, ...]) -> dict[str, Any]:
    return {name: _from_sql(name, value) for name, value in zip(columns, row, strict=True)}


def _from_sql(name: str, value: Any) -> Any:  # noqa: ANN401 (any column)
    if name in _JSON:
        return json.loads(value)
    if name == "features":
        return np.frombuffer(value, dtype="<f4")
    return datetime.fromisoformat(value) if name in _TIMES and value is not None else value
