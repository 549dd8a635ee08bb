"""Whoever is erased from the log goes some decisions at a time, and nobody else waits for it."""

import contextlib
import threading
import time
from datetime import UTC, datetime

import pytest

from features.decisions import Answer, DecisionLog, Erasure, find_traces, read_decisions
from features.log.erasing import PIECE
from features.log.rows import open_to_read

NOW = datetime(2017, 12, 1, tzinfo=UTC)
OTHERS = 3_000


@pytest.fixture
def log(tmp_path):
    with DecisionLog(tmp_path / "decisions.db") as log:
        yield log


@contextlib.contextmanager
def busy_interpreter():
    """Compute in Python all the time, as a service does that is asked more than it can answer."""
    over = threading.Event()
    thread = threading.Thread(target=lambda: [None for _ in iter(over.is_set, True)])
    thread.start()
    yield
    over.set()
    thread.join()


def traces_of(tmp_path, *member_ids):
    with contextlib.closing(open_to_read(tmp_path / "decisions.db")) as db:
        return find_traces(db, member_ids)


def test_a_decision_does_not_wait_for_an_erasure_however_long_the_log_and_busy_the_service(log, tmp_path, decision):
    for first in range(0, OTHERS, 100):
        rows = [decision(f"d{n}", member_id=f"m{n}", context={"page": n}) for n in range(first, first + 100)]
        log.append(rows, now=NOW)
    buried = Erasure("earlier", tuple(f"gone{n}" for n in range(OTHERS)))
    log.begin_erasure(buried, now=NOW).result()
    with busy_interpreter():
        erasure = Erasure("r", ("m1",))
        log.begin_erasure(erasure, now=NOW)
        log.erase(erasure, traces_of(tmp_path, "m1"), now=NOW)
        log.end_erasure("r", {}, now=NOW)
        started = time.monotonic()
        log.append([decision("late")], now=NOW).result()
        waited = time.monotonic() - started
    assert waited < 1  # it was a row of Python for each context and tombstone: 5 s
    assert log.erased(["m1", "d1", "gone7", "m2"]) == [True, True, True, False]


def test_many_decisions_on_a_member_go_some_at_a_time(log, tmp_path, decision):
    log.append([decision(f"d{n}", member_id="m1") for n in range(2 * PIECE + 3)], now=NOW).result()
    traces = traces_of(tmp_path, "m1")
    gone = [log.erase(Erasure("r", ("m1",)), traces, now=NOW).result() for _ in range(4)]
    assert [one.get("decisions", 0) for one in gone] == [PIECE, PIECE, 3, 0]
    assert [one.get("contacts", 0) for one in gone] == [0, 0, 2 * PIECE + 3, 0]
    assert {row["member_id"][:7] for row in read_decisions(tmp_path / "decisions.db")} == {"erased-"}


def test_others_keep_no_word_on_whom_was_erased(log, tmp_path, decision):
    body = b'{"decisions":[{"member_id":"m1"},{"member_id":"m2"}]}'
    both = [decision(f"d{n}", member_id=f"m{n}", idempotency_key="for-m1") for n in (1, 2)]
    log.append(both, now=NOW, answer=Answer("for-m1", "sha", 200, body)).result()
    told = {"d3": {"referred_by": "m1"}, "d4": {"referred_by": "M1"}, "d5": {"note": 'of "m1"'}, "d6": {}}
    log.append([decision(name, member_id=name, context=context) for name, context in told.items()], now=NOW).result()
    traces = traces_of(tmp_path, "m1")
    assert (set(traces.contexts), set(traces.keys)) == ({"d3", "d5"}, {"d1", "d2"})
    log.erase(Erasure("r", ("m1",)), traces, now=NOW).result()
    rows = {row["decision_id"]: row for row in read_decisions(tmp_path / "decisions.db")}
    assert [rows[name]["context"] for name in told] == [{}, {"referred_by": "M1"}, {}, {}]
    assert rows["d2"]["idempotency_key"].startswith("erased-")
    assert log.answer("for-m1").body == b'{"decisions":[{"member_id":"m2"}]}'
