"""The champion is followed while the service answers: every decision is of one release, and a bad one never serves."""

import os
import shutil
import threading
from datetime import UTC, datetime

import httpx
import numpy as np
import pytest

from features.decisions import DecisionLog, read_decisions
from features.errors import CorruptError, NotFoundError
from features.home import Home
from serving.champion import Watch, open_champion
from serving.meters import Meters
from serving.offering import Offering
from training.artifacts import load_release
from training.releases.ledger import rollback

NOW = datetime(2017, 12, 1, 12, tzinfo=UTC)
SWAPS = int(os.environ.get("HOLDFAST_SWAPS", "6"))
CALLERS = 3


@pytest.fixture(scope="session")
def names(release_root, other_root):
    return release_root.name, other_root.name


@pytest.fixture
def offering(home, release_root):
    with DecisionLog(home.decisions) as log:
        yield Offering(home, load_release(release_root), log, now=NOW)


@pytest.fixture
def watch(home, offering, members):
    return Watch(home, offering, members, clock=lambda: NOW)


def break_release(home, release_id):
    (home.releases / release_id / "churn.json").write_text("{}")


def test_a_new_champion_decides_from_the_next_group_on(home, watch, promoted, names):
    watch.look()
    assert watch._offering.upcoming is watch._offering.decider
    promoted(home, names[1])
    watch.look()
    assert watch._offering.decider.release.release_id == names[0]
    assert watch._offering.upcoming.release.release_id == names[1]
    watch._offering.follow(NOW)
    assert watch._offering.decider.release.release_id == names[1]
    assert rollback(home, who="test", now=NOW) == names[0]
    watch.look()
    watch._offering.follow(NOW)
    assert watch._offering.decider.release.release_id == names[0]


def test_settings_that_change_while_a_release_waits_are_taken_up_with_it(home, watch, promoted, names):
    promoted(home, names[1])
    watch.look()
    home.settings.write_text("[campaigns.spring]\nbudget = 3000\n")
    watch._offering.follow(NOW)
    assert watch._offering.decider.release.release_id == names[1]
    assert watch._offering.decider.catalogue.campaigns["spring"].budget == 3000


def test_a_bad_release_is_refused_once_until_the_ledger_changes(home, watch, promoted, names, caplog):
    intact = (home.releases / names[1] / "churn.json").read_bytes()
    break_release(home, names[1])
    promoted(home, names[1])
    watch.look()
    watch._offering.follow(NOW)
    assert watch._offering.decider.release.release_id == names[0]
    assert watch.refused.release_id == names[1]
    assert "churn.json is not the file that was released" in watch.refused.reason
    assert f"release {names[1]} is refused, {names[0]} serves on" in caplog.text
    (home.releases / names[1] / "churn.json").write_bytes(intact)
    watch.look()
    assert watch.refused.release_id == names[1]  # the ledger is as it was
    rollback(home, who="test", now=NOW)
    watch.look()
    assert watch.refused is None
    promoted(home, names[1])
    watch.look()
    assert (watch.refused, watch._offering.upcoming.release.release_id) == (None, names[1])


def test_a_release_whose_features_the_store_lacks_is_refused(home, watch, promoted, signed, names):
    text = (home.releases / names[1] / "manifest.json").read_text().replace("recency_days", "recency_weeks")
    (home.releases / names[1] / "manifest.json").write_text(text)
    promoted(home, signed(home.releases / names[1]).name)
    watch.look()
    assert "not among the numbers that a decision reads" in watch.refused.reason
    assert watch._offering.upcoming is watch._offering.decider


def test_a_store_that_is_down_says_nothing_against_a_release(home, offering, promoted, names):
    class Down:
        def online(self, *_, **__):
            raise ConnectionError

    promoted(home, names[1])
    Watch(home, offering, Down(), clock=lambda: NOW).look()
    assert offering.upcoming.release.release_id == names[1]


def test_a_ledger_that_is_gone_or_no_ledger_changes_nothing(home, watch, caplog):
    watch.look()
    (home.releases / "ledger.jsonl").write_text("nonsense\n")
    watch.look()
    (home.releases / "ledger.jsonl").unlink()
    watch.look()
    assert watch._offering.upcoming is watch._offering.decider
    assert "the ledger can't be read" in caplog.text
    assert "the ledger is gone" in caplog.text


def test_meters_name_what_serves_and_what_is_refused(home, watch, promoted, names):
    meters = Meters()
    watch.start(meters)
    watch.stop()
    break_release(home, names[1])
    promoted(home, names[1])
    watch.look()
    text = meters.text().decode()
    assert f'holdfast_release{{release_id="{names[0]}"}} 1.0' in text
    assert f'holdfast_release_refused{{release_id="{names[1]}"}} 1.0' in text
    assert "holdfast_release_swaps_total 0.0" in text
    assert watch._offering.upcoming is watch._offering.decider


def test_a_service_starts_with_the_last_champion_that_is_whole(home, promoted, names, caplog):
    promoted(home, names[1])
    assert open_champion(home)[1] is None
    shutil.rmtree(home.releases / names[1])
    release, refused = open_champion(home)
    assert (release.release_id, refused.release_id) == (names[0], names[1])
    assert f"release {names[1]} is refused, {names[0]} serves" in caplog.text
    break_release(home, names[0])
    with pytest.raises(CorruptError, match=f"no champion is whole: .*{names[1]}"):
        open_champion(home)


def test_a_champion_that_was_taken_back_is_no_last_good_one(home, promoted, names):
    promoted(home, names[1])
    rollback(home, who="test", now=NOW)
    break_release(home, names[0])
    with pytest.raises(CorruptError, match="no champion is whole"):
        open_champion(home)


def test_nothing_serves_before_a_promotion(tmp_path):
    with pytest.raises(NotFoundError, match="nothing to serve"):
        open_champion(Home(tmp_path))


@pytest.fixture(scope="module")
def known(release_root, other_root, members):
    """What each release makes of each member, rounded as answers are."""
    ids = [f"m{i}" for i in range(40)]
    names = load_release(release_root).feature_names
    X = members.online(ids, names, facts=()).X
    found = {}
    for root in (release_root, other_root):
        scores = load_release(root).score(X)
        uplift = np.rint(scores.uplift).astype(int).tolist()
        found |= {
            (root.name, *key): value
            for key, *value in zip([(one,) for one in ids], scores.churn_probability, uplift, strict=True)
        }
    return found


class Caller(threading.Thread):
    """Ask for decisions, one call after the other, until told to stop."""

    def __init__(self, address, seed):
        super().__init__()
        self.address, self.rng, self.asking = address, np.random.default_rng(seed), threading.Event()
        self.answers, self.failures = [], []

    def run(self):
        with httpx.Client(base_url=self.address, timeout=20) as client:
            while not self.asking.is_set():
                members = [f"m{i}" for i in self.rng.choice(40, 5, replace=False)]
                answer = client.post("/v1/decisions", json={"members": members, "offers": ["A", "B"]})
                if answer.status_code == 200:
                    self.answers.append(answer.json()["decisions"])
                else:
                    self.failures.append(answer.text)


def serving(client, wanted):
    """Ask until a release serves."""
    return any(client.get("/v1/release").json()["release_id"] == wanted for _ in range(20_000))


def test_swaps_under_load_fail_no_request_and_mix_no_decision(home, start, promoted, names, known):
    with start(home.decisions) as (_, address), httpx.Client(base_url=address, timeout=20) as client:
        first = client.post("/v1/decisions", json={"members": ["m1"]}, headers={"Idempotency-Key": "first"})
        callers = [Caller(address, seed) for seed in range(CALLERS)]
        for caller in callers:
            caller.start()
        for swap in range(SWAPS):
            release_id = names[(swap + 1) % 2]
            promoted(home, release_id)
            assert serving(client, release_id)
        for caller in callers:
            caller.asking.set()
            caller.join()
        again = client.post("/v1/decisions", json={"members": ["m1"]}, headers={"Idempotency-Key": "first"})
        (decision,) = first.json()["decisions"]
        looked_up = client.get(f"/v1/decisions/{decision['decision_id']}").json()
        text = client.get("/metrics").text
    assert not [failure for caller in callers for failure in caller.failures]
    answers = [answer for caller in callers for answer in caller.answers]
    assert all(len({one["release_id"] for one in answer}) == 1 for answer in answers)
    of = {names[0]: 0, names[1]: 0}
    for one in (one for answer in answers for one in answer):
        of[one["release_id"]] += 1
        churn, uplift = known[one["release_id"], one["member_id"]]
        assert one["churn_probability"] == pytest.approx(churn, abs=1e-12)
        assert list(one["uplift"].values()) == uplift
    assert min(of.values()) > 0
    assert (again.content, again.headers["idempotency-replayed"]) == (first.content, "true")
    assert decision.items() <= looked_up.items()
    assert f"holdfast_release_swaps_total {SWAPS}.0" in text
    logged = {row["decision_id"]: row["release_id"] for row in read_decisions(home.decisions)}
    assert all(logged[one["decision_id"]] == one["release_id"] for answer in answers for one in answer)


def test_a_refused_release_is_named_while_the_one_before_it_answers(home, start, promoted, names):
    break_release(home, names[1])
    with start(home.decisions) as (_, address), httpx.Client(base_url=address, timeout=20) as client:
        promoted(home, names[1])
        release = next(
            found for _ in range(20_000) if (found := client.get("/v1/release").json())["refused"] is not None
        )
        ready = client.get("/readyz")
        (one,) = client.post("/v1/decisions", json={"members": ["m1"]}).json()["decisions"]
    assert (release["release_id"], release["refused"]["release_id"]) == (names[0], names[1])
    assert (ready.status_code, ready.json()["status"], ready.json()["refused_release"]) == (200, "ready", names[1])
    assert one["release_id"] == names[0]
