import os
import signal
import sqlite3
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest

from features.decisions import (
    Answer,
    Decision,
    DecisionLog,
    Outcome,
    Preference,
    read_decisions,
    read_outcomes,
)
from features.errors import ConflictError, ContractError, CorruptError, NotFoundError, UnwrittenError
from features.log.register import Register

NOW = datetime(2017, 12, 1, tzinfo=UTC)
FEATURES = np.array([1.5, np.nan, -3.0], dtype="<f4")
WRITER = """
import itertools, sys
from pathlib import Path
from dataclasses import replace
sys.path.insert(0, sys.argv[2])
from test_decisions import NOW, decision
from features.decisions import DecisionLog

log = DecisionLog(Path(sys.argv[1]))
for number in itertools.count():
    log.append([decision(f"d{number}-{i}") for i in range(3)], now=NOW).result()
    print(number, flush=True)
"""


def decision(decision_id, **changes):
    values = {
        "decision_id": decision_id,
        "member_id": "m1",
        "campaign_id": None,
        "decided_at": NOW,
        "release_id": "r1",
        "catalogue_id": "c1",
        "outcome": "model",
        "fallback_reason": None,
        "treatment": "A",
        "propensity": 0.1 + 0.2,  # no short decimal: it has to come back to the bit
        "draw": 1 / 3,
        "treatments": ("control", "A"),
        "probabilities": (0.7, 0.1 + 0.2),
        "asked": None,
        "refusals": ("",),
        "churn_probability": 0.25,
        "value": 1200,
        "uplift": (300,),
        "cost": (50,),
        "net_value": (250,),
        "price": 0.0,
        "stock_prices": (0.0,),
        "segment": "loyal",
        "lifecycle_stage": "active",
        "reasons": ({"feature": "recency_days", "value": 3.0},),
        "features": FEATURES.tobytes(),
        "facts": {"region": "north", "personalisation": None},
        "standing": {"in_period": 1},
        "event_timestamp": NOW - timedelta(days=1),
        "source": "last_score",
        "scores": FEATURES.astype("<f8").tobytes(),
        "context": {"till": 7},
        "idempotency_key": None,
    }
    return Decision(**values | changes)


def purchase(outcome_id="o1", **changes):
    values = {"decision_id": "d1", "contact_id": None, "kind": "purchase", "occurred_at": NOW, "amount": 500}
    return Outcome(outcome_id=outcome_id, **values | changes)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "decisions.db"


@pytest.fixture
def log(path):
    with DecisionLog(path) as log:
        yield log


def test_a_decision_comes_back_as_it_was_written_to_the_bit(log, path):
    written = decision("d1")
    log.append([written], now=NOW).result()
    (row,) = read_decisions(path)
    np.testing.assert_array_equal(row.pop("features"), FEATURES)
    assert row.pop("eligible") == [True]
    for name, value in row.items():
        wanted = getattr(written, name)
        assert value == (list(wanted) if isinstance(wanted, tuple) else wanted), name
    assert row["decided_at"].tzinfo is not None


def test_what_was_acknowledged_before_kill_9_is_there_and_nothing_is_there_by_halves(path):
    here = os.path.dirname(__file__)  # noqa: PTH120 (an argument of the child)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path, here], stdout=subprocess.PIPE, text=True)
    acknowledged = [int(writer.stdout.readline()) for _ in range(50)]
    writer.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in writer.communicate()[0].split()]
    stored = {row["decision_id"] for row in read_decisions(path)}
    assert {f"d{number}-{i}" for number in acknowledged for i in range(3)} <= stored
    assert len(stored) % 3 == 0  # one transaction holds three
    with DecisionLog(path) as log:  # the lock died with its process
        log.append([decision("after")], now=NOW).result()


def test_threads_share_transactions_and_lose_nothing(log, path):
    def write(thread):
        for number in range(40):
            log.append([decision(f"{thread}-{number}")], now=NOW).result()

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(read_decisions(path)) == 8 * 40


def test_of_two_writes_with_one_key_the_first_stands_and_the_second_stores_nothing(log, path):
    first, second = (Answer("k", "sha", 200, body) for body in (b"one", b"two"))
    stored = [log.append([decision("d1")], now=NOW, answer=first), log.append([decision("d2")], now=NOW, answer=second)]
    assert [future.result() for future in stored] == [first, first]
    assert log.answer("k") == first
    assert [row["decision_id"] for row in read_decisions(path)] == ["d1"]


def test_an_answer_survives_a_restart(path):
    answer = Answer("k", "sha", 200, b"\x00\xff")
    with DecisionLog(path) as log:
        log.append([decision("d1")], now=NOW, answer=answer).result()
    with DecisionLog(path) as log:
        assert log.answer("k") == answer
        assert log.answer("other") is None


def test_answers_are_kept_for_thirty_days_and_then_let_go_a_few_at_a_time(log):
    month = timedelta(days=30)
    for number in range(10):
        key = Answer(f"k{number}", "sha", 200, b"old")
        log.append([decision(f"d{number}")], now=NOW + timedelta(days=number), answer=key).result()
    late = NOW + month + timedelta(days=7, hours=1)  # of k0 to k7 the month is over
    for number in range(2):
        kept = [log.answer(f"k{one}") is not None for one in range(10)]
        assert kept == [one >= 4 * number for one in range(10)]
        log.append([decision(f"e{number}")], now=late, answer=Answer(f"n{number}", "sha", 200, b"new")).result()
    assert [one for one in range(10) if log.answer(f"k{one}")] == [8, 9]
    assert log.answer("n0").body == b"new"


def test_an_entry_that_is_refused_leaves_the_rest_of_its_group_alone(log, path):
    log.append([decision("d1")], now=NOW).result()
    futures = [log.append([decision(name)], now=NOW) for name in ("d2", "d1", "d3")]
    assert isinstance(futures[1].exception(), sqlite3.IntegrityError)
    assert futures[0].exception() is futures[2].exception() is None
    assert {row["decision_id"] for row in read_decisions(path)} == {"d1", "d2", "d3"}


def test_the_writer_outlives_whatever_an_entry_raises(log):
    failed = log._commits.submit(lambda _: 1 / 0)
    assert isinstance(failed.exception(timeout=60), ZeroDivisionError)
    log.append([decision("d1")], now=NOW).result(timeout=60)


def test_outcomes_in_any_order_and_number_leave_the_same_log(tmp_path):
    rng = np.random.default_rng(3)
    outcomes = [purchase(f"o{i}", occurred_at=NOW + timedelta(hours=i), decision_id=f"d{i}") for i in range(12)]
    logs = []
    for name in ("a", "b"):
        with DecisionLog(tmp_path / name) as log:
            sent = [outcomes[i] for i in rng.permutation(12).tolist()] + outcomes[:4]
            futures = [log.record(outcome, now=NOW) for outcome in sent]
            assert sum(future.result() for future in futures) == 12  # True once for each
        logs.append(read_outcomes(tmp_path / name))
    assert logs[0] == logs[1]
    assert logs[0][0]["occurred_at"] == NOW


def test_an_outcome_id_can_not_change_its_meaning(log):
    log.record(purchase(), now=NOW).result()
    same_moment = purchase(occurred_at=NOW.astimezone(timezone(timedelta(hours=2))))
    assert log.record(same_moment, now=NOW + timedelta(days=1)).result() is False
    changed = log.record(purchase(amount=501), now=NOW)
    with pytest.raises(ConflictError, match="stands for another outcome"):
        changed.result()


def test_since_is_a_moment_not_a_text(log, path):
    log.append(
        [decision("old", decided_at=NOW), decision("new", decided_at=NOW + timedelta(seconds=1))], now=NOW
    ).result()
    east = (NOW + timedelta(microseconds=1)).astimezone(timezone(timedelta(hours=9)))
    assert [row["decision_id"] for row in read_decisions(path, since=east)] == ["new"]


@pytest.mark.usefixtures("log")
def test_a_second_writer_is_kept_out(path):
    with pytest.raises(ContractError, match="has a writer already"):
        DecisionLog(path)


def test_what_is_no_log_is_refused_and_left_as_it_is(path):
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(CorruptError, match="is not a decision log"):
        DecisionLog(path)
    assert path.read_bytes() == b"not a database at all" * 100


def test_a_log_of_another_format_is_refused(path):
    DecisionLog(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(CorruptError, match="format 99, 4 was wanted"):
        DecisionLog(path)


def test_reading_a_log_that_is_not_there_says_so(path):
    with pytest.raises(NotFoundError, match="no decision log"):
        read_decisions(path)


def test_a_closed_log_takes_nothing(path):
    log = DecisionLog(path)
    log.close()
    log.close()
    with pytest.raises(UnwrittenError, match="closed"):
        log.append([decision("d1")], now=NOW)


def test_closing_writes_what_waits(path):
    log = DecisionLog(path)
    futures = [log.append([decision(f"d{i}")], now=NOW) for i in range(300)]
    log.close()
    assert all(future.done() and future.exception() is None for future in futures)
    assert len(read_decisions(path)) == 300


def test_an_opt_out_counts_before_anybody_is_told_that_it_is_stored(log, monkeypatch):
    note, may = Register.prefer, threading.Event()

    def late(register, preference):
        may.wait(0.2)  # as long as whoever waits for the entry needs to go on, if it may
        note(register, preference)

    monkeypatch.setattr(Register, "prefer", late)
    log.prefer(Preference("m1", personalisation=False), now=NOW).result()
    assert log.opted_out(["m1", "m2"]) == [True, False]
    log.prefer(Preference("m1", personalisation=True), now=NOW).result()
    assert log.opted_out(["m1"]) == [False]
