"""A verdict that starts a training: when it does, that one process does, and that it promotes only where told to."""

import fcntl
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from features.home import Home
from features.programme import Cure, Programme
from features.saying import saying
from monitoring import cure
from monitoring.alerts import alerts_of
from monitoring.cure import start_cure
from tests.training.test_train import made, shop
from training.promotion import Verdict
from training.releases import names
from training.releases.ledger import champion_id
from training.releases.manifest import read_manifest

NOW = datetime(2025, 3, 3, 6, tzinfo=UTC)
ON = Programme(cure=Cure(train=True))


def quiet(*_):
    """Show no progress."""


@pytest.fixture
def gate(monkeypatch):
    """Train nothing, and judge as told; what was asked for is kept."""
    told = SimpleNamespace(passes=True, trained=[], promoted=[])

    def judged(*_, **__):
        said = (saying("for: money"),) if told.passes else (saying("against: it earns less"),)
        return Verdict(promote=told.passes, said=said), "r1"

    monkeypatch.setattr(
        cure, "train", lambda _, *, name, **__: told.trained.append(name) or (SimpleNamespace(release_id="r1"), True)
    )
    monkeypatch.setattr(cure, "judge_release", judged)
    monkeypatch.setattr(cure, "promote_release", lambda *_, who, **__: told.promoted.append(who) or judged())
    return told


def started(home, status="drift", programme=ON, now=NOW):
    return start_cure(home, status, programme, now=now, progress=quiet)


def test_drift_trains_a_challenger_and_people_promote_it(tmp_path, gate):
    found = started(Home(tmp_path))
    assert (found.passed, found.promoted, gate.promoted) == (True, False, [])
    assert gate.trained == ["cure-20250303"]
    assert "holdfast promote r1" in found.sentence
    (alert,) = alerts_of(found.findings, "cure", ON)
    assert (alert.sentence, alert.runbook) == (found.sentence, "cure")


def test_it_promotes_by_itself_only_where_it_is_told_to(tmp_path, gate):
    programme = Programme(cure=Cure(train=True, promote=True))
    found = started(Home(tmp_path / "one"), programme=programme)
    assert (found.promoted, gate.promoted) == (True, ["monitoring"])
    gate.passes = False
    refused = started(Home(tmp_path / "two"), programme=programme)
    assert not refused.promoted
    assert "refuses it: against: it earns less" in refused.sentence


@pytest.mark.parametrize("status", ["broken_data", "insufficient_data", "no_drift"])
def test_nothing_is_learned_from_broken_or_too_few_data(tmp_path, gate, status):
    assert status in started(Home(tmp_path), status)
    assert gate.trained == []


def test_it_is_off_unless_it_is_set(tmp_path, gate):
    assert "train is off" in started(Home(tmp_path), programme=Programme())
    assert gate.trained == []


def test_no_second_training_within_the_cool_down_though_the_first_failed(tmp_path, gate, monkeypatch):
    def fails(*_, **__):
        raise MemoryError

    home = Home(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(cure, "train", fails)
        with pytest.raises(MemoryError):
            started(home)
    assert "none before 2025-03-10" in started(home, now=NOW + timedelta(days=6))
    assert gate.trained == []
    assert started(home, now=NOW + timedelta(days=7)).passed


def test_of_two_processes_one_trains(tmp_path, gate):
    home = Home(tmp_path)
    with (tmp_path / "cure.json.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert started(home) == "another process is at it"
    assert gate.trained == []


@pytest.mark.usefixtures("few_rounds")
@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
def test_a_challenger_is_a_release_like_every_other(tmp_path):
    home = made(Home(tmp_path), shop())
    found = started(home)
    assert names.resolve(home, "cure-20250303") == found.release_id
    assert read_manifest(home.releases / found.release_id).release_id == found.release_id
    assert champion_id(home) is None  # nobody promoted it
