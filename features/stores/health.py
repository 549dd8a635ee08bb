"""How a server stands: whether it answers, in time, and takes writes; and what its clock says.

Each is tried as it is used, by a write: a replica, a full disk and a server that was set to read-only are not told from
a sound one by anything that is only read.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from features.engine import Engine
from features.errors import ContractError, UnavailableError
from features.stores.postgres import asked, schema_of

SECONDS: Final = 3.0  # that connecting and an answer may take
SLOW_SECONDS: Final = 0.5  # that connecting to Postgres and asking it takes, beyond which it is slow
SLOW_OBJECTS: Final = 5.0  # that five requests to object storage take
REFUSALS: Final = {"28P01": "the password", "28000": "the user", "3D000": "the database", "42501": "the user's rights"}

State = Literal["answers", "slow", "read_only", "refused", "silent", "absent"]


@dataclass(frozen=True)
class Health:
    """Hold how a server stands.

    absent: nothing listens; silent: something does, and does not answer in time; refused: it says no to who asks
    """

    state: State
    words: str
    server_time: datetime | None = None
    asked_at: datetime | None = None  # half way between the question and the answer, on this machine's clock


def health_of(part: str, engine: Engine, clock: Callable[[], datetime]) -> Health:
    """Try the server of a part."""
    if part == "online":
        return redis_health(engine, clock)
    address: str = getattr(engine, part)
    return objects_health(address) if part == "objects" else postgres_health(address, part, clock)


def redis_health(engine: Engine, clock: Callable[[], datetime]) -> Health:
    """Try Redis as decisions use it, but with more patience."""
    from redis.exceptions import AuthenticationError, OutOfMemoryError, ReadOnlyError, RedisError
    from redis.exceptions import TimeoutError as LateError

    from features.stores.servers import Command, Servers

    servers, key = Servers(engine.online, SECONDS), f"{engine.online_prefix}:doctor".encode()
    try:
        servers.send([Command(key, ("PING",))])  # connects
        began = time.perf_counter()
        servers.send([Command(key, ("SET", key, b"", "EX", 1))])
        took = time.perf_counter() - began
        ((seconds, micros),) = servers.send([Command(key, ("TIME",))])
    except UnavailableError as error:
        cause = error.__cause__
        if isinstance(cause, ReadOnlyError):
            return Health("read_only", "takes no writes: it is a replica")
        if isinstance(cause, OutOfMemoryError):
            return Health("read_only", "takes no writes: its memory is full")
        if isinstance(cause, LateError):
            return Health("silent", _SILENT)
        if isinstance(cause, AuthenticationError) or _refuses(cause, RedisError):
            return Health("refused", f"refuses: {_line(cause)}")
        return Health("absent", _ABSENT)
    finally:
        servers.close()
    server_time = datetime.fromtimestamp(int(seconds) + int(micros) / 1e6, UTC)
    slow = took * 1000 > engine.online_timeout_ms
    return Health("slow" if slow else "answers", f"answers in {took * 1000:.1f} ms", server_time, clock())


def postgres_health(address: str, part: str, clock: Callable[[], datetime]) -> Health:
    """Try whether Postgres lets tables be made, as the parts need it."""
    began = time.perf_counter()
    try:
        with asked(address, part) as connection:
            found = connection.execute(_STANDING).fetchone()
            asked_at, took = clock(), time.perf_counter() - began
    except UnavailableError as error:
        return _failed(error.__cause__)
    standby, read_only, may_create, server_time = found
    if standby or read_only:
        return Health("read_only", f"takes no writes: {'it is a standby' if standby else 'it is set to read-only'}")
    if not may_create:
        return Health("refused", "refuses: the user's rights (CREATE on the database)")
    words = f"answers in {took * 1000:.0f} ms, connecting included"
    return Health("slow" if took > SLOW_SECONDS else "answers", words, server_time, asked_at)


def objects_health(address: str) -> Health:
    """Try whether object storage takes an object, gives it back, and lets nobody write over it."""
    from features.stores.objects import Objects

    try:
        objects = Objects(address)
        objects.probe()  # connects
        began = time.perf_counter()
        objects.probe()
    except UnavailableError as error:
        return _failed_objects(error.__cause__)
    except ContractError as error:
        return Health("refused", f"refuses: {error}")
    took = time.perf_counter() - began
    words = f"takes an object, gives it back and deletes it in {took * 1000:.0f} ms"
    return Health("slow" if took > SLOW_OBJECTS else "answers", words)


def revision(address: str, part: str) -> str | None:
    """Give the version of a library's tables, as Alembic notes it; None where it has made none yet."""
    table = f"{schema_of(part)}.alembic_version"
    with asked(address, part) as connection:
        if connection.execute("SELECT to_regclass(%s)", (table,)).fetchone() == (None,):
            return None
        row = connection.execute(f"SELECT version_num FROM {table}").fetchone()  # noqa: S608 (own names)
    return str(row[0]) if row else "none"


def tables_in(address: str, part: str) -> set[str]:
    """Name the tables in a part's schema."""
    query = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
    with asked(address, part) as connection:
        return {name for (name,) in connection.execute(query, (schema_of(part),)).fetchall()}


_ABSENT: Final = "nothing listens there"
_SILENT: Final = f"takes connections and says nothing within {SECONDS:.0f} s"
_STANDING: Final = """
SELECT pg_is_in_recovery(), current_setting('default_transaction_read_only') = 'on',
  has_database_privilege(current_database(), 'CREATE'), clock_timestamp()
"""


def _failed(error: BaseException | None) -> Health:
    from psycopg.errors import ConnectionTimeout, QueryCanceled

    if isinstance(error, ConnectionTimeout | QueryCanceled):
        return Health("silent", _SILENT)
    state = getattr(error, "sqlstate", None) or _sqlstate(str(error))
    if state:
        return Health("refused", f"refuses: {REFUSALS.get(state, f'error {state}')}")
    refused = "FATAL" in str(error)  # the server's own word, where it speaks English
    return Health("refused", f"refuses: {_line(error)}") if refused else Health("absent", _ABSENT)


def _failed_objects(error: BaseException | None) -> Health:
    """Tell by the names of errors, which each storage's own library has: their words may hold what is secret."""
    names = {type(one).__name__ for one in _causes(error)}
    if names & {"NoCredentialsError", "PartialCredentialsError", "TokenRetrievalError", "DefaultCredentialsError"}:
        return Health("refused", "refuses: no credentials are in the environment (AWS_ACCESS_KEY_ID and its like)")
    if "PermissionError" in names:
        return Health("refused", "refuses: the credentials, or their rights (read, write and delete)")
    if "FileNotFoundError" in names:
        return Health("refused", "refuses: there is no such bucket")
    if any("Timeout" in name for name in names):
        return Health("silent", "says nothing in time")
    if any("Connection" in name or "Connector" in name for name in names):
        return Health("absent", _ABSENT)
    return Health("refused", f"refuses: {type(error).__name__}")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error:
        yield error
        error = error.__cause__ or error.__context__


def _sqlstate(words: str) -> str | None:
    """Read a refusal off libpq's words: of a connection that fails, it gives no code."""
    if "password authentication failed" in words:
        return "28P01"
    if "does not exist" in words:
        return "28000" if "role" in words else "3D000"
    return None


def _refuses(error: Any, kind: type[Exception]) -> bool:  # noqa: ANN401 (whatever caused it)
    from redis.exceptions import ConnectionError as LostError

    return isinstance(error, kind) and not isinstance(error, LostError)


def _line(error: object) -> str:
    return " ".join(str(error).split())[:120]
