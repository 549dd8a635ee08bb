"""What `/readyz` looks at, by the path that members take: each part fails by itself, and however many ask, once."""

import asyncio
import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from features.decisions import DecisionLog
from serving import canary
from serving.canary import DOWN, OK, WRONG, Canary
from serving.decide import FALLBACKS, UNAVAILABLE
from training.artifacts import load_release


def scored(fallback_reason):
    """What is served to somebody who was scored by a fallback."""
    return SimpleNamespace(decided=SimpleNamespace(text=json.dumps({"scores": [{"fallback_reason": fallback_reason}]})))


STRANGER, FALLEN_BACK = map(scored, ("unknown_member", FALLBACKS[UNAVAILABLE]))


class Path:
    """The path that members take: it answers as it is told to, or not at all."""

    def __init__(self):
        self.answer, self.asked = STRANGER, 0

    async def __call__(self, _):
        self.asked += 1
        return self.answer or await asyncio.Event().wait()


@pytest.fixture
def log(tmp_path):
    with DecisionLog(tmp_path / "decisions.db") as log:
        yield log


@pytest.fixture
def looked(decider, log, monkeypatch):
    """A canary, what it asks, and a look that is never too fresh."""
    monkeypatch.setattr(canary, "FRESH_SECONDS", -1.0)
    monkeypatch.setattr(canary, "PATIENCE", 0.05)
    found = SimpleNamespace(path=Path(), decider=decider)
    bird = Canary(found.path, log, lambda: found.decider, lambda: decider.programme.replay_from)
    found.looks = lambda times: asyncio.run(_looks(bird, times))
    return found


async def _looks(bird, times):
    return [await bird.look() for _ in range(times)]


def test_all_is_well(looked):
    (health,) = looked.looks(1)
    assert (health.status, health.ready, set(health.checks.values())) == ("ready", True, {OK})


@pytest.mark.parametrize("answer", [FALLEN_BACK, None], ids=["it fell back", "nothing comes"])
def test_without_features_it_is_degraded_and_still_ready(looked, answer):
    looked.path.answer = answer
    (health,) = looked.looks(1)
    assert (health.status, health.ready) == ("degraded", True)
    assert health.checks == {"store": DOWN, "log": OK, "release": OK}


def test_without_the_log_nothing_is_decided(looked, log):
    log.close()
    (health,) = looked.looks(1)
    assert (health.status, health.ready) == ("not_ready", False)
    assert health.checks == {"store": OK, "log": DOWN, "release": OK}


def test_a_release_that_scores_otherwise_than_at_first_is_no_release_to_decide_by(looked, decider, other_root):
    looked.looks(1)
    spoilt = replace(decider.release, models=load_release(other_root).models)  # memory that was overwritten, as it were
    looked.decider = SimpleNamespace(release=spoilt, catalogue=decider.catalogue)
    (health,) = looked.looks(1)
    assert (health.status, health.ready) == ("not_ready", False)
    assert health.checks == {"store": OK, "log": OK, "release": WRONG}


def test_another_release_may_score_otherwise(looked, decider, other_root):
    looked.looks(1)
    looked.decider = SimpleNamespace(release=load_release(other_root), catalogue=decider.catalogue)
    assert looked.looks(1)[0].status == "ready"


def test_however_many_ask_it_looks_once_a_second_at_most(looked, monkeypatch):
    monkeypatch.setattr(canary, "FRESH_SECONDS", 60.0)
    assert len({id(health) for health in looked.looks(20)}) == 1
    assert looked.path.asked == 1
