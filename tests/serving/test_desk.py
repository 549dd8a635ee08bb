"""What can't be timed from outside: requests that meet while one is being answered, and errors nobody foresaw."""

import asyncio
import threading
from contextlib import contextmanager, nullcontext

import httpx
import numpy as np
import pytest

from features.decisions import DecisionLog, read_decisions
from features.errors import UnwrittenError
from features.home import Home
from features.journal import Posted
from features.live import Live
from features.programme import Serving
from serving.app import create_app
from serving.desk import Desk
from serving.keys import Keyring
from serving.offering import Offering
from serving.world import World

KEY = {"Idempotency-Key": "k"}
BODY = {"members": ["m1"]}


class Held:
    """A feature source that waits to be let go."""

    def __init__(self, members):
        self._members, self.asked, self.go = members, threading.Event(), threading.Event()

    def online(self, member_ids, features, *, facts):
        self.asked.set()
        assert self.go.wait(timeout=10)
        return self._members.online(member_ids, features, facts=facts)


@pytest.fixture
def opened(decider, tmp_path):
    @contextmanager
    def opened(source, live=None):
        world = World(
            clock=lambda: decider.programme.replay_from,
            new_id=iter(map(str, range(100))).__next__,
            rng=np.random.default_rng(1),
        )
        log, live = DecisionLog(tmp_path / "decisions.db"), live or Live(Home(tmp_path), source)
        offering = Offering(Home(tmp_path), decider.release, log, now=world.clock())
        desk = Desk(offering, source, log, live=live, world=world, settings=Serving(deadline_ms=10_000))
        app = create_app(lambda: desk, keyring=Keyring(lambda: tmp_path / "keys.json"), now=world.clock)
        app.state.desk = desk
        try:
            yield httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")
        finally:
            desk.close()

    return opened


def test_a_key_that_is_still_being_answered_is_a_conflict_and_is_free_again_after(opened, members, tmp_path):
    held = Held(members)

    async def meet(client):
        first = asyncio.create_task(client.post("/v1/decisions", json=BODY, headers=KEY))
        await asyncio.to_thread(held.asked.wait, 10)
        same = await client.post("/v1/decisions", json=BODY, headers=KEY)
        other = await client.post("/v1/decisions", json={"members": ["m2"]}, headers=KEY)
        held.go.set()
        return await first, same, other, await client.post("/v1/decisions", json=BODY, headers=KEY)

    with opened(held) as client:
        first, same, other, after = asyncio.run(meet(client))
    assert [answer.status_code for answer in (first, same, other, after)] == [200, 409, 422, 200]
    assert same.headers["retry-after"] == "1"
    assert after.content == first.content
    assert len(read_decisions(tmp_path / "decisions.db")) == 1


def test_a_keeper_of_the_log_that_hangs_keeps_only_those_waiting_who_need_it(opened, members, monkeypatch):
    asked, go = threading.Event(), threading.Event()
    look_up = DecisionLog.answer

    def hang(log, key):
        asked.set()
        go.wait(10)
        return look_up(log, key)

    monkeypatch.setattr(DecisionLog, "keeps", False)  # as where another worker keeps it
    monkeypatch.setattr(DecisionLog, "answer", hang)

    async def meet(client):
        waits = asyncio.create_task(client.post("/v1/decisions", json=BODY, headers=KEY))
        assert await asyncio.to_thread(asked.wait, 10)
        others = [await client.get("/livez"), await client.post("/v1/decisions", json=BODY)]
        early = waits.done()
        go.set()
        return early, [one.status_code for one in (*others, await waits)]

    with opened(members) as client:
        assert asyncio.run(meet(client)) == (False, [200, 200, 200])


def test_an_error_nobody_foresaw_is_a_problem_document_and_names_no_member(
    opened, decider, members, monkeypatch, caplog
):
    def fail(*_, **__):
        raise ValueError("m1 broke it")

    monkeypatch.setattr(type(decider), "score", fail)

    async def ask(client):
        first = await client.post("/v1/decisions", json=BODY, headers=KEY)
        monkeypatch.undo()
        return first, await client.post("/v1/decisions", json=BODY, headers=KEY), await client.get("/metrics")

    with opened(members) as client:
        failed, repeated, metrics = asyncio.run(ask(client))
    assert failed.status_code == 500
    assert failed.headers["content-type"] == "application/problem+json"
    assert "ValueError at " in caplog.text
    assert "m1" not in caplog.text + failed.text
    assert repeated.status_code == 200  # the key was let go
    assert 'status="500"' in metrics.text


def test_a_source_that_fails_is_logged_without_its_message(opened, members, caplog):
    async def ask(client):
        return await client.post("/v1/decisions", json={"members": ["down"]})

    with opened(members) as client:
        assert asyncio.run(ask(client)).json()["decisions"][0]["fallback_reason"] == "features_unavailable"
    assert caplog.messages == ["features_unavailable: ConnectionError"]


class LiveTables:
    """Live features whose store can be down, and whose journal can't be written."""

    def __init__(self):
        self.owed, self.down, self.full = set(), False, False

    def tables(self):
        return frozenset({"transactions"})

    def alone(self):
        return nullcontext()

    def keep(self, posts, *, now):
        if self.full:
            raise UnwrittenError("no space")
        self.owed |= {entry.member_id for post in posts for entry in post}
        return [Posted((True,) * len(post)) for post in posts], now

    def rewrite(self, _):
        if self.down:
            raise ConnectionError(f"cannot write {self.owed}")
        self.owed, known = set(), frozenset(self.owed)
        return known

    def close(self):
        pass


EVENT = {"event_id": "e1", "member_id": "m1", "occurred_at": "2017-06-20T12:00:00Z", "kind": "view"}
PURCHASE = {"transaction_id": "t1", "member_id": "m1", "occurred_at": "2017-06-20T12:00:00Z", "amount": 1}


def test_live_rows_that_can_not_be_kept_or_not_yet_be_seen_are_answered_so_and_decisions_go_on(
    opened, members, monkeypatch, caplog
):
    live = LiveTables()
    monkeypatch.setattr("serving.intake.RETRY_SECONDS", 0.01)

    async def post(client):
        answers = []
        for live.full, live.down in ((True, False), (False, True), (False, False)):
            answers.append(await client.post("/v1/transactions", json={"rows": [PURCHASE]}))
            answers.append(await client.post("/v1/decisions", json=BODY))
        return answers

    with opened(members, live) as client:
        full, _, down, _, fine, _ = answers = asyncio.run(post(client))
    assert [answer.status_code for answer in answers] == [503, 200, 503, 200, 200, 200]
    assert "nothing was kept" in full.json()["detail"]
    assert "the rows are kept" in down.json()["detail"]
    assert fine.json()["rows"] == ["accepted"]
    assert "m1" not in caplog.text


def test_what_could_not_be_seen_is_brought_in_without_another_request(opened, members, monkeypatch):
    live, done = LiveTables(), threading.Event()
    monkeypatch.setattr("serving.intake.RETRY_SECONDS", 0.01)
    live.down, rewrite = True, live.rewrite
    live.rewrite = lambda as_of: (rewrite(as_of), not live.owed and done.set())[0]
    with opened(members, live) as client:
        asyncio.run(client.post("/v1/transactions", json={"rows": [PURCHASE]}))
        assert live.owed == {"m1"}
        done.clear()
        live.down = False
        assert done.wait(timeout=10)
    assert not live.owed


def test_a_service_without_tables_of_its_own_says_so_and_decides(opened, members):
    with opened(members) as client:
        refused = asyncio.run(client.post("/v1/events", json={"rows": [EVENT]}))
        assert asyncio.run(client.post("/v1/decisions", json=BODY)).status_code == 200
    assert (refused.status_code, refused.json()["type"]) == (503, "urn:holdfast:problem:live")
    assert "features materialize" in refused.json()["detail"]
