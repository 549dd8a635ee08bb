"""One log and several processes: who writes, who visits, and what is left when either dies."""

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from features.decisions import Answer, Batch, Contact, DecisionLog, Outcome, Part, Seen, SharedLog, read_decisions
from features.errors import ConflictError, ContractError, HoldfastError, StaleError, UnwrittenError
from features.log import calls, shared
from features.log.keeper import socket_of

NOW = datetime(2017, 12, 1, tzinfo=UTC)
VISITOR = Path(__file__).with_name("run_log.py")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "decisions.db"


@pytest.fixture
def two(path):
    """The log as its keeper and as a visitor have it."""
    with SharedLog(path) as keeper, SharedLog(path) as visitor:
        assert (keeper.keeps, visitor.keeps) == (True, False)
        yield keeper, visitor


def run(path, name):
    """Start a process that appends decisions and says which of them are stored."""
    return subprocess.Popen([sys.executable, VISITOR, path, name], stdout=subprocess.PIPE, text=True)


def acknowledged(process):
    return process.communicate()[0].split()


def stored(path):
    return [row["decision_id"] for row in read_decisions(path)]


def test_a_visitor_writes_what_the_keeper_would(two, path, decision):
    _, visitor = two
    written = decision("d1", features=b"\x00\x00\xc0\x7f", propensity=0.1 + 0.2, context={"till": 7, "vip": True})
    assert visitor.append([written], now=NOW).result() is None
    (row,) = read_decisions(path)
    assert (row["propensity"], row["context"], row["features"].tobytes()) == (
        0.1 + 0.2,
        written.context,
        b"\0\0\xc0\x7f",
    )
    assert visitor.decision("d1")["member_id"] == "m1"
    assert visitor.decision("other") is None


def test_every_call_gives_both_the_same(two, decision):
    keeper, visitor = two
    visitor.append([decision("d1", campaign_id="c")], now=NOW).result()
    visitor.set_price("c", 0.1 + 0.2, {"A": 1 / 3}, now=NOW).result()
    visitor.keep_catalogue("cat", {"offers": [1, None, "ü"]}, now=NOW).result()
    batch = Batch("b", "c", NOW, "r1", "cat", {"price": 1.5})
    assert [log.begin_batch(batch).result() for log in two] == [True, False]
    part = Part("b", 0, "b/part-0", "0" * 64, 1)
    sent = [Contact("m2", 5, "b-0", "A")]
    for log, new in zip(two, (True, False), strict=True):
        log.reserve("b", 0, 0, sent, {("c", "A"): (1, 50)}).result()
        assert log.append_part(part, 1).result() is new
    for ask in (
        lambda log: log.price("c"),
        lambda log: log.contacts(["m1", "m2", "m3"], since=NOW - timedelta(days=20_000)),
        lambda log: log.contacted(["A", "B"]),
        lambda log: log.spent("c"),
        lambda log: log.answer("none"),
    ):
        assert ask(keeper) == ask(visitor)
    assert (visitor.spent("c"), visitor.contacted(["A"]), len(visitor.contacts(["m1", "m2"], since=NOW))) == (
        100,
        [2],
        1,
    )


def test_what_the_other_handed_in_counts_before_it_is_on_the_disk(two, decision):
    keeper, visitor = two
    held, log = threading.Event(), keeper._held.log
    log._commits.submit(lambda _: held.wait(timeout=60))  # the writer is busy
    visitor.append([decision("d1", campaign_id="c")], now=NOW)
    assert visitor.spent("c") == 50  # calls of one link are taken in their order
    assert keeper.contacts(["m1"], since=NOW)[0].decision_id == "d1"
    held.set()


def test_a_key_that_races_from_two_processes_gives_one_answer(two, path, decision):
    answers = [Answer(f"k{i}", "sha", 200, name) for i in range(50) for name in (b"one", b"two")]
    futures = [two[n % 2].append([decision(f"{n}")], now=NOW, answer=answer) for n, answer in enumerate(answers)]
    standing = [future.result().body for future in futures]
    assert standing[::2] == standing[1::2]
    assert len(stored(path)) == 50


def test_errors_come_over_as_what_they_are(two, decision):
    _, visitor = two
    outcome = Outcome("o1", "d1", None, "purchase", NOW, 500)
    assert [visitor.record(outcome, now=NOW).result() for _ in range(2)] == [True, False]
    changed = visitor.record(Outcome("o1", "d1", None, "purchase", NOW, 501), now=NOW)
    with pytest.raises(ConflictError, match="stands for another outcome"):
        changed.result()
    visitor.append([decision("d1")], now=NOW).result()
    again = visitor.append([decision("d1", member_id="secret")], now=NOW).exception()
    assert isinstance(again, HoldfastError)
    assert "IntegrityError" in str(again)


def test_threads_of_a_visitor_share_its_link(two, path, decision):
    with ThreadPoolExecutor(8) as pool:
        futures = list(pool.map(lambda n: two[1].append([decision(str(n))], now=NOW), range(400)))
    assert all(future.result() is None for future in futures)
    assert len(set(stored(path))) == 400


def test_when_the_keeper_says_goodbye_the_visitor_keeps_the_log_and_nothing_fails(path, decision):
    keeper, visitor = SharedLog(path), SharedLog(path)
    begun = threading.Event()
    with visitor, ThreadPoolExecutor(1) as pool:

        def write():
            futures = []
            for number in range(3_000):
                futures.append(visitor.append([decision(f"v{number}")], now=NOW))
                if number == 200:
                    begun.set()
            return futures

        writing = pool.submit(write)
        begun.wait(timeout=60)
        keeper.close()
        assert all(future.result(timeout=60) is None for future in writing.result(timeout=60))
        assert visitor.keeps
    assert len(set(stored(path))) == len(stored(path)) == 3_000


def test_a_socket_in_a_deep_home_is_reached_and_only_its_owner_may(tmp_path, decision):
    path = tmp_path / ("deep" * 30) / ("er" * 60) / "decisions.db"
    with SharedLog(path), SharedLog(path) as visitor:
        assert socket_of(path).stat().st_mode & 0o777 == 0o600
        visitor.append([decision("d1")], now=NOW).result()
    assert not socket_of(path).exists()


def test_a_log_whose_writer_lets_nobody_in_is_refused(path, monkeypatch):
    monkeypatch.setattr(shared, "PATIENCE", 0.1)
    with DecisionLog(path), pytest.raises(ContractError, match="lets nobody in"):
        SharedLog(path)


def test_another_version_is_refused(path, monkeypatch):
    monkeypatch.setattr("features.log.keeper.VERSION", calls.VERSION + 1)
    with SharedLog(path), pytest.raises(ContractError, match="speaks version 2, 1 was wanted"):
        SharedLog(path)


def test_a_closed_log_takes_nothing(two, decision):
    two[1].close()
    with pytest.raises(UnwrittenError, match="closed"):
        two[1].append([decision("d1")], now=NOW)


def test_the_keeper_is_killed_and_what_was_acknowledged_is_there_whoever_wrote_it(path):
    keeper = run(path, "keeper")
    first = keeper.stdout.readline().strip()
    visitors = [run(path, f"visitor{n}") for n in range(2)]
    heard = [line for visitor in visitors for line in (visitor.stdout.readline().strip() for _ in range(20))]
    keeper.send_signal(signal.SIGKILL)
    heard += [first, *acknowledged(keeper)]
    heard += [line for visitor in visitors for line in (visitor.stdout.readline().strip() for _ in range(200))]
    for visitor in visitors:
        visitor.send_signal(signal.SIGTERM)
        heard += acknowledged(visitor)
        assert visitor.returncode == 0
    there = stored(path)
    assert set(heard) <= set(there)
    assert len(there) == len(set(there))
    with SharedLog(path) as log:  # its totals are those of its decisions
        assert log.contacted(["A"]) == [len(there)]


def test_a_visitor_that_is_killed_harms_nobody(path, decision):
    with SharedLog(path) as keeper:
        visitor = run(path, "visitor")
        heard = [visitor.stdout.readline().strip() for _ in range(20)]
        visitor.send_signal(signal.SIGKILL)
        heard += acknowledged(visitor)
        keeper.append([decision("after")], now=NOW).result()
    assert {*heard, "after"} <= set(stored(path))


def test_decisions_that_rest_on_what_the_other_changed_are_refused_and_nothing_is_stored(two, path, decision):
    keeper, visitor = two
    moment = visitor.moment()
    keeper.append([decision("d1", member_id="m1", campaign_id="c")], now=NOW).result()
    grounds = (
        Seen(moment=moment, member_ids=["m1"]),
        Seen(moment=0),  # of another book
        Seen(spent={"c": (None, 49)}),
        Seen(spent={"c": (51, None)}),
        Seen(contacted={"A": (None, 0)}),
    )
    for number, seen in enumerate(grounds):
        stored_at = visitor.append([decision(f"x{number}", member_id="m1")], now=NOW, seen=seen)
        assert isinstance(stored_at.exception(), StaleError)
    fine = Seen(moment=moment, member_ids=["m2"], spent={"c": (50, 50)}, contacted={"A": (0, 1)})
    visitor.append([decision("d2", member_id="m2")], now=NOW, seen=fine).result()
    assert stored(path) == ["d1", "d2"]
    assert keeper.contacted(["A"]) == [2]


def test_what_a_batch_reserves_counts_and_is_let_go_when_it_dies(two):
    keeper, visitor = two
    sent, moment = [Contact("m1", 5, "b-0", "A")], keeper.moment()
    after = visitor.reserve("b", 0, 0, sent, {("c", "A"): (1, 50)}).result()
    assert (keeper.spent("c"), keeper.touched(["m1", "m2"], since=moment)) == (50, ["m1"])
    assert keeper.touched(["m1", "m2"], since=after) == []
    visitor.reserve("b", 0, 0, sent, {("c", "A"): (1, 60)}).result()  # the part begins anew
    assert keeper.spent("c") == 60
    visitor.close()
    assert keeper.spent("c") == 0
    assert keeper.contacts(["m1"], since=NOW - timedelta(days=20_000)) == []


def test_a_part_whose_reservations_another_keeper_had_is_not_stored(two):
    keeper, visitor = two
    keeper.begin_batch(Batch("b", "c", NOW, "r1", "cat", {})).result()
    visitor.reserve("b", 0, 0, [Contact("m1", 5, "b-0", "A")], {("c", "A"): (1, 50)}).result()
    keeper.close()
    part = Part("b", 0, "b/part-0", "0" * 64, 1)
    assert isinstance(visitor.append_part(part, 1).exception(), StaleError)
    assert (visitor.keeps, visitor.spent("c")) == (True, 0)
