"""How entries of the decision log stand in SQLite: its tables, and an entry as a row and back."""

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from features.errors import CorruptError, NotFoundError

FORMAT: Final = 4
SCHEMA: Final = """
CREATE TABLE decisions (
  decision_id TEXT PRIMARY KEY, member_id TEXT NOT NULL, campaign_id TEXT, decided_at TEXT NOT NULL,
  release_id TEXT NOT NULL, catalogue_id TEXT NOT NULL, outcome TEXT NOT NULL, fallback_reason TEXT,
  treatment TEXT NOT NULL, propensity REAL NOT NULL, draw REAL NOT NULL, treatments TEXT NOT NULL,
  probabilities TEXT NOT NULL, asked TEXT NOT NULL, refusals TEXT NOT NULL, churn_probability REAL, value INTEGER,
  uplift TEXT NOT NULL, cost TEXT NOT NULL, net_value TEXT NOT NULL, price REAL NOT NULL, stock_prices TEXT NOT NULL,
  segment TEXT, lifecycle_stage TEXT, reasons TEXT NOT NULL, features BLOB NOT NULL, facts TEXT NOT NULL,
  standing TEXT NOT NULL, event_timestamp TEXT, source TEXT NOT NULL, scores BLOB NOT NULL,
  context TEXT NOT NULL, idempotency_key TEXT
);
CREATE INDEX decisions_by_member ON decisions (member_id, decided_at);
CREATE INDEX decisions_by_time ON decisions (decided_at);
CREATE TABLE contacts (
  member_id TEXT NOT NULL, contacted_at INTEGER NOT NULL, decision_id TEXT NOT NULL, offer_id TEXT NOT NULL,
  PRIMARY KEY (member_id, contacted_at, decision_id)
) WITHOUT ROWID;
CREATE TABLE spending (
  campaign_id TEXT NOT NULL, offer_id TEXT NOT NULL, contacts INTEGER NOT NULL, spent INTEGER NOT NULL,
  PRIMARY KEY (campaign_id, offer_id)
) WITHOUT ROWID;
CREATE TABLE prices (
  campaign_id TEXT PRIMARY KEY, base_price REAL NOT NULL, stock_prices TEXT NOT NULL, set_at TEXT NOT NULL
);
CREATE TABLE catalogues (catalogue_id TEXT PRIMARY KEY, body TEXT NOT NULL, created_at TEXT NOT NULL);
CREATE TABLE batches (
  batch_id TEXT PRIMARY KEY, campaign_id TEXT, decided_at TEXT NOT NULL, release_id TEXT NOT NULL,
  catalogue_id TEXT NOT NULL, settings TEXT NOT NULL
);
CREATE TABLE parts (
  batch_id TEXT NOT NULL, part INTEGER NOT NULL, path TEXT NOT NULL, sha256 TEXT NOT NULL, rows INTEGER NOT NULL,
  PRIMARY KEY (batch_id, part)
) WITHOUT ROWID;
CREATE TABLE answers (
  idempotency_key TEXT PRIMARY KEY, body_sha256 TEXT NOT NULL, status INTEGER NOT NULL, body BLOB NOT NULL,
  created_at TEXT NOT NULL
);
CREATE INDEX answers_by_time ON answers (created_at);
CREATE TABLE outcomes (
  outcome_id TEXT PRIMARY KEY, decision_id TEXT, contact_id TEXT, kind TEXT NOT NULL, occurred_at TEXT NOT NULL,
  amount INTEGER, received_at TEXT NOT NULL
);
CREATE INDEX outcomes_by_decision ON outcomes (decision_id);
CREATE INDEX outcomes_by_time ON outcomes (occurred_at);
CREATE TABLE preferences (
  member_id TEXT PRIMARY KEY, personalisation INTEGER NOT NULL, set_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE tombstones (mark TEXT PRIMARY KEY, erased_at TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE erasing (member_id TEXT PRIMARY KEY, receipt_id TEXT NOT NULL, contact_ids TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE receipts (receipt_id TEXT PRIMARY KEY, body TEXT NOT NULL, erased_at TEXT NOT NULL);
"""
JSON: Final = frozenset(
    {"treatments", "probabilities", "asked", "refusals", "uplift", "cost", "net_value", "stock_prices"}
    | {"reasons", "facts", "standing", "context", "settings"}
)
WORDS: Final = frozenset({"treatments", "asked", "refusals"})  # few words, the same again and again
TIMES: Final = frozenset({"decided_at", "event_timestamp", "occurred_at", "received_at", "created_at", "set_at"})
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_ENCODER: Final = msgspec.json.Encoder()  # a sixth of the time that the standard library takes


def to_json(value: Any) -> str:  # noqa: ANN401 (any JSON value)
    """Write JSON as it stands in a column; floats come back to the bit."""
    return _ENCODER.encode(value).decode()


def encode(columns: tuple[str, ...], entry: Mapping[str, Any]) -> tuple[Any, ...]:
    """Write an entry's fields as the values of a row."""
    return tuple([entry[name] if write is None else write(entry[name]) for name, write in _writes(columns)])


def decode(columns: Sequence[str], row: Sequence[Any]) -> dict[str, Any]:
    """Read a row's values back."""
    return {name: _from_sql(name, value) for name, value in zip(columns, row, strict=True)}


def select(table: str, columns: Sequence[str], *, where: str) -> str:
    """Ask for columns of a table."""
    return f"SELECT {', '.join(columns)} FROM {table} WHERE {where}"  # noqa: S608 (names of this package's own)


def insert(table: str, columns: Sequence[str]) -> str:
    """Add a row to a table."""
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608 (own names)


def text(time: datetime) -> str:
    """Write a time so that the order of texts is the order of times."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def microseconds(time: datetime) -> int:
    """Count from 1970, exactly."""
    return (time - EPOCH) // timedelta(microseconds=1)


def open_to_write(path: Path) -> sqlite3.Connection:
    """Open the log, or begin one.

    Raises
    ------
    CorruptError
        If the file is something else; it is left as it is.
    """
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA secure_delete = ON")  # what is erased is overwritten, not only let go of
        if (came := db.execute("PRAGMA user_version").fetchone()[0]) == 0:
            db.executescript(f"BEGIN IMMEDIATE; {SCHEMA} PRAGMA user_version = {FORMAT}; COMMIT;")
            came = FORMAT
    except sqlite3.DatabaseError as error:
        db.close()
        raise CorruptError(f"{path} is not a decision log ({error}); move the file away to begin a new one") from error
    if came != FORMAT:
        db.close()
        raise CorruptError(f"{path} has format {came}, {FORMAT} was wanted; move the file away to begin a new log")
    return db


def open_to_read(path: Path) -> sqlite3.Connection:
    """Open the log without ever keeping its writer waiting.

    Raises
    ------
    NotFoundError
        If nothing was decided yet.
    """
    if not path.exists():
        raise NotFoundError(f"there is no decision log at {path}; `holdfast serve` begins one")
    address = f"{path.absolute().as_uri()}?mode=ro"
    return sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)


@cache
def _writes(columns: tuple[str, ...]) -> tuple[tuple[str, Callable[[Any], Any] | None], ...]:
    """Say how each column is written; None: as it is."""
    ways: dict[str, Callable[[Any], Any]] = {
        **dict.fromkeys(JSON, to_json),
        **dict.fromkeys(WORDS, lambda value: _words(value if value is None else tuple(value))),
        **dict.fromkeys(TIMES, lambda value: None if value is None else text(value)),
    }
    return tuple((name, ways.get(name)) for name in columns)


@lru_cache(4096)
def _words(value: tuple[str, ...] | None) -> str:
    return to_json(value)


def _from_sql(name: str, value: Any) -> Any:  # noqa: ANN401 (any column)
    if name in JSON:
        return json.loads(value)
    if name == "features":
        return np.frombuffer(value, dtype="<f4")
    return datetime.fromisoformat(value) if name in TIMES and value is not None else value
