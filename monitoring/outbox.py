"""The outbox: alerts and the messages about them, on the disk before anything is sent, until every target took them.

A message is written in the transaction that changes its alerts, so that none is lost whenever the process dies; it is
marked as sent after the target took it, so that one may come twice, under one id.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final, Literal, Self, cast

from features.errors import CorruptError
from features.files import changing
from features.log.rows import text
from features.saying import Saying
from features.transaction import transaction
from monitoring.alerts import Alert, News, Severity
from monitoring.clock import SKEW, passed

State = Literal["waiting", "sent", "dead"]

FORMAT: Final = 2
_TABLES: Final = """
CREATE TABLE alerts (
  key TEXT PRIMARY KEY, source TEXT NOT NULL, severity TEXT NOT NULL, said TEXT NOT NULL, runbook TEXT NOT NULL,
  since TEXT NOT NULL, seen TEXT NOT NULL, told TEXT NOT NULL, times INTEGER NOT NULL, over TEXT
);
CREATE TABLE messages (
  number INTEGER PRIMARY KEY, message_id TEXT NOT NULL, target TEXT NOT NULL, title TEXT NOT NULL, body TEXT NOT NULL,
  written TEXT NOT NULL, due TEXT NOT NULL, attempts INTEGER NOT NULL DEFAULT 0, state TEXT NOT NULL DEFAULT 'waiting',
  failure TEXT
);
"""


@dataclass(frozen=True)
class Message:
    """Hold a message for one target; `target` is the target's fingerprint, for addresses hold secrets."""

    message_id: str
    target: str
    title: str
    body: str
    due: datetime
    number: int = 0
    written: datetime | None = None
    attempts: int = 0
    state: State = "waiting"
    failure: str | None = None


_ALERT: Final = "key, source, severity, said, runbook"
_MESSAGE: Final = tuple(field.name for field in fields(Message))


class Outbox:
    """Keep alerts and messages; one process at a time."""

    def __init__(self, path: Path) -> None:
        self._turn = contextlib.ExitStack()
        self._turn.enter_context(changing(path))
        self._db = sqlite3.connect(path, isolation_level=None)
        try:
            self._db.execute("PRAGMA synchronous = FULL")
            came = self._db.execute("PRAGMA user_version").fetchone()[0]
            if came == 0:
                self._db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {FORMAT}; COMMIT;")
        except sqlite3.DatabaseError as error:
            self.close()
            raise CorruptError(f"{path} is no outbox of alerts ({error}); move it away to begin a new one") from error
        if came not in {0, FORMAT}:
            self.close()
            raise CorruptError(f"{path} is an outbox of format {came}, not {FORMAT}; move it away to begin a new one")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()
        self._turn.close()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Keep all that is written, or nothing."""
        with transaction(self._db):
            yield

    def take(
        self, source: str, alerts: Sequence[Alert], *, now: datetime, reminder: timedelta, conclusive: bool
    ) -> list[News]:
        """Bring what a check found up to what is known, and say what is news.

        Parameters
        ----------
        conclusive : whether what fires and was not found is over
        """
        firing = {key: (datetime.fromisoformat(since), told) for key, since, told in self._firing(source)}
        news = []
        for alert in {one.key: one for one in alerts}.values():
            since, told = firing.get(alert.key, (now, None))
            if told is None:
                news.append(News(alert, "firing", since))
            elif passed(datetime.fromisoformat(told), reminder, now):
                news.append(News(alert, "reminder", since))
                told = None
            self._note(alert, since, now, told=told or text(now))
        gone = firing.keys() - {alert.key for alert in alerts} if conclusive else set()
        for key in sorted(gone):
            self._db.execute("UPDATE alerts SET over = ? WHERE key = ?", (text(now), key))
            news.append(News(self._alert(key), "resolved", firing[key][0]))
        return news

    def post(self, messages: Sequence[Message], *, now: datetime) -> None:
        """Put messages in, to be sent when they are due."""
        self._db.executemany(
            "INSERT INTO messages (message_id, target, title, body, written, due) VALUES (?, ?, ?, ?, ?, ?)",
            [(one.message_id, one.target, one.title, one.body, text(now), text(one.due)) for one in messages],
        )

    def due(self, now: datetime) -> list[Message]:
        """Give the messages that wait and may be sent, the oldest first; when one of the future is due says nothing."""
        return self._messages("state = 'waiting' AND (due <= ? OR written > ?)", text(now), text(now + SKEW))

    def messages(self, state: State) -> list[Message]:
        """Give the messages in a state."""
        return self._messages("state = ?", state)

    def mark(self, message: Message, state: State, *, due: datetime, failure: str | None) -> None:
        """Note how an attempt to send a message ended."""
        self._db.execute(
            "UPDATE messages SET state = ?, due = ?, failure = ?, attempts = attempts + 1 WHERE number = ?",
            (state, text(due), failure, message.number),
        )

    def revive(self, *, now: datetime) -> int:
        """Let dead letters wait again, as if they were written now, and count them."""
        return self._db.execute(
            "UPDATE messages SET state = 'waiting', attempts = 0, written = ?, due = ? WHERE state = 'dead'",
            (text(now), text(now)),
        ).rowcount

    def firing(self) -> list[tuple[Alert, datetime, int]]:
        """Give the alerts that fire, since when, and how often they were found, the oldest first."""
        columns = f"{_ALERT}, since, times"
        rows = self._db.execute(f"{_select(columns, 'alerts')} WHERE over IS NULL ORDER BY since").fetchall()
        return [(_read(row[:5]), datetime.fromisoformat(row[5]), row[6]) for row in rows]

    def let_go(self, *, before: datetime, rehearse: bool = False) -> int:
        """Delete messages that were sent or given up, and alerts that were over, before a time; say how many."""
        count = 0
        with self.writing():
            for table, where in (("messages", "state <> 'waiting' AND written < ?"), ("alerts", "over < ?")):
                command = "SELECT count(*)" if rehearse else "DELETE"
                found = self._db.execute(f"{command} FROM {table} WHERE {where}", (text(before),))
                count += found.fetchone()[0] if rehearse else found.rowcount
        return count

    def _firing(self, source: str) -> list[tuple[str, str, str]]:
        return self._db.execute(
            "SELECT key, since, told FROM alerts WHERE source = ? AND over IS NULL", (source,)
        ).fetchall()

    def _alert(self, key: str) -> Alert:
        return _read(self._db.execute(f"{_select(_ALERT, 'alerts')} WHERE key = ?", (key,)).fetchone())

    def _note(self, alert: Alert, since: datetime, now: datetime, *, told: str) -> None:
        said = json.dumps(asdict(alert.said))
        self._db.execute(
            "INSERT INTO alerts (key, source, severity, said, runbook, since, seen, told, times) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT (key) DO UPDATE SET severity = excluded.severity, "
            "said = excluded.said, since = excluded.since, seen = excluded.seen, told = excluded.told, "
            "times = iif(over IS NULL, times + 1, 1), over = NULL",
            (alert.key, alert.source, alert.severity, said, alert.runbook, text(since), text(now), told),
        )

    def _messages(self, where: str, *values: str) -> list[Message]:
        query = f"{_select(', '.join(_MESSAGE), 'messages')} WHERE {where} ORDER BY number"
        rows = [dict(zip(_MESSAGE, row, strict=True)) for row in self._db.execute(query, values).fetchall()]
        times = ({name: datetime.fromisoformat(row[name]) for name in ("due", "written")} for row in rows)
        return [Message(**row | told) for row, told in zip(rows, times, strict=True)]


def _read(row: Sequence[str]) -> Alert:
    key, source, severity, said, runbook = row
    return Alert(key, source, cast("Severity", severity), Saying.read(json.loads(said)), runbook)


def _select(columns: str, table: str) -> str:
    return f"SELECT {columns} FROM {table}"  # noqa: S608 (own words)
