"""Everything that is held about a member, as JSON lines: each says of which place it is.

What is computed from these places and kept beside them is not said twice: chapters of history are snapshots, sorted.
"""

import contextlib
import json
import math
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

from features.definitions import NUMBERS, WORDS
from features.errors import HoldfastError, NotFoundError
from features.home import Home
from features.journal import Journal
from features.log.entries import ANSWER, DECISION, OUTCOME
from features.log.parts import rows_of_member
from features.log.reading import read_parts
from features.log.rows import decode, open_to_read, select
from features.privacy.rows import lines_naming, read_rows
from features.shadow import ShadowFile
from features.stores.packed import Vectors
from features.warehouse import open_warehouse

Line = tuple[str, dict[str, Any]]
LATEST: Final = datetime(9999, 1, 1, tzinfo=UTC)


class OnlineStore(Protocol):
    """Hold vectors, as `features.store.Store` does."""

    def vectors(self, member_ids: Sequence[str]) -> Vectors:
        """Read every feature of members."""
        ...


def export_lines(home: Home, member_id: str, store: OnlineStore) -> Iterator[str]:
    """Write everything that is held about a member, a JSON object a line."""
    for place, row in held(home, member_id, store):
        yield f"{json.dumps({'held_in': place} | _plain(row), ensure_ascii=False, default=str)}\n"


def held(home: Home, member_id: str, store: OnlineStore) -> Iterator[Line]:
    """Give every row about a member with the place it is in."""
    yield from _warehouse(home, member_id)
    for path in sorted(home.features.glob("*.parquet")):
        yield from (("snapshot", row) for row in read_rows(path, [member_id]))
    yield from _online(member_id, store)
    if home.journal.exists():
        with Journal(home.journal) as journal:
            for entry, known_at in journal.of_members([member_id], as_of=LATEST):
                yield f"live.{entry.table}", {"rows": entry.rows(), "known_at": known_at}
    if home.shadow.exists():
        with ShadowFile(home.shadow) as shadow:
            yield from (("shadow", asdict(row)) for row in shadow.of_members([member_id]))
    for path in sorted(home.quarantine.glob("*.jsonl")):
        yield from (("quarantine", row) for row in lines_naming(path, [member_id]))
    if home.decisions.exists():
        yield from _log(home.decisions, member_id)


def _warehouse(home: Home, member_id: str) -> Iterator[Line]:
    try:
        warehouse = open_warehouse(home)
    except NotFoundError:
        return
    for name in warehouse.tables:
        yield from ((f"warehouse.{name}", row) for row in read_rows(warehouse.path(name), [member_id]))


def _online(member_id: str, store: OnlineStore) -> Iterator[Line]:
    try:
        found = store.vectors([member_id])
    except (HoldfastError, OSError, sqlite3.Error) as error:
        yield "online", {"unavailable": type(error).__name__}
        return
    if found.known[0]:
        numbers = zip(NUMBERS, found.numbers[0].tolist(), strict=True)
        words = zip(WORDS, found.words[0], strict=True)
        yield "online", {"event_timestamp": found.event_timestamp[0], **dict(numbers), **dict(words)}


def _log(path: Path, member_id: str) -> Iterator[Line]:
    with contextlib.closing(open_to_read(path)) as db:
        rows = db.execute(select("decisions", DECISION, where="member_id = ?"), (member_id,)).fetchall()
        decisions = [decode(DECISION, row) for row in rows]
        decisions += [row for _, part in read_parts(path) for row in rows_of_member(path.parent, part, member_id)]
        for decision in decisions:
            yield "log.decisions", decision
            asked = (decision["decision_id"],)
            for row in db.execute(select("outcomes", OUTCOME, where="decision_id = ?"), asked):
                yield "log.outcomes", decode(OUTCOME, row)
        for key in dict.fromkeys(key for row in decisions if (key := row.get("idempotency_key"))):  # batches have none
            for row in db.execute(select("answers", ANSWER, where="idempotency_key = ?"), (key,)):
                answer = dict(zip(ANSWER, row, strict=True))
                yield "log.answers", answer | {"body": _said(answer["body"], member_id)}
        for table, columns in (
            ("contacts", ("contacted_at", "offer_id")),
            ("preferences", ("personalisation", "set_at")),
        ):
            for row in db.execute(select(table, columns, where="member_id = ?"), (member_id,)):
                yield f"log.{table}", dict(zip(columns, row, strict=True))


def _said(body: bytes, member_id: str) -> list[Any]:
    """Give what an answer said of the member, and nothing about others."""
    return [one for one in json.loads(body).get("decisions", []) if one["member_id"] == member_id]


def _plain(value: Any) -> Any:  # noqa: ANN401 (any value of a row)
    """Make a value fit for JSON: what is no number is missing, an array is a list."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, bytes):
        return value.hex()
    return None if isinstance(value, float) and not math.isfinite(value) else value
