"""The drain: carries the decision log over to Postgres, for those who ask of it what one machine's file can't answer.

The file stays what a decision is durable in, so Postgres may be down for as long as it likes: what it lacks waits.
Rows are carried over as they stand, each as often as it takes; the tables are by month where there is a time.
"""

import contextlib
import logging
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import pyarrow as pa
import tenacity

from features.errors import UnavailableError
from features.log.changes import KEYS, agreed, pending, waiting
from features.log.rows import JSON, TIMES, open_to_read, to_json

logger: Final = logging.getLogger("holdfast")

MOST: Final = 2_000  # changes carried over at once
LOOK_SECONDS: Final = 1.0  # between looks at a log that has nothing new
LONGEST_WAIT: Final = 60.0  # between tries while Postgres is down
FAREWELL_SECONDS: Final = 8.0  # longer than a connection may take to be refused
MONTHLY: Final = {
    "decisions": "decided_at",
    "outcomes": "occurred_at",
    "answers": "created_at",
    "contacts": "contacted_at",
}
_TIMEOUTS: Final = "connect_timeout=5&tcp_user_timeout=10000&keepalives_idle=5"
_TYPES: Final = {"TEXT": "text", "REAL": "double precision", "INTEGER": "bigint", "BLOB": "bytea"}
_ARROW: Final = {"TEXT": pa.string(), "REAL": pa.float64(), "INTEGER": pa.int64(), "BLOB": pa.binary()}


class Followed(Protocol):
    """Note changes, as the log does."""

    def follow(self) -> "Any":  # noqa: ANN401 (a future of bool)
        """Note changes from now on."""
        ...

    def drained(self, number: int) -> "Any":  # noqa: ANN401 (a future)
        """Drop the notes up to a number."""
        ...


def drain(log: Followed, path: Path, address: str) -> int:
    """Carry over what Postgres lacks, and count the changes.

    Raises
    ------
    UnavailableError
        If Postgres does not take them; what it did not take waits.
    """
    log.follow().result()
    done = 0
    with contextlib.closing(open_to_read(path)) as db, connected(address) as connection:
        while True:
            number, keys = pending(db, MOST, until=agreed(db))  # what others do not know of may yet change
            if not keys:
                return done
            carry(db, connection, keys)
            log.drained(number).result()
            done += sum(map(len, keys.values()))


def backlog(path: Path) -> int:
    """Count the changes that Postgres lacks."""
    with contextlib.closing(open_to_read(path)) as db:
        try:
            return waiting(db)
        except sqlite3.OperationalError:  # nobody follows it yet
            return 0


def lacking(path: Path, address: str) -> list[str]:
    """Name the columns that the log has and its copy in Postgres has not; a table that is not made yet lacks none.

    Raises
    ------
    UnavailableError
        If Postgres does not answer.
    """
    query = (
        "SELECT column_name FROM information_schema.columns WHERE table_schema = current_schema() AND table_name = $1"
    )
    found = []
    with contextlib.closing(open_to_read(path)) as db, connected(address) as connection, connection.cursor() as cursor:
        for table in KEYS:
            cursor.execute(query, (table,))
            there = {name for (name,) in cursor.fetchall()}
            wanted = [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")]
            found += [f"{table}.{name}" for name in wanted if there and name not in there]
    return found


class Drain:
    """Carry over in the background what Postgres lacks, until closed."""

    def __init__(self, log: Followed, path: Path, address: str) -> None:
        self._log, self._path, self._address = log, path, address
        self._stop = threading.Event()
        self.backlog = 0  # changes that Postgres lacked when this looked last
        self._thread = threading.Thread(target=self._run, name="drain", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; what is not carried over waits for the next start.

        A server that took the connection and says no more is not waited for: its kernel still answers, so that no
        timeout of the network ends it.
        """
        self._stop.set()
        self._thread.join(FAREWELL_SECONDS)

    def _run(self) -> None:
        while not self._stop.is_set():
            trying = tenacity.Retrying(
                retry=tenacity.retry_if_exception_type(UnavailableError),
                wait=tenacity.wait_random_exponential(max=LONGEST_WAIT),
                sleep=tenacity.sleep_using_event(self._stop),
                stop=tenacity.stop_when_event_set(self._stop),
                before_sleep=self._wait,
            )
            with contextlib.suppress(tenacity.RetryError):
                trying(drain, self._log, self._path, self._address)
                self.backlog = 0
            self._stop.wait(LOOK_SECONDS)

    def _wait(self, _: tenacity.RetryCallState) -> None:
        self.backlog = backlog(self._path)
        logger.warning("the Postgres of the decision log takes nothing; %d changes wait", self.backlog)


@contextlib.contextmanager
def connected(address: str) -> Any:  # noqa: ANN401 (the driver has no types)
    """Connect to the Postgres of the log.

    Raises
    ------
    UnavailableError
        If it does not answer, or refuses; now or until the connection is let go of.
    """
    from adbc_driver_manager import Error
    from adbc_driver_postgresql import dbapi

    try:
        with dbapi.connect(f"{address}{'&' if '?' in address else '?'}{_TIMEOUTS}") as connection:
            yield connection
    except Error as error:  # its message may hold the address, with its password
        raise UnavailableError(f"Postgres does not take the decision log ({type(error).__name__})") from None


def carry(db: sqlite3.Connection, connection: Any, keys: Mapping[str, Sequence[str]]) -> None:  # noqa: ANN401
    """Make rows in Postgres what they are here, or nothing where they are gone, in one transaction."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext('holdfast drain'))")  # or two might both insert a row
        for table, changed in keys.items():
            columns = {name: kind for _, name, kind, *_ in db.execute(f"PRAGMA table_info({table})")}
            asked = f"SELECT {', '.join(columns)} FROM {table} WHERE {KEYS[table]} IN (SELECT value FROM json_each(?))"  # noqa: S608 (own names)
            rows = db.execute(asked, (to_json(list(changed)),)).fetchall()
            _create(cursor, table, columns, rows)
            cursor.adbc_ingest("stale", pa.table({"key": changed}), mode="create", temporary=True)
            cursor.execute(f"DELETE FROM {table} WHERE {KEYS[table]} IN (SELECT key FROM stale)")  # noqa: S608
            cursor.execute("DROP TABLE stale")
            if rows:
                values = zip(*(map(clean, row) for row in rows), strict=True)
                arrays = [pa.array(column, _ARROW[kind]) for column, kind in zip(values, columns.values(), strict=True)]
                cursor.adbc_ingest("fresh", pa.table(arrays, names=list(columns)), mode="create", temporary=True)
                told = ", ".join(_cast(name) for name in columns)
                cursor.execute(f"INSERT INTO {table} ({', '.join(columns)}) SELECT {told} FROM fresh")  # noqa: S608
                cursor.execute("DROP TABLE fresh")
    connection.commit()


def _create(cursor: Any, table: str, columns: Mapping[str, str], rows: Sequence[tuple[Any, ...]]) -> None:  # noqa: ANN401
    """Make a table, and the months that rows are of."""
    fields = ", ".join(f"{name} {_type(name, kind)}" for name, kind in columns.items())
    month = MONTHLY.get(table)
    by_month = f" PARTITION BY RANGE ({month})" if month else ""
    cursor.execute(f"CREATE TABLE IF NOT EXISTS {table} ({fields}){by_month}")
    cursor.execute(f"CREATE INDEX IF NOT EXISTS {table}_key ON {table} (({KEYS[table]}))")
    if month:
        place = list(columns).index(month)
        for first in sorted({_month(row[place]) for row in rows}):
            after = datetime(first.year + first.month // 12, first.month % 12 + 1, 1, tzinfo=UTC)
            cursor.execute(
                f"CREATE TABLE IF NOT EXISTS {table}_{first:%Y_%m} PARTITION OF {table} "
                f"FOR VALUES FROM ('{first.isoformat()}') TO ('{after.isoformat()}')"
            )


def _month(time: str | int) -> datetime:
    moment = datetime.fromtimestamp(time / 1e6, UTC) if isinstance(time, int) else datetime.fromisoformat(time)
    return moment.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _type(name: str, kind: str) -> str:
    if name in TIMES or name == MONTHLY["contacts"]:
        return "timestamptz"
    return "jsonb" if name in JSON else _TYPES[kind]


def _cast(name: str) -> str:
    if name == MONTHLY["contacts"]:
        return f"timestamptz 'epoch' + {name} * interval '1 microsecond'"
    return f"{name}::timestamptz" if name in TIMES else f"{name}::jsonb" if name in JSON else name


def clean(value: Any) -> Any:  # noqa: ANN401 (any column)
    """Replace what Postgres can't store: a character of number zero, as itself or as JSON writes it."""
    return value.replace("\0", "\ufffd").replace("\\u0000", "\\ufffd") if isinstance(value, str) else value
