"""The decision log: the file stays what decisions are durable in, and Postgres is given all that it lacks of it."""

import contextlib
import json
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from itertools import islice
from typing import Any, Final

from features.engine import Engine
from features.errors import ContractError, UnavailableError
from features.log.changes import KEYS
from features.log.commits import lock
from features.log.drain import MONTHLY, MOST, carry, clean, connected, drain
from features.log.ledger import NAME, Terms, begun, unlike
from features.log.register import Marks
from features.log.rows import JSON, TIMES, microseconds, open_to_read, to_json
from features.log.writer import DecisionLog
from features.migration.move import Move, Part
from features.migration.tally import Compared, Tally, tally
from features.sheet import Progress

_THERE: Final = "SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = $1"
_PATIENCE: Final = 10.0  # seconds: nobody waits for a decision here
_CLOCK: Final = MONTHLY["contacts"]  # the one time that the file keeps as a number


def check(move: Move) -> int:
    """Count rows that Postgres has and the file has not; the file itself is nobody's target.

    Where instances agree there, theirs are no strangers: they come into the file as it joins them.

    Raises
    ------
    ContractError
        If a service writes the log, or the instances that agree there would refuse this home.
    """
    if move.target.decisions == "sqlite":
        return 0
    if move.home.decisions.exists():
        lock(move.home.decisions).close()
    if _joins(move):
        return 0
    with connected(move.target.decisions) as postgres, contextlib.closing(_file(move)) as db:
        return sum(_strangers(postgres, db, table, key) for table, key in KEYS.items())


def copy(move: Move, progress: Progress) -> None:
    """Carry over what Postgres lacks, with the log in hand, so that nobody decides meanwhile.

    With `agree` the log joins the other instances, or is the first of them: each then has what all have. What was
    drained to another Postgres before is noted no more: where one lacks rows all the same, all are carried.

    Raises
    ------
    ContractError
        If a service writes the log.
    UnavailableError
        If it can't be made one of those that agree.
    """
    address, path = move.target.decisions, move.home.decisions
    if address == "sqlite" or not (path.exists() or _joins(move)):
        return
    with DecisionLog(path, Terms(address, _PATIENCE) if move.target.agree else None) as log:
        drain(log, path, address)
        if log.apart():
            raise UnavailableError("the log did not become one with the other instances'; do it again")
    with contextlib.closing(open_to_read(path)) as db:
        for number, table in enumerate(KEYS):
            if _tally(move, move.source, table) != _tally(move, move.target, table):
                keys = (key for (key,) in db.execute(f"SELECT {KEYS[table]} FROM {table}"))  # noqa: S608 (own names)
                while part := list(islice(keys, MOST)):
                    with contextlib.closing(open_to_read(path)) as reader, connected(address) as postgres:
                        carry(reader, postgres, {table: part})
            progress("the decision log", number + 1, len(KEYS))


def compare(move: Move) -> list[Compared]:
    """Hold each table of the log against its copy."""
    return [
        Compared(f"decisions: {table}", _tally(move, move.source, table), _tally(move, move.target, table))
        for table in KEYS
    ]


DECISIONS = Part("decisions", check, copy, compare)


def _joins(move: Move) -> bool:
    """Tell whether instances agree at the target, which this home may join.

    Raises
    ------
    ContractError
        If they would refuse it.
    """
    if not (move.target.agree and begun(move.target.decisions)):
        return False
    if not move.home.privacy_key.exists():
        raise ContractError(
            f"{move.home.root} has no privacy.key: copy that of the instances that decide as one; nothing was moved"
        )
    if refusal := unlike(move.target.decisions, Marks(move.home.decisions).of(NAME)):
        raise ContractError(f"{refusal}; nothing was moved")
    return True


def _tally(move: Move, engine: Engine, table: str) -> Tally:
    with contextlib.closing(_file(move)) as db:
        columns = [name for _, name, *_ in db.execute(f"PRAGMA table_info({table})")]
        if engine.decisions == "sqlite":
            rows = db.execute(f"SELECT {', '.join(columns)} FROM {table}")  # noqa: S608 (own names)
            return tally([_here(name, clean(value)) for name, value in zip(columns, row, strict=True)] for row in rows)
    with connected(engine.decisions) as postgres, postgres.cursor() as cursor:
        if not _exists(cursor, table):
            return Tally()
        cursor.execute(f"SELECT {', '.join(map(_asked, columns))} FROM {table}")  # noqa: S608 (own names)
        parts = ([array.to_pylist() for array in part] for part in cursor.fetch_record_batch())
        found = (row for part in parts for row in zip(*part, strict=True))
        return tally([_there(name, value) for name, value in zip(columns, row, strict=True)] for row in found)


def _file(move: Move) -> sqlite3.Connection:
    """Open the log to be read; where there is none, tables of nothing."""
    if move.home.decisions.exists():
        return open_to_read(move.home.decisions)
    from features.log.rows import SCHEMA

    empty = sqlite3.connect(":memory:", isolation_level=None)
    empty.executescript(SCHEMA)
    return empty


def _strangers(postgres: Any, db: sqlite3.Connection, table: str, key: str) -> int:  # noqa: ANN401 (the driver has no types)
    with postgres.cursor() as cursor:
        if not _exists(cursor, table):
            return 0
        cursor.execute(f"SELECT {key} FROM {table}")  # noqa: S608 (own names)
        parts = (batch.column(0).to_pylist() for batch in cursor.fetch_record_batch())
        return sum(len(keys) - _known(db, table, key, keys) for keys in parts)


def _known(db: sqlite3.Connection, table: str, key: str, keys: Sequence[str]) -> int:
    query = f"SELECT count(DISTINCT {key}) FROM {table} WHERE {key} IN (SELECT value FROM json_each(?))"  # noqa: S608 (own names)
    return int(db.execute(query, (to_json(keys),)).fetchone()[0])


def _exists(cursor: Any, table: str) -> bool:  # noqa: ANN401 (the driver has no types)
    cursor.execute(_THERE, (table,))
    return cursor.fetchone() is not None


def _asked(name: str) -> str:
    if name in TIMES or name == _CLOCK:
        return f"(extract(epoch FROM {name}) * 1000000)::bigint"
    return f"{name}::text" if name in JSON else name


def _here(name: str, value: Any) -> Any:  # noqa: ANN401 (any column)
    if name in TIMES and value is not None:
        return microseconds(datetime.fromisoformat(value))
    return _there(name, value)


def _there(name: str, value: Any) -> Any:  # noqa: ANN401 (any column)
    return json.loads(value) if name in JSON and value is not None else value
