"""What a shadow release would have decided, beside the decision log and never in it.

A row stands for one decision that was taken, by whom and how, and for what the shadow makes of the same member, draw
and moment. Nobody waits for it and nothing rests on it: rows may be lost, the oldest go above a number, and all of a
member's go with the member.
"""

import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from features.errors import CorruptError
from features.log.rows import text
from features.transaction import delete_whole, transaction

FORMAT: Final = 1
MOST: Final = 1_000_000  # rows; about 300 bytes each
WAIT_SECONDS: Final = 10
_NAMED: Final = 1_000  # members at once
_TABLE: Final = """
CREATE TABLE shadows (
  number INTEGER PRIMARY KEY AUTOINCREMENT, decision_id TEXT NOT NULL, member_id TEXT NOT NULL,
  decided_at TEXT NOT NULL, campaign_id TEXT, champion TEXT NOT NULL, shadow TEXT NOT NULL, treatment TEXT NOT NULL,
  shadow_treatment TEXT NOT NULL, propensity REAL NOT NULL, shadow_propensity REAL NOT NULL,
  churn_probability REAL NOT NULL, shadow_churn_probability REAL NOT NULL, net_value REAL NOT NULL,
  net_value_by_shadow REAL NOT NULL, shadow_net_value REAL NOT NULL, shadow_net_value_by_champion REAL NOT NULL,
  seconds REAL NOT NULL, shadow_seconds REAL NOT NULL
);
CREATE INDEX shadows_by_member ON shadows (member_id);
CREATE INDEX shadows_by_time ON shadows (decided_at);
"""


@dataclass(frozen=True)
class ShadowRow:
    """Hold one decision beside the shadow's; net values are of a policy, over its probabilities, in minor units.

    A policy is judged by its own release and by the other: each release thinks well of its own choices.
    """

    decision_id: str
    member_id: str
    decided_at: datetime
    campaign_id: str | None
    champion: str
    shadow: str
    treatment: str
    shadow_treatment: str  # of the same draw
    propensity: float
    shadow_propensity: float  # of the treatment that was given
    churn_probability: float
    shadow_churn_probability: float
    net_value: float
    net_value_by_shadow: float  # of the champion's policy
    shadow_net_value: float
    shadow_net_value_by_champion: float
    seconds: float  # that scoring took, a member
    shadow_seconds: float


_COLUMNS: Final = tuple(field.name for field in fields(ShadowRow))


class ShadowFile:
    """Hold the file open; one thread at a time may use it, and several processes may."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            self._db.execute("PRAGMA synchronous = OFF")  # what a crash takes is missed by nobody
            self._db.execute("PRAGMA secure_delete = ON")
            with self.writing():
                if self._db.execute("PRAGMA user_version").fetchone()[0] == 0:
                    for statement in _TABLE.split(";"):
                        self._db.execute(statement)
                    self._db.execute(f"PRAGMA user_version = {FORMAT}")
        except sqlite3.DatabaseError as error:
            self._db.close()
            raise CorruptError(f"{path} holds no shadow's decisions ({error}); move it away to begin anew") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep everybody else from writing, and keep all that is written, or nothing."""
        with transaction(self._db):
            yield

    def add(self, rows: Sequence[ShadowRow], *, most: int = MOST) -> None:
        """Add rows inside `writing`, and let the oldest go above a number."""
        command = f"INSERT INTO shadows ({', '.join(_COLUMNS)}) VALUES ({', '.join('?' * len(_COLUMNS))})"  # noqa: S608 (own names)
        self._db.executemany(command, map(_values, rows))
        self._db.execute("DELETE FROM shadows WHERE number <= (SELECT max(number) FROM shadows) - ?", (most,))

    def erase(self, member_ids: Collection[str]) -> int:
        """Delete members' rows, and say how many there were."""
        command = "DELETE FROM shadows WHERE member_id IN (SELECT value FROM json_each(?))"
        return delete_whole(self._db, command, (json.dumps(list(member_ids)),))

    def members(self) -> Iterator[list[str]]:
        """Name whom rows are about, some at a time."""
        last, query = "", "SELECT DISTINCT member_id FROM shadows WHERE member_id > ? ORDER BY member_id LIMIT ?"
        while names := [name for (name,) in self._db.execute(query, (last, _NAMED))]:
            yield names
            last = names[-1]

    def count(self, *, before: datetime) -> int:
        """Count the rows of decisions that were taken before a time."""
        query = "SELECT count(*) FROM shadows WHERE decided_at < ?"
        return int(self._db.execute(query, (text(before),)).fetchone()[0])

    def let_go(self, *, before: datetime) -> int:
        """Delete the rows of decisions that were taken before a time, and say how many there were."""
        return delete_whole(self._db, "DELETE FROM shadows WHERE decided_at < ?", (text(before),))

    def of_members(self, member_ids: Collection[str]) -> list[ShadowRow]:
        """Read members' rows."""
        return self._rows("member_id IN (SELECT value FROM json_each(?))", json.dumps(list(member_ids)))

    def of_shadow(self, release_id: str) -> list[ShadowRow]:
        """Read what a release would have decided, in order."""
        return self._rows("shadow = ?", release_id)

    def _rows(self, where: str, *values: Any) -> list[ShadowRow]:  # noqa: ANN401 (what SQL compares)
        query = f"SELECT {', '.join(_COLUMNS)} FROM shadows WHERE {where} ORDER BY number"  # noqa: S608 (own names)
        return [_row(row) for row in self._db.execute(query, values)]


def _values(row: ShadowRow) -> tuple[Any, ...]:
    return tuple(text(value) if isinstance(value, datetime) else value for value in astuple(row))


def _row(values: Sequence[Any]) -> ShadowRow:
    told = dict(zip(_COLUMNS, values, strict=True))
    return ShadowRow(**told | {"decided_at": datetime.fromisoformat(told["decided_at"])})
