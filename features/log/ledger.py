"""The ledger in Postgres: what the instances of a programme have committed, in one order.

Each row of their logs that counts for all has one line, as it stands last, under a number that is higher than that of
every change before. Who writes holds a lock until its lines are in: whoever has read up to a number has read all before
it. A row that is gone leaves a line without it until every instance has read that.
"""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import msgspec

from features.engine import masked
from features.errors import ContractError, HoldfastError, UnavailableError
from features.log import rows
from features.log.changes import APART
from features.stores.postgres import asked, schema_of

NAME: Final = "holdfast ledger"  # whose mark says which key a home has
FORMAT: Final = 1_000 + rows.FORMAT  # of the ledger, and of the rows in it
OWN: Final = "spending"  # each instance has sums of its own: one's would overwrite what nobody has read of another's
MOST: Final = 1_000  # lines read or written at once: some tens of milliseconds, for which all others wait
_SCHEMA: Final = schema_of("ledger")
_OPTIONS: Final = (
    f"-csearch_path={_SCHEMA} -ctcp_keepalives_idle=5 -ctcp_keepalives_interval=2 -ctcp_keepalives_count=3 "
    "-cidle_in_transaction_session_timeout={hanging} -cstatement_timeout={hanging}"
)
_HANGING_MS: Final = 1_000  # beyond it at least an instance hangs, and Postgres takes the lock from it
_CONNECT_SECONDS: Final = 2
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtextextended('holdfast ledger', 0))"
_TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS terms (format integer NOT NULL, mark text NOT NULL)",
    "CREATE TABLE IF NOT EXISTS instances (instance text PRIMARY KEY, seen bigint NOT NULL, at timestamptz)",
    "CREATE SEQUENCE IF NOT EXISTS numbers",
    """CREATE TABLE IF NOT EXISTS lines (
      source text, key bytea, number bigint NOT NULL UNIQUE, instance text NOT NULL, row bytea,
      PRIMARY KEY (source, key)
    )""",
)
_BEGIN: Final = f"""
BEGIN; {_LOCK};
SELECT number, source, key, instance, row FROM lines WHERE number > {{seen}} ORDER BY number LIMIT {{most}}
"""  # noqa: S608 (numbers)
_WRITE: Final = """
WITH written AS (
  INSERT INTO lines (source, key, number, instance, row)
  SELECT source, key, nextval('numbers'), %s, row
  FROM unnest(%s::text[], %s::bytea[], %s::bytea[]) AS new (source, key, row)
  ON CONFLICT (source, key) DO UPDATE SET number = excluded.number, instance = excluded.instance, row = excluded.row
  RETURNING number
)
INSERT INTO instances SELECT %s, coalesce(max(number), %s), clock_timestamp() FROM written
ON CONFLICT (instance) DO UPDATE SET seen = excluded.seen, at = excluded.at
RETURNING seen, extract(epoch FROM at)::float8
"""
_FORGET: Final = "DELETE FROM lines WHERE row IS NULL AND number <= (SELECT min(seen) FROM instances)"
_ABSENT: Final = "SELECT count(*) FROM instances WHERE instance <> %s AND at < %s"


@dataclass(frozen=True)
class Terms:
    """Say where the ledger is, and how long it may take to answer."""

    address: str
    seconds: float


class Line(NamedTuple):
    """Hold a row of a table as it stands, or none where it is gone."""

    source: str
    key: str
    row: Sequence[Any] | None
    instance: str = ""
    number: int = 0


class Ledger:
    """Read and write lines under one name; one thread at a time may.

    Parameters
    ----------
    mark : of the key that all homes have to share

    Raises
    ------
    UnavailableError
        If Postgres does not answer.
    ContractError
        If the ledger is of another version, or of homes with another key, or somebody has this name.
    """

    def __init__(self, terms: Terms, instance: str, mark: str) -> None:
        self._terms, self._instance = terms, instance
        self.ahead = 0.0  # seconds that the clock of Postgres is before this machine's
        with self._spoken():
            self._connection = _connect(terms)
        try:
            with self._spoken():
                self._join(mark)
        except HoldfastError:
            self.close()
            raise

    def begin(self, seen: int) -> list[Line]:
        """Wait for the others, keep them waiting, and give what is new; as many as `MOST` are not all."""
        with self._asked():
            found = self._connection.execute(_BEGIN.format(seen=seen, most=MOST))  # one way there and back
            while found.nextset():
                pass
            return [
                Line(
                    source,
                    key.decode().removeprefix(_owner(source, instance)),
                    None if row is None else msgspec.msgpack.decode(row),
                    instance,
                    number,
                )
                for number, source, key, instance, row in found.fetchall()
            ]

    def write(self, lines: Sequence[Line], seen: int) -> int:
        """Put lines in, and say up to which number everything is known then; nothing stands before `commit`."""
        sources = [line.source for line in lines]
        keys = [(_owner(line.source, self._instance) + line.key).encode() for line in lines]
        packed = [None if line.row is None else msgspec.msgpack.encode(line.row) for line in lines]
        with self._asked():
            asked = time.time()
            ((last, here),) = self._connection.execute(
                _WRITE, (self._instance, sources, keys, packed, self._instance, seen)
            ).fetchall()
            self.ahead = here - (asked + time.time()) / 2
        return int(last)

    def commit(self) -> None:
        """Let what was written stand; if that fails, nobody knows whether it does."""
        with self._asked():
            self._connection.execute("COMMIT")

    def end(self) -> None:
        """Write nothing, and let others go on."""
        with self._asked():
            self._connection.execute("ROLLBACK")

    def absent(self) -> int:
        """Count the others who have neither left nor been here since this connection began."""
        with self._asked():
            found = self._connection.execute(_ABSENT, (self._instance, self._began)).fetchone()
        return int(found[0])

    def forget(self) -> None:
        """Drop the lines of rows that are gone, which everybody has read."""
        with self._asked():
            self._connection.execute(_FORGET)

    def leave(self) -> None:
        """Say that this instance has nothing that others lack, and will not be there."""
        with self._asked():
            self._connection.execute("UPDATE instances SET at = NULL WHERE instance = %s", (self._instance,))

    def close(self) -> None:
        """Let go of the connection."""
        self._connection.close()

    def _join(self, mark: str) -> None:
        """Make the tables where there are none, agree on terms, and take the name."""
        db = self._connection
        db.execute("BEGIN")
        db.execute(_LOCK)
        for statement in (f"CREATE SCHEMA IF NOT EXISTS {_SCHEMA}", *_TABLES):
            db.execute(statement)
        found = db.execute("SELECT format, mark FROM terms").fetchone()
        if found is None:
            db.execute("INSERT INTO terms VALUES (%s, %s)", (FORMAT, mark))
        elif refusal := _refusal(found[0], found[1], mark):
            raise ContractError(refusal)
        db.execute("COMMIT")
        mine = db.execute("SELECT pg_try_advisory_lock(hashtextextended(%s, 1))", (self._instance,)).fetchone()
        if mine != (True,):
            raise ContractError(
                "another process has this log's name: its home was copied, or its last connection is not over yet; a "
                "home of its own begins without decisions.db"
            )
        ((self._began,),) = db.execute("SELECT clock_timestamp()").fetchall()

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        self._connection.due = time.monotonic() + self._terms.seconds
        with self._spoken():
            yield

    @contextlib.contextmanager
    def _spoken(self) -> Iterator[None]:
        import psycopg

        try:
            yield
        except (
            psycopg.Error,
            msgspec.MsgspecError,
        ) as error:  # its message may hold the address, with its password, or ids
            raise UnavailableError(
                f"the ledger at {masked(self._terms.address)} does not answer as it should ({type(error).__name__})"
            ) from None


def unlike(address: str, mark: str) -> str:
    """Say why the instances whose ledger this is would refuse a home with such a key; nothing where they would not.

    Raises
    ------
    UnavailableError, ContractError
        As `features.stores.postgres.asked`.
    """
    found = _terms(address)
    return _refusal(*found, mark) if found else ""


def begun(address: str) -> bool:
    """Say whether there are instances that agree there.

    Raises
    ------
    UnavailableError, ContractError
        As `features.stores.postgres.asked`.
    """
    return _terms(address) is not None


def round_trip(address: str) -> float:
    """Measure how many seconds Postgres takes to answer what is asked on a connection that stands."""
    with asked(address, "decisions") as connection:
        began = time.perf_counter()
        connection.execute("SELECT 1").fetchone()
        return time.perf_counter() - began


def _terms(address: str) -> tuple[int, str] | None:
    with asked(address, "decisions") as connection:
        if connection.execute("SELECT to_regclass(%s)", (f"{_SCHEMA}.terms",)).fetchone() == (None,):
            return None
        found: tuple[int, str] | None = connection.execute(f"SELECT format, mark FROM {_SCHEMA}.terms").fetchone()  # noqa: S608 (own names)
        return found


def _refusal(came: int, theirs: str, mark: str) -> str:
    if came != FORMAT:
        return (
            f"the instances' ledger has format {came}, {FORMAT} was wanted: let all be of one version, or name an "
            f"empty database"
        )
    if theirs != mark:
        return (
            "this home's privacy.key is not that of the instances that decide as one: it would not know whom they "
            "erased; copy theirs here before anything is decided, or name another database"
        )
    return ""


def _owner(source: str, instance: str) -> str:
    """Say what stands before the key of a row that each instance has one of."""
    return f"{instance}{APART}" if source == OWN else ""


def _connect(terms: Terms) -> Any:  # noqa: ANN401 (a class that is made where the driver is there)
    try:
        import psycopg
    except ImportError as error:
        raise ContractError(
            "decisions is Postgres, whose driver comes with `pip install 'holdfast[cluster]'`"
        ) from error

    class Timely(psycopg.Connection[tuple[Any, ...]]):
        """Wait for an answer until it is due, and no longer: a server that hangs says nothing of it."""

        due = math.inf

        def wait(self, gen: Any, interval: float = 0.1, timeout: float | None = None) -> Any:  # noqa: ANN401 (the driver's)
            left = None if math.isinf(self.due) else max(self.due - time.monotonic(), 0.0)
            return super().wait(gen, interval, left if timeout is None else timeout)

    options = _OPTIONS.format(hanging=max(_HANGING_MS, int(3_000 * terms.seconds)))
    connection = Timely.connect(terms.address, connect_timeout=_CONNECT_SECONDS, options=options, autocommit=True)
    connection.due = time.monotonic() + _CONNECT_SECONDS + 1
    return connection
