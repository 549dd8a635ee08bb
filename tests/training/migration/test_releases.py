"""Releases, promotions and the files of runs move into object storage and back, and are found where they moved to."""

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from features.engine import Engine
from features.errors import ContractError, CorruptError
from features.home import Home
from features.migration.move import Move
from features.stores.objects import Objects
from training.artifacts import open_release, write_release
from training.migration.migration import migrate
from training.promotion import Verdict
from training.registry import save_pictures, tracked
from training.releases.ledger import champion_id, keep_up, ledger, promote

# MLflow, about its own types, when its `pyfunc` is imported
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
NOW = datetime(2017, 12, 1, tzinfo=UTC)
PICTURE = b"\x89PNG"


def clock():
    return NOW


@pytest.fixture(scope="module")
def filled(tmp_path_factory, parts):
    """A home with a champion, another release, and a run with a model and a picture; MLflow takes seconds to begin."""
    home = Home(tmp_path_factory.mktemp("moved") / "home")
    first, second = (
        write_release(home.releases, parts.manifest, parts.models, golden).release_id
        for golden in (parts.golden, parts.golden[:32])
    )
    for expected, release_id in ((None, first), (first, second)):
        verdict = Verdict(promote=True, said=())
        promote(home, release_id, expected=expected, who="ada", now=NOW, verdict=verdict)
    with tracked(home, "train") as run:
        run.tags, run.pictures = {"release_id": second}, {"uplift.png": PICTURE}
        run.models = {"churn": parts.models.boosters["churn"]}
    return SimpleNamespace(home=home, champion=second)


@pytest.fixture
def moving(filled, s3, tmp_path):
    """That home, put back as it was once the test is over."""
    home, before = filled.home, Home(tmp_path / "before")
    shutil.copytree(home.root, before.root)
    yield SimpleNamespace(home=home, champion=filled.champion, cluster=Engine(objects=s3.address), s3=s3)
    home.settings.unlink(missing_ok=True)
    for folder in (home.releases, home.artifacts):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(before.root / folder.name, folder)
    with closing(sqlite3.connect(before.tracking)) as saved, closing(sqlite3.connect(home.tracking)) as kept:
        saved.backup(kept)  # MLflow goes on with the file that it has open


def run(home, source, target):
    return {one.what: one for one in migrate(Move(home, source, target), clock=clock, progress=lambda *_: None)}


def settle(home, engine):
    home.settings.write_text(f'[engine]\nobjects = "{engine.objects}"\n')


def kept(home):
    return {path: path.read_bytes() for path in home.releases.rglob("*.json*") if path.suffix != ".lock"}


def test_all_is_there_as_it_is_here_and_another_machine_serves_from_it(moving, tmp_path):
    home = moving.home
    compared = run(home, Engine(), moving.cluster)
    assert [name for name, one in compared.items() if not one.equal] == []
    assert {name: one.there.rows for name, one in compared.items() if "files" not in name} == {
        "objects: releases": 14,
        "objects: promotions": 2,
    }
    assert compared["objects: files of runs"].there.rows > 3
    assert run(home, Engine(), moving.cluster) == compared
    settle(home, moving.cluster)
    keep_up(home)
    other = Home(tmp_path / "other")
    other.root.mkdir()
    settle(other, moving.cluster)
    keep_up(other)
    assert ledger(other) == ledger(home)
    assert open_release(other.releases, moving.champion).release_id == moving.champion


def test_mlflow_finds_the_files_where_they_moved_to_and_puts_new_ones_there(moving, tmp_path):
    home = moving.home
    run(home, Engine(), moving.cluster)
    settle(home, moving.cluster)
    shutil.rmtree(home.artifacts)
    (picture,) = save_pictures(home, moving.champion, tmp_path)
    assert picture.read_bytes() == PICTURE
    with tracked(home, "train") as again:
        again.tags, again.pictures = {"release_id": "r9"}, {"new.png": PICTURE}
    assert any(name.endswith("new.png") for name in Objects(moving.s3.address).names("mlartifacts"))
    assert not home.artifacts.exists()


def test_there_and_back_is_the_same(moving, tmp_path):
    home = moving.home
    before = kept(home)
    run(home, Engine(), moving.cluster)
    settle(home, moving.cluster)
    for folder in (home.releases, home.artifacts):
        shutil.rmtree(folder)
    assert all(one.equal for one in run(home, moving.cluster, Engine()).values())
    home.settings.unlink()
    assert kept(home) == before
    assert champion_id(home) == moving.champion
    assert [path.read_bytes() for path in save_pictures(home, moving.champion, tmp_path)] == [PICTURE]


def test_a_copy_that_was_killed_goes_on(moving, monkeypatch):
    true, written = Objects.write, []

    def dies(self, name, body):
        written.append(name)
        if len(written) == 9:
            raise KeyboardInterrupt
        true(self, name, body)

    with monkeypatch.context() as killed:
        killed.setattr(Objects, "write", dies)
        with pytest.raises(KeyboardInterrupt):
            run(moving.home, Engine(), moving.cluster)
    assert all(one.equal for one in run(moving.home, Engine(), moving.cluster).values())


def test_a_place_that_holds_something_else_is_refused_and_left_as_it_is(moving):
    objects = Objects(moving.s3.address)
    objects.write("ledger/00000001.json", b"another")
    with pytest.raises(ContractError, match="objects at s3://holdfast/programme holds 1 things"):
        run(moving.home, Engine(), moving.cluster)
    assert objects.names() == ["ledger/00000001.json"]


def test_a_release_that_is_broken_here_or_a_ledger_that_is_none_is_not_carried(moving):
    kept = (moving.home.releases / "ledger.jsonl").read_bytes()
    (moving.home.releases / "ledger.jsonl").write_bytes(kept + b"{}\n")
    with pytest.raises(CorruptError, match="no change of champion"):
        run(moving.home, Engine(), moving.cluster)
    (moving.home.releases / "ledger.jsonl").write_bytes(kept)
    (moving.home.releases / moving.champion / "churn.json").write_text("{}")
    with pytest.raises(CorruptError, match="is not the file that was released"):
        run(moving.home, Engine(), moving.cluster)
