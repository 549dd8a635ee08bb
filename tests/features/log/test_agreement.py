"""Several logs that decide as one, against a real Postgres that stops, hangs, and holds other people's terms."""

import shutil
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from features.decisions import Answer, Erasure, Outcome, Preference, Seen, SharedLog, Traces
from features.errors import ConflictError, ContractError, StaleError
from features.log import agreement
from features.log.drain import drain
from features.log.ledger import Terms
from tests.chaos.proxy import Proxy
from tests.features.test_gaps import GONE, come, named_in

NOW = datetime(2017, 12, 1, tzinfo=UTC)
PATIENT = 10.0  # seconds: a busy machine is no fault


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(agreement, "LOOK_SECONDS", 0.02)


@pytest.fixture
def server(postgres_server):
    yield postgres_server
    postgres_server.run("DROP SCHEMA IF EXISTS holdfast_ledger CASCADE; DROP SCHEMA public CASCADE;")
    postgres_server.run("CREATE SCHEMA public")


@pytest.fixture
def opened(tmp_path):
    """What opens a log under a name, with the key that all share, and closes it in the end."""
    logs = []

    def open_(name, address, seconds=PATIENT):
        home = tmp_path / name
        home.mkdir(exist_ok=True)
        for key in {*tmp_path.glob("*/privacy.key")} if not (home / "privacy.key").exists() else ():
            shutil.copy(key, home)
        logs.append(SharedLog(home / "decisions.db", Terms(address, seconds)))
        return logs[-1]

    yield open_
    for log in logs:
        log.close()


@pytest.fixture
def two(server, opened):
    return opened("one", server.address), opened("other", server.address)


def until(true):
    """Wait for the other instance to look; what never becomes so is a failure."""
    pause, waited = threading.Event(), 0
    while not true():
        pause.wait(0.01)
        assert (waited := waited + 1) < 3_000


def answer(key, body):
    return Answer(key, "sha", 200, body)


def test_of_two_instances_that_race_for_keys_one_decides_each_and_both_answer_the_same(two, decision):
    futures = [
        log.append([decision(f"{place}-{n}")], now=NOW, answer=answer(f"k{n}", f"{place}".encode()))
        for n in range(64)
        for place, log in enumerate(two)
    ]
    standing = [future.result().body for future in futures]
    assert standing[::2] == standing[1::2]
    for log in two:
        until(
            lambda log=log: sum(log.decision(f"{place}-{n}") is not None for n in range(64) for place in (0, 1)) == 64
        )


def test_no_more_is_spent_sold_or_sent_to_one_than_one_instance_alone_would(two, decision):
    limits = Seen(spent={"c": (None, 450)}, contacted={"A": (None, 9)})

    def race(number):
        one = decision(f"d{number}", member_id=f"m{number}", campaign_id="c")
        return two[number % 2].append([one], now=NOW, seen=limits).exception()

    with ThreadPoolExecutor(16) as pool:
        refused = [*pool.map(race, range(64))]
    assert refused.count(None) == 10
    assert all(isinstance(error, StaleError) for error in refused if error)
    for log in two:
        until(lambda log=log: (log.spent("c"), log.contacted(["A"])) == (500, [10]))


def test_a_member_whom_another_instance_contacted_is_decided_about_anew(two, decision):
    one, other = two
    moment = other.moment()
    one.append([decision("d1", member_id="m1")], now=NOW).result()
    again = other.append([decision("d2", member_id="m1")], now=NOW, seen=Seen(moment, ["m1"]))
    assert isinstance(again.exception(), StaleError)
    assert {contact.decision_id for contact in other.contacts(["m1"], since=NOW)} == {"d1"}
    other.append([decision("d3", member_id="m2")], now=NOW, seen=Seen(other.moment(), ["m2"])).result()


def test_an_opt_out_at_one_instance_is_heeded_by_whatever_the_other_acknowledges_after_it(two, decision):
    one, other = two
    one.prefer(Preference("m1", personalisation=False), now=NOW).result()
    late = other.append([decision("d1", member_id="m1")], now=NOW)
    assert isinstance(late.exception(), StaleError)
    assert other.opted_out(["m1", "m2"]) == [True, False]
    other.prefer(Preference("m1", personalisation=True), now=NOW).result()
    until(lambda: one.opted_out(["m1"]) == [False])


def test_who_is_erased_at_one_instance_is_erased_at_the_other(two, decision):
    one, other = two
    said = answer("m1-key", b'{"decisions":[{"member_id":"m1"}]}')
    other.append([decision("d1", member_id="m1", idempotency_key="m1-key")], now=NOW, answer=said).result()
    other.prefer(Preference("m1", personalisation=False), now=NOW).result()
    erasure = Erasure("r", ("m1",))
    until(lambda: one.decision("d1") is not None)
    one.begin_erasure(erasure, now=NOW).result()
    one.erase(erasure, Traces(), now=NOW).result()
    until(lambda: other.decision("d1") is None)
    assert other.erased(["m1", "d1", "m2"]) == [True, True, False]
    assert other.answer("m1-key").body == b'{"decisions":[]}'
    assert other.record(Outcome("o1", "d1", None, "purchase", NOW, 5), now=NOW).result() is False


def test_nor_does_the_file_of_the_other_hold_anything_of_them(two, tmp_path):
    one, other = two
    for member_id in come():
        stored = one.prefer(Preference(member_id, personalisation=False), now=NOW)
    stored.result()
    until(lambda: all(other.opted_out(GONE)))
    erasure = Erasure("r", GONE)
    one.begin_erasure(erasure, now=NOW).result()
    one.erase(erasure, Traces(), now=NOW).result()
    until(lambda: other.erased(GONE[:1]) == [True])
    until(lambda: named_in(tmp_path / "other") == [])


def test_outcomes_prices_and_catalogues_are_those_of_all(two):
    one, other = two
    one.set_price("c", 1.5, {"A": 0.25}, now=NOW).result()
    one.record(Outcome("o1", "d1", None, "purchase", NOW, 5), now=NOW).result()
    assert other.record(Outcome("o1", "d1", None, "purchase", NOW, 5), now=NOW).result() is False
    assert isinstance(other.record(Outcome("o1", "d1", None, "visit", NOW, 5), now=NOW).exception(), ConflictError)
    assert other.price("c") == (1.5, {"A": 0.25})


def test_apart_nothing_limited_is_promised_and_the_rest_goes_on(two, server, decision):
    server.stop()
    limits = Seen(spent={"c": (None, 10**6)})
    assert two[0].append([decision("d1")], now=NOW, answer=answer("k", b"1")).result().body == b"1"
    assert two[0].apart()
    refused = two[0].append([decision("d2", campaign_id="c")], now=NOW, seen=limits)
    assert isinstance(refused.exception(), StaleError)
    two[1].append([decision("d3", campaign_id="c")], now=NOW, answer=answer("k", b"2")).result()  # nothing limits it
    two[1].prefer(Preference("m1", personalisation=False), now=NOW + timedelta(1)).result()
    two[0].prefer(Preference("m1", personalisation=True), now=NOW).result()
    server.start()
    until(lambda: not (two[0].apart() or two[1].apart()))
    until(lambda: all(log.decision(name) for log in two for name in ("d1", "d3")))
    assert [log.spent("c") for log in two] == [50, 50]
    assert [log.answer("k").body for log in two] == [b"1", b"2"]  # each stays by its word
    assert sum(log.agreement.doubled for log in two) == 1  # and it is told of
    assert [log.opted_out(["m1"]) for log in two] == [[True], [True]]  # the later wish
    two[0].append([decision("d4", member_id="m2", campaign_id="c")], now=NOW, seen=limits).result()


def test_a_postgres_that_says_nothing_costs_one_group_the_time_it_was_given(server, opened, decision):
    proxy = Proxy(server.port)
    log = opened("one", server.address.replace(f":{server.port}/", f":{proxy.port}/"), 0.2)
    until(lambda: not log.apart())
    proxy.turn("black hole")
    began = time.monotonic()
    for number in range(20):
        log.append([decision(f"d{number}")], now=NOW).result()
    assert log.apart()
    assert time.monotonic() - began < 20 * 0.2
    proxy.turn("pass")
    until(lambda: not log.apart())
    proxy.close()
    assert server.run("SELECT count(*) FROM holdfast_ledger.lines WHERE source = 'decisions'") == ["20"]


def refuses_once(log):
    """Have the disk of a log refuse the next group that the ledger has taken: as one that is killed between the two."""
    log = log._held.log

    class Full:
        written = False

        def execute(self, statement, *args):
            if statement == "COMMIT" and self.written:
                log._commits._db = db
                raise sqlite3.OperationalError("disk full")
            return db.execute(statement, *args)

        def executemany(self, *args):
            self.written = True
            return db.executemany(*args)

        def __getattr__(self, name):
            return getattr(db, name)

    db, log._commits._db = log._commits._db, Full()


def test_what_the_ledger_has_and_the_disk_refused_comes_back(two, decision):
    one, _ = two
    refuses_once(one)
    lost = one.append([decision("d1", campaign_id="c")], now=NOW, answer=answer("k", b"1"))
    assert "disk full" in str(lost.exception())
    again = one.append([decision("d2", campaign_id="c")], now=NOW, answer=answer("k", b"2"))
    assert again.result().body == b"1"
    assert (one.spent("c"), one.decision("d1")["member_id"], one.decision("d2")) == (50, "m1", None)


def test_what_was_sold_by_one_that_was_killed_before_its_disk_had_it_counts_though_another_sold_since(
    two, server, opened, decision
):
    one, other = two
    refuses_once(one)
    assert one.append([decision("d1", campaign_id="c")], now=NOW).exception()
    one.close()
    other.append([decision("d2", member_id="m2", campaign_id="c")], now=NOW).result()
    again, third = opened("one", server.address), opened("third", server.address)
    for log in (again, other, third):
        until(lambda log=log: (log.spent("c"), log.contacted(["A"])) == (100, [2]))


def test_an_instance_that_comes_later_or_again_knows_what_was_committed_without_it(two, server, opened, decision):
    two[0].append([decision("d1", campaign_id="c")], now=NOW, answer=answer("k", b"1")).result()
    two[1].close()
    two[0].append([decision("d2", campaign_id="c")], now=NOW).result()
    for name in ("other", "third"):
        log = opened(name, server.address)
        assert (log.spent("c"), log.contacted(["A"]), log.answer("k").body) == (100, [2], b"1")
        until(lambda log=log: not log.apart())


def test_what_a_log_was_drained_of_before_it_agreed_others_come_to_know(server, opened, tmp_path, decision):
    (tmp_path / "one").mkdir()
    with SharedLog(tmp_path / "one" / "decisions.db") as alone:
        alone.append([decision("d1", campaign_id="c")], now=NOW, answer=answer("k", b"1")).result()
        drain(alone, tmp_path / "one" / "decisions.db", server.address)
    opened("one", server.address)
    other = opened("other", server.address)
    until(lambda: other.decision("d1") is not None)
    assert (other.spent("c"), other.contacted(["A"]), other.answer("k").body) == (50, [1], b"1")


@pytest.mark.usefixtures("two")
def test_homes_with_another_key_another_version_or_a_copied_log_are_refused(server, opened, tmp_path):
    (tmp_path / "stranger").mkdir()
    (tmp_path / "stranger" / "privacy.key").write_bytes(b"another" * 5)
    with pytest.raises(ContractError, match=r"privacy\.key is not that of the instances"):
        opened("stranger", server.address)
    shutil.copytree(tmp_path / "one", tmp_path / "copy", ignore=shutil.ignore_patterns("*.socket", "*.lock"))
    with pytest.raises(ContractError, match="has this log's name: its home was copied"):
        opened("copy", server.address)
    server.run("UPDATE holdfast_ledger.terms SET format = 1")
    with pytest.raises(ContractError, match="has format 1, 1004 was wanted"):
        opened("third", server.address)


def test_a_line_of_a_row_that_is_gone_is_dropped_once_all_have_read_it(two, server, decision, monkeypatch):
    monkeypatch.setattr(agreement, "FORGET_SECONDS", 0.0)
    one, other = two
    one.append([decision("d1")], now=NOW, answer=answer("old", b"1")).result()
    later = NOW + timedelta(days=40)
    one.append([decision("d2", member_id="m2")], now=later, answer=answer("new", b"2")).result()
    until(lambda: other.answer("old") is None and other.answer("new") is not None)
    until(lambda: server.run("SELECT count(*) FROM holdfast_ledger.lines WHERE row IS NULL") == ["0"])
