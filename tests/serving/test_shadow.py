"""A shadow decides about the same members as the champion, and nobody ever waits for it."""

import asyncio
import threading
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import numpy as np
import pytest

from features.decisions import DecisionLog, Erasure, Preference, read_decisions
from features.errors import ContractError, CorruptError, NotFoundError
from features.home import Home
from features.live import Live
from features.programme import Serving
from features.shadow import ShadowFile
from serving.app import create_app
from serving.desk import Desk
from serving.keys import Keyring
from serving.offering import Offering
from serving.replay import decide_again
from serving.shadow import WAITING, Shadow
from serving.world import World
from training.artifacts import open_release
from training.releases.shadow import begin_shadow, end_shadow, shadow_id

NOW = datetime(2017, 12, 1, 12, tzinfo=UTC)
NEVER = 3_600.0  # seconds until the thread looks by itself: the tests look when they want


def untried(home, release_id):
    return open_release(home.releases, release_id)


@pytest.fixture
def beside(home, members, release_root):
    """A desk with a shadow whose thread works when it is told to, and a client of it."""

    @contextmanager
    def beside(*, tick=NEVER, open_release=untried):
        world = World(lambda: NOW, iter(map(str, range(100_000))).__next__, np.random.default_rng(1))
        log = DecisionLog(home.decisions)
        shadow = Shadow(home, log, open_release=open_release, tick=tick)
        shadow.look()
        offering = Offering(home, open_release_of(home, release_root), log, now=NOW)
        live, settings = Live(home, members), Serving(deadline_ms=10_000)
        desk = Desk(offering, members, log, live=live, world=world, settings=settings, shadow=shadow)
        app = create_app(lambda: desk, keyring=Keyring(lambda: home.keys), now=world.clock)
        app.state.desk = desk
        try:
            yield httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1"), desk, shadow
        finally:
            desk.close()

    return beside


def open_release_of(home, root):
    return open_release(home.releases, root.name)


def ask(client, *bodies):
    async def all_of_them():
        return [await client.post("/v1/decisions", json=body) for body in bodies]

    return asyncio.run(all_of_them())


def work(shadow):
    """Do what the thread does at a tick."""
    shadow.look()
    for shown in shadow._waiting():
        shadow._take(shown)


def rows_of(home, release_id):
    with ShadowFile(home.shadow) as file:
        return file.of_shadow(release_id)


def begin(home, root):
    begin_shadow(home, root.name, who="test", now=NOW)


def test_it_decides_what_it_would_have_decided_as_champion_with_the_same_draw(home, beside, other_root):
    begin(home, other_root)
    with beside() as (client, desk, shadow):
        counted = desk.meters._shadowed.labels("same")._value
        before = counted.get()  # what Feast makes the library keep by process, other tests have counted too
        answers = ask(client, *({"members": [f"m{i}", f"m{i + 1}"], "campaign_id": "c"} for i in range(0, 80, 2)))
        work(shadow)
        decider = shadow._decider
        agreed, text = counted.get() - before, desk.meters.text().decode()
    assert all(answer.status_code == 200 for answer in answers)
    logged = read_decisions(home.decisions)
    rows = {row.decision_id: row for row in rows_of(home, other_root.name)}
    assert rows.keys() == {row["decision_id"] for row in logged}
    for before, again in zip(logged, decide_again(decider, logged, "c"), strict=True):
        row, chosen = rows[before["decision_id"]], before["treatments"].index(before["treatment"])
        assert (row.treatment, row.champion) == (before["treatment"], before["release_id"])
        assert row.shadow_treatment == again.treatment
        assert row.shadow_propensity == again.probabilities[chosen]
        assert row.shadow_churn_probability == again.churn_probability
        assert row.churn_probability == before["churn_probability"]
    assert {row["release_id"] for row in logged} != {other_root.name}  # the log knows nothing of it
    same = sum(row.treatment == row.shadow_treatment for row in rows.values())
    assert all(row.churn_probability != row.shadow_churn_probability for row in rows.values())
    assert agreed == same
    assert f'holdfast_shadow{{release_id="{other_root.name}"}} 1.0' in text


def test_of_who_opted_out_is_unknown_or_has_no_features_it_is_told_nothing(home, beside, other_root):
    begin(home, other_root)
    with beside() as (client, _, shadow):
        ask(client, {"members": ["m3no", "nobody", "infinite", "m1"]})
        work(shadow)
    assert [row.member_id for row in rows_of(home, other_root.name)] == ["m1"]


def test_what_it_was_shown_of_who_opts_out_or_is_erased_meanwhile_is_not_written(home, beside, other_root):
    begin(home, other_root)
    with beside() as (client, desk, shadow):
        ask(client, {"members": ["m1", "m2", "m3"]})
        desk._log.prefer(Preference("m1", personalisation=False), now=NOW).result()
        desk._log.begin_erasure(Erasure("r", ("m2",)), now=NOW).result()
        work(shadow)
    assert [row.member_id for row in rows_of(home, other_root.name)] == ["m3"]


def test_a_shadow_that_hangs_keeps_nobody_waiting_and_what_it_misses_is_counted(home, beside, other_root, monkeypatch):
    begin(home, other_root)
    hangs, go = threading.Event(), threading.Event()

    def hang(*_):
        hangs.set()
        go.wait()
        return []

    monkeypatch.setattr(Shadow, "decide", hang)
    with beside(tick=0.001) as (client, desk, _):
        (first,) = ask(client, {"members": ["m0"]})
        assert hangs.wait(timeout=10)
        more = ask(client, *({"members": [f"m{i}"]} for i in range(WAITING + 20)))
        text = desk.meters.text().decode()
    go.set()
    assert {answer.status_code for answer in (first, *more)} == {200}
    assert len(read_decisions(home.decisions)) == WAITING + 21
    (dropped,) = (line for line in text.splitlines() if line.startswith('holdfast_shadow_decisions_total{result="dr'))
    assert float(dropped.split()[1]) >= 20 - 1


def test_a_shadow_that_fails_is_counted_and_named_without_a_member(home, beside, other_root, monkeypatch, caplog):
    begin(home, other_root)

    def fail(_, shown):
        raise ValueError(shown.decisions[0].member_id)

    monkeypatch.setattr(Shadow, "decide", fail)
    with beside() as (client, desk, shadow):
        counted = desk.meters._shadowed.labels("failed")._value
        before = counted.get()
        (answer,) = ask(client, {"members": ["m17"]})
        work(shadow)
        failed = counted.get() - before
    assert answer.status_code == 200
    assert failed == 1
    assert "the shadow failed: ValueError" in caplog.text
    assert "m17" not in caplog.text


def test_decisions_that_the_log_refused_leave_no_row(home, beside, other_root):
    begin(home, other_root)
    with beside() as (client, desk, shadow):
        desk._log._db.execute("CREATE TEMP TRIGGER full BEFORE INSERT ON decisions BEGIN SELECT RAISE(FAIL, 'no'); END")
        (answer,) = ask(client, {"members": ["m1"]})
        work(shadow)
    assert answer.status_code >= 500
    assert rows_of(home, other_root.name) == []


def test_it_comes_and_goes_while_the_service_runs_and_ends_as_champion(home, beside, other_root, promoted):
    with beside() as (client, _, shadow):
        ask(client, {"members": ["m1"]})
        begin(home, other_root)
        work(shadow)
        ask(client, {"members": ["m2"]})
        work(shadow)
        told = asyncio.run(client.get("/v1/release")).json()
        assert (told["shadow"], told["refused_shadow"]) == (other_root.name, None)
        assert end_shadow(home)
        work(shadow)
        assert shadow.release_id is None
        begin(home, other_root)
        promoted(home, other_root.name)
        work(shadow)
        assert (shadow.release_id, shadow_id(home)) == (None, None)
    assert [row.member_id for row in rows_of(home, other_root.name)] == ["m2"]


def test_a_release_that_is_not_what_was_released_is_no_shadow(home, beside, other_root):
    (home.releases / other_root.name / "churn.json").write_text("{}")
    begin(home, other_root)
    with beside() as (client, _, _):
        (answer,) = ask(client, {"members": ["m1"]})
        told = asyncio.run(client.get("/v1/release")).json()
    assert answer.status_code == 200
    assert told["shadow"] is None
    assert told["refused_shadow"]["release_id"] == other_root.name
    assert "churn.json is not the file that was released" in told["refused_shadow"]["reason"]


def test_a_release_that_wants_other_features_is_refused_once_it_is_shown_something(home, beside, signed, other_root):
    text = (home.releases / other_root.name / "manifest.json").read_text().replace("recency_days", "recency_weeks")
    (home.releases / other_root.name / "manifest.json").write_text(text)
    begin(home, signed(home.releases / other_root.name))
    with beside() as (client, _, shadow):
        (answer,) = ask(client, {"members": ["m1"]})
        work(shadow)
        assert "which lacks recency_weeks" in shadow.refused.reason
        assert shadow.release_id is None
    assert answer.status_code == 200


def test_only_another_release_that_exists_can_be_the_shadow(home, release_root, tmp_path):
    with pytest.raises(ContractError, match="is the champion"):
        begin(home, release_root)
    with pytest.raises(NotFoundError, match="there is no release 'nothing'"):
        begin_shadow(home, "nothing", who="test", now=NOW)
    with pytest.raises(NotFoundError, match="there is no champion"):
        begin_shadow(Home(tmp_path / "empty"), "nothing", who="test", now=NOW)
    assert not end_shadow(home)
    (home.releases / "shadow.json").write_text("nonsense")
    with pytest.raises(CorruptError, match="names no release"):
        shadow_id(home)


def test_no_more_rows_are_kept_than_said(home, beside, other_root):
    begin(home, other_root)
    with beside() as (client, _, shadow):
        ask(client, *({"members": [f"m{i}"]} for i in range(5)))
        work(shadow)
    rows = rows_of(home, other_root.name)
    with ShadowFile(home.shadow) as file:
        with file.writing():
            file.add(rows, most=7)
        assert [row.member_id for row in file.of_shadow(other_root.name)] == ["m3", "m4", "m0", "m1", "m2", "m3", "m4"]
        assert file.erase(["m3"]) == 2
        assert file.let_go(before=rows[0].decided_at) == 0
