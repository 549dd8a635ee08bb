"""Releases broken in every way that could be thought of: none serves, the one before it serves on, and nothing dies.

`HOLDFAST_CORRUPTED=10000` is the full number; `make chaos` asks for it.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pytest

from features.decisions import DecisionLog
from features.home import Home
from serving.champion import Watch
from serving.offering import Offering
from training.artifacts import load_release
from training.releases import trial

NOW = datetime(2017, 12, 1, 12, tzinfo=UTC)
NUMBER = int(os.environ.get("HOLDFAST_CORRUPTED", "150"))


def flip(rng, root):
    path = any_file(rng, root)
    body = bytearray(path.read_bytes())
    body[rng.integers(len(body))] ^= 1 << rng.integers(8)
    path.write_bytes(body)


def cut(rng, root):
    path = any_file(rng, root)
    path.write_bytes(path.read_bytes()[: rng.integers(path.stat().st_size)])


def grow(rng, root):
    with any_file(rng, root).open("ab") as file:
        file.write(rng.bytes(int(rng.integers(1, 64))))


def swap(rng, root):
    one, other = rng.choice(models(root), 2, replace=False)
    body = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(body)


def lose(rng, root):
    any_file(rng, root).unlink()


def link(rng, root):
    path = any_file(rng, root)
    path.rename(root.parent / f".{path.name}.elsewhere")
    path.symlink_to(root.parent / f".{path.name}.elsewhere")


def pipe(rng, root):
    path = any_file(rng, root)
    path.unlink()
    os.mkfifo(path)


def hollow(rng, root):
    """A file of more bytes than any may have, of which none is on the disk."""
    with any_file(rng, root).open("r+b") as file:
        file.truncate((1 << 30) + int(rng.integers(1000)))


def leave(rng, root):
    """The manifest names a file outside of its folder."""
    edit(root, lambda told: told["files"].update({"../escape.json": told["files"].pop(name_of(rng, told))}))


def lie(rng, root):
    """A number of the manifest is another; its file hashes are as they were."""
    edit(root, lambda told: told["files"][name_of(rng, told)].update(bytes=int(rng.integers(-5, 1 << 40))))


def unbound(rng, root):
    path = root / "manifest.json"
    word = rng.choice(["NaN", "Infinity", "-Infinity", "1e999"])
    path.write_text(path.read_text().replace("{", f'{{"x": {word}, ', 1))


def deepen(rng, root):
    depth = int(rng.integers(10_000, 60_000))
    (root / "manifest.json").write_text("[" * depth + "]" * depth)


def rewrite(rng, root):
    """A model's file is another, and the manifest says so: the hash is right, the id is not."""
    path = rng.choice(models(root))
    body = path.read_bytes().replace(b"1", b"2", 1 + int(rng.integers(3)))
    path.write_bytes(body)
    told = {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}
    edit(root, lambda manifest: manifest["files"].update({path.name: told}))


CORRUPTIONS = (flip, cut, grow, swap, lose, link, pipe, hollow, leave, lie, unbound, deepen, rewrite)


def any_file(rng, root):
    return rng.choice(sorted(root.iterdir()))


def models(root):
    return sorted(path for path in root.iterdir() if path.name != "manifest.json")


def name_of(rng, manifest):
    return str(rng.choice(sorted(manifest["files"])))


def edit(root, change):
    path = root / "manifest.json"
    told = json.loads(path.read_bytes())
    change(told)
    path.write_text(json.dumps(told))


@pytest.fixture
def home(tmp_path, release_root, promoted):
    home = Home(tmp_path)
    shutil.copytree(release_root, home.releases / release_root.name)
    promoted(home, release_root.name)
    return home


@pytest.fixture
def watch(home, release_root, members):
    with DecisionLog(home.decisions) as log:
        yield Watch(home, Offering(home, load_release(release_root), log, now=NOW), members, clock=lambda: NOW)


def test_no_corrupted_release_ever_serves(home, watch, other_root, promoted):
    ledger = home.releases / "ledger.jsonl"
    before, target = ledger.read_bytes(), home.releases / other_root.name
    rng, refused = np.random.default_rng(31), Counter()
    for number in range(NUMBER):
        shutil.copytree(other_root, target)
        ledger.write_bytes(before)
        promoted(home, other_root.name)
        original = {path.name: path.read_bytes() for path in target.iterdir()}
        corrupt = CORRUPTIONS[number % len(CORRUPTIONS)]
        corrupt(rng, target)
        assert changed(target, original), corrupt.__name__
        watch.look()
        assert watch._offering.upcoming is watch._offering.decider, corrupt.__name__
        assert watch.refused.release_id == other_root.name
        refused[corrupt.__name__] += 1
        shutil.rmtree(target)
    assert set(refused) == {one.__name__ for one in CORRUPTIONS}
    assert refused.total() == NUMBER
    shutil.copytree(other_root, target)  # it was the corruption, and nothing else
    ledger.write_bytes(before)
    promoted(home, other_root.name)
    watch.look()
    assert watch._offering.upcoming.release.release_id == other_root.name


def changed(root, original):
    """Say whether a folder differs from what it was; a pipe is not read."""
    found = {path.name: path for path in root.iterdir()}
    if set(found) != set(original):
        return True
    return any(
        path.is_symlink() or not path.is_file() or path.stat().st_size != len(original[name])
        or path.read_bytes() != original[name]
        for name, path in found.items()
    )  # fmt: skip


PROGRAMS = {
    "crashes": "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)",
    "hangs": "import time; time.sleep(600)",
    "fails": "raise SystemExit(1)",
}


@pytest.fixture(params=PROGRAMS)
def bad_child(request, monkeypatch):
    def run(_, **options):
        return subprocess.run([sys.executable, "-c", PROGRAMS[request.param]], **options)  # noqa: PLW1510 (it is among the options)

    monkeypatch.setattr(trial, "subprocess", SimpleNamespace(**vars(subprocess) | {"run": run}))
    monkeypatch.setattr(trial, "SECONDS", 1.0)


@pytest.mark.usefixtures("bad_child")
def test_a_release_whose_loading_kills_its_process_does_not_serve(home, watch, other_root, promoted):
    shutil.copytree(other_root, home.releases / other_root.name)
    promoted(home, other_root.name)
    watch.look()
    assert watch._offering.upcoming is watch._offering.decider
    assert watch.refused.release_id == other_root.name
