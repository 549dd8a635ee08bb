"""What is long over leaves the outbox; what fires or waits stays, however old."""

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from features.errors import CorruptError
from features.saying import saying
from monitoring.alerts import Alert
from monitoring.outbox import Message, Outbox

NOW = datetime(2026, 3, 2, 12, tzinfo=UTC)
LATER = NOW + timedelta(days=400)


def test_only_what_is_over_or_delivered_is_let_go_of(tmp_path):
    fires, ends = (Alert(key, "drift", "warning", saying("it moved"), "moved-values") for key in ("a", "b"))
    with Outbox(tmp_path / "alerts.db") as outbox:
        with outbox.writing():
            told = {"reminder": timedelta(days=7), "conclusive": True}
            outbox.take("drift", [fires, ends], now=NOW, **told)
            outbox.take("drift", [fires], now=NOW, **told)
            outbox.post([Message(name, "t", "title", "body", NOW) for name in ("sent", "waiting")], now=NOW)
            outbox.mark(outbox.due(NOW)[0], "sent", due=NOW, failure=None)
        assert outbox.let_go(before=NOW) == 0
        assert outbox.let_go(before=LATER, rehearse=True) == 2
        assert outbox.let_go(before=LATER) == 2
        assert [alert.key for alert, *_ in outbox.firing()] == ["a"]
        assert [message.message_id for message in outbox.messages("waiting")] == ["waiting"]
        assert outbox.messages("sent") == []


def test_an_outbox_of_another_format_is_refused_with_what_to_do(tmp_path):
    with closing(sqlite3.connect(tmp_path / "alerts.db")) as other:
        other.execute("PRAGMA user_version = 1")
    with pytest.raises(CorruptError, match="format 1, not 2; move it away"):
        Outbox(tmp_path / "alerts.db")
