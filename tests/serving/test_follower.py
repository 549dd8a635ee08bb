"""A service follows what another machine promotes, through object storage; whatever is wrong there, it serves on."""

import shutil
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from features.decisions import DecisionLog
from features.errors import NotFoundError
from features.home import Home
from features.stores.objects import Objects
from serving import champion
from serving.champion import Watch, open_champion
from serving.follower import Follower
from serving.meters import Meters
from serving.offering import Offering
from serving.shadow.keeper import Shadow
from training.releases.ledger import keep_up, ledger, rollback
from training.releases.shadow import begin_shadow
from training.releases.shelf import put

NOW = datetime(2017, 12, 1, 12, tzinfo=UTC)


@pytest.fixture
def trainer(s3, tmp_path, release_root, other_root, promoted):
    """The home where releases are trained and promoted, of which the first is champion."""
    home = Home(tmp_path / "trainer")
    for root in (release_root, other_root):
        shutil.copytree(root, home.releases / root.name)
    home.settings.write_text(f'[engine]\nobjects = "{s3.address}"\n')

    def crown(release_id):
        put(home, release_id)
        promoted(home, release_id)

    crown(release_root.name)
    return SimpleNamespace(home=home, crown=crown, first=release_root.name, second=other_root.name, s3=s3)


@pytest.fixture
def home(trainer, tmp_path):
    """Another machine's home, in which nothing is but the settings."""
    home = Home(tmp_path / "server")
    home.root.mkdir()
    shutil.copyfile(trainer.home.settings, home.settings)
    return home


@pytest.fixture
def watch(home, members):
    keep_up(home)
    release, _ = open_champion(home)
    with DecisionLog(home.decisions) as log:
        offering = Offering(home, release, log, now=NOW)
        yield Watch(home, offering, members, clock=lambda: NOW, follower=Follower(home))


def serves(watch):
    watch._offering.follow(NOW)
    return watch._offering.decider.release.release_id


def test_what_another_machine_promotes_or_takes_back_serves_here(watch, trainer):
    assert serves(watch) == trainer.first
    trainer.crown(trainer.second)
    watch._follower.ask()
    watch.look()
    assert serves(watch) == trainer.second
    rollback(trainer.home, who="ada", now=NOW)
    watch._follower.ask()
    watch.look()
    assert serves(watch) == trainer.first


def test_a_release_that_is_not_what_was_promoted_is_refused_until_it_is_mended(watch, trainer, promoted, monkeypatch):
    monkeypatch.setattr(champion, "AGAIN", 0.0)
    objects, churn = Objects(trainer.s3.address), f"releases/{trainer.second}/churn.json"
    put(trainer.home, trainer.second)
    objects.write(churn, b"{}")
    promoted(trainer.home, trainer.second)
    watch._follower.ask()
    watch.look()
    assert serves(watch) == trainer.first
    assert watch.refused.release_id == trainer.second
    assert f"{trainer.s3.address}/{churn} is not the file that was released" in watch.refused.reason
    objects.write(churn, (trainer.home.releases / trainer.second / "churn.json").read_bytes())
    watch.look()
    assert (serves(watch), watch.refused) == (trainer.second, None)


def test_a_champion_whose_upload_is_not_whole_is_waited_for(watch, trainer, promoted):
    promoted(trainer.home, trainer.second)  # and nobody put it there
    watch._follower.ask()
    watch.look()
    assert serves(watch) == trainer.first
    assert "there is no release" in watch.refused.reason


def test_storage_that_is_away_is_said_once_and_counted_and_heard_again(watch, trainer, caplog):
    meters, follower = Meters(), watch._follower
    follower._meters = meters
    trainer.crown(trainer.second)
    trainer.s3.away()
    for _ in range(3):
        follower.ask()
        watch.look()
    assert serves(watch) == trainer.first
    assert caplog.text.count("promotions elsewhere are not heard of: objects at s3://holdfast/programme") == 1
    assert "holdfast_objects_away 1.0" in meters.text().decode()
    trainer.s3.back()
    follower.ask()
    watch.look()
    assert serves(watch) == trainer.second
    assert "promotions elsewhere are heard of again" in caplog.text
    assert "holdfast_objects_away 0.0" in meters.text().decode()


def test_nonsense_in_the_storage_changes_nothing_of_what_serves(watch, trainer, caplog):
    Objects(trainer.s3.address).write("ledger/00000002.json", b"nonsense")
    watch._follower.ask()
    watch.look()
    assert serves(watch) == trainer.first
    assert "no change of champion" in caplog.text


def test_a_start_without_the_storage_serves_the_copy_or_says_that_there_is_none(watch, home, trainer, tmp_path, caplog):
    trainer.s3.away()
    keep_up(home)
    assert open_champion(home)[0].release_id == serves(watch) == trainer.first
    assert "this home goes on with what it has" in caplog.text
    new = Home(tmp_path / "new")
    new.root.mkdir()
    shutil.copyfile(home.settings, new.settings)
    keep_up(new)
    with pytest.raises(NotFoundError, match="nothing to serve"):
        open_champion(new)


def test_the_thread_asks_and_stops(watch, trainer):
    follower = Follower(watch._home, interval=0.01)
    trainer.crown(trainer.second)
    follower.start(Meters())
    while len(ledger(watch._home)) < 2:
        assert follower._thread.is_alive()
    follower.stop()
    assert not follower._thread.is_alive()


def test_a_shadow_that_another_machine_names_decides_here(watch, home, trainer, hasty):
    begin_shadow(trainer.home, trainer.second, who="ada", now=NOW)
    watch._follower.ask()
    shadow = Shadow(home, command=hasty)
    try:
        while not (shadow.release_id or shadow.refused):
            shadow.look()
            shadow.listen()
        assert (shadow.release_id, shadow.refused) == (trainer.second, None)
    finally:
        shadow.stop()
        shadow._work()
