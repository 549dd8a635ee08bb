"""The log's copy in Postgres, against a real server that the tests stop for a while."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from features.decisions import Answer, Batch, Contact, Outcome, Part, Preference, SharedLog
from features.errors import UnavailableError
from features.log import drain as draining
from features.log.drain import backlog, drain

NOW = datetime(2017, 12, 1, tzinfo=UTC)
ENTRIES = ("decisions", "outcomes", "answers", "contacts")


@pytest.fixture
def server(postgres_server):
    yield postgres_server
    postgres_server.run("DROP SCHEMA public CASCADE; CREATE SCHEMA public;")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "decisions.db"


@pytest.fixture
def log(path):
    with SharedLog(path) as log:
        yield log


def fill(log, decision, first, count):
    futures = []
    for number in range(first, first + count):
        at = NOW + timedelta(days=number % 90)
        one = decision(f"d{number}", member_id=f"m{number}", decided_at=at, context={"word": "a\0\\u0000'", "n": 1})
        futures.append(log.append([one], now=NOW, answer=Answer(f"k{number}", "sha", 200, b"\x00\xff")))
        futures.append(log.record(Outcome(f"o{number}", f"d{number}", None, "purchase", at, number), now=at))
    for future in futures:
        future.result()


def counts(server, tables=ENTRIES):
    return [int(server.run(f"SELECT count(*) FROM {table}")[0]) for table in tables]  # noqa: S608 (own names)


def test_what_is_stored_is_carried_over_as_it_is_by_month(log, path, server, decision):
    fill(log, decision, 0, 100)  # before anybody follows
    log.begin_batch(Batch("b", "c", NOW, "r1", "cat", {"price": 1.5})).result()
    log.reserve("b", 0, 0, [Contact("m1", 1_512_086_400_000_001, "b-0", "A")], {("c", "A"): (1, 50)}).result()
    log.append_part(Part("b", 0, "b/part-0", "0" * 64, 1), 1).result()
    log.prefer(Preference("m1", personalisation=False), now=NOW).result()
    log.set_price("c", 1.5, {"A": 0.25}, now=NOW).result()
    log.keep_catalogue("cat", {"offers": []}, now=NOW).result()
    assert drain(log, path, server.address) == 100 * 4 + 8
    assert counts(server, (*ENTRIES, "batches", "parts")) == [100, 100, 100, 101, 1, 1]
    assert counts(server, ("spending", "preferences", "prices", "catalogues")) == [2, 1, 1, 1]
    asked = "SELECT propensity, decided_at AT TIME ZONE 'UTC', treatments->>1, context->>'n' FROM decisions"
    assert server.run(f"{asked} WHERE decision_id = 'd1'") == ["0.3|2017-12-02 00:00:00|A|1"]
    asked = (
        "SELECT body, expires FROM (SELECT body, created_at + interval '30 days' AS expires FROM answers) AS a LIMIT 1"
    )
    assert server.run(asked)[0].startswith("\\x00ff|")
    assert server.run("SELECT contacted_at AT TIME ZONE 'UTC' FROM contacts WHERE decision_id = 'b-0'") == [
        "2017-12-01 00:00:00.000001"
    ]
    months = "SELECT inhrelid::regclass FROM pg_inherits WHERE inhparent = 'decisions'::regclass ORDER BY 1"
    assert server.run(months) == ["decisions_2017_12", "decisions_2018_01", "decisions_2018_02"]
    assert (drain(log, path, server.address), backlog(path)) == (0, 0)


def test_what_changes_or_goes_here_does_so_there(log, path, server, decision):
    fill(log, decision, 0, 3)
    drain(log, path, server.address)
    log._held.log._commits.submit(lambda db: db.execute("DELETE FROM outcomes WHERE outcome_id = 'o0'")).result()
    update = "UPDATE decisions SET decision_id = 'erased-1', member_id = 'erased-2' WHERE decision_id = 'd1'"
    log._held.log._commits.submit(lambda db: db.execute(update)).result()
    drain(log, path, server.address)
    assert server.run("SELECT decision_id, member_id FROM decisions ORDER BY 1") == [
        "d0|m0",
        "d2|m2",
        "erased-1|erased-2",
    ]
    assert server.run("SELECT outcome_id FROM outcomes ORDER BY 1") == ["o1", "o2"]


def test_a_drain_that_dies_before_it_can_say_so_carries_the_same_again_and_doubles_nothing(log, path, server, decision):
    fill(log, decision, 0, 50)

    class Dying:
        follow = log.follow

        def drained(self, _):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        drain(Dying(), path, server.address)
    assert counts(server)[0] == 50
    assert drain(log, path, server.address) == 200 + 1  # and what they cost
    assert counts(server) == [50, 50, 50, 50]


def test_a_postgres_that_hangs_amid_a_statement_holds_up_no_end(path, monkeypatch):
    begun, answer = threading.Event(), threading.Event()

    def hang(*_):
        begun.set()
        answer.wait()

    monkeypatch.setattr(draining, "FAREWELL_SECONDS", 0.01)
    monkeypatch.setattr(draining, "drain", hang)
    hung = draining.Drain(None, path, "nowhere")
    assert begun.wait(30)
    closing = threading.Thread(target=hung.close, daemon=True)
    closing.start()
    closing.join(30)
    ended = not closing.is_alive()
    answer.set()
    assert ended


def test_postgres_may_stop_under_load_and_nothing_is_lost_or_doubled(path, server, decision, monkeypatch):
    monkeypatch.setattr(draining, "LONGEST_WAIT", 0.2)
    monkeypatch.setattr(draining, "LOOK_SECONDS", 0.01)
    waits = threading.Event()
    monkeypatch.setattr(draining, "backlog", lambda path: (backlog(path), waits.set())[0])  # asked where it has to wait
    with SharedLog(path) as log:
        fill(log, decision, 0, 100)
        log.drain_to(server.address)
        for turn in range(1, 4):
            server.stop()
            waits.clear()
            fill(log, decision, 100 * turn, 100)  # every entry is acknowledged meanwhile
            assert waits.wait(timeout=60)
            assert log.undrained > 0
            server.start()
    with SharedLog(path) as log:
        drain(log, path, server.address)
    assert counts(server) == [400, 400, 400, 400]
    assert server.run("SELECT count(DISTINCT decision_id) FROM decisions") == ["400"]


def test_two_drains_at_once_double_nothing(log, path, server, decision):
    fill(log, decision, 0, 200)
    log.follow().result()
    threads = [threading.Thread(target=drain, args=(log, path, server.address)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts(server) == [200, 200, 200, 200]


def test_an_address_that_answers_nothing_is_told_without_its_password(log, path):
    with pytest.raises(UnavailableError, match="does not take") as caught:
        drain(log, path, "postgresql://shop:open-sesame@127.0.0.1:1/postgres")
    assert "open-sesame" not in str(caught.value)
