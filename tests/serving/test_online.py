"""The service over a filled online store: it says how old what it read is, and answers while Redis does not."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import timedelta

import httpx
import numpy as np
import pandas as pd
import pytest

from features.decisions import DecisionLog, read_decisions
from features.definitions import NUMBERS, VIEW, WORDS
from features.home import Home
from features.live import Live
from features.programme import Serving
from features.store import open_store
from features.stores.packed import Batch, Schema, microseconds
from serving.contract import ScoresRequest
from serving.desk import Desk
from serving.offering import Offering
from serving.world import World
from training.promotion import Verdict
from training.releases.ledger import promote

IDS = [f"m{number}" for number in range(40)]
SCHEMA = Schema(NUMBERS, WORDS)
HALF_AN_HOUR = 1800  # seconds
TWO_DAYS = timedelta(days=2)
ENGINE = '[engine]\nonline = "{}"\nonline_prefix = "{}"\nonline_timeout_ms = 250\n'


@pytest.fixture
def now(decider):
    return decider.programme.replay_from


@pytest.fixture
def filled(now):
    """Bring a snapshot of two days ago into a home's online store."""

    def filled(home):
        as_of = now - TWO_DAYS
        values = dict.fromkeys(NUMBERS, 1.0) | dict.fromkeys(WORDS, "new")
        frame = pd.DataFrame({"member_id": IDS} | {name: [value] * len(IDS) for name, value in values.items()})
        times = pd.DatetimeIndex([as_of] * len(IDS)).as_unit("us")
        home.features.mkdir(parents=True, exist_ok=True)
        frame = frame.assign(event_timestamp=times, created_timestamp=times)
        frame.to_parquet(home.snapshot(as_of))
        store = open_store(home)
        store.apply()
        store.materialize(as_of)
        return store

    return filled


def rewrite(store, member_id, event_timestamp):
    """Write what a live update writes: one member's features as of a moment after the snapshot."""
    moment = [microseconds(event_timestamp)]
    row = Batch([member_id], np.ones((1, len(NUMBERS))), [("new",) * len(WORDS)], moment, moment)
    store._table.write(VIEW, SCHEMA, [row])


@pytest.fixture(params=["sqlite", "redis"])
def home(request, tmp_path):
    if request.param == "redis":
        address = request.getfixturevalue("redis_server").address
        (tmp_path / "holdfast.toml").write_text(ENGINE.format(address, f"age{os.getpid()}"))
    return Home(tmp_path)


def test_the_age_is_that_of_each_members_own_features(home, decider, now, filled):
    store = filled(home)
    rewrite(store, "m1", now - timedelta(seconds=HALF_AN_HOUR))
    filled(home)  # again: the snapshot is older than what m1 has
    world = World(clock=lambda: now, new_id=lambda: "d", rng=np.random.default_rng(1))
    log = DecisionLog(home.decisions)
    desk = Desk(
        Offering(home, decider.release, log, now=now),
        store,
        log,
        live=Live(home, store),
        world=world,
        settings=Serving(deadline_ms=10_000),
    )
    try:
        reply = asyncio.run(desk.score(ScoresRequest(members=("m0", "m1", "nobody"), offers=None)))
    finally:
        desk.close()
    ages = [score["feature_age_seconds"] for score in json.loads(reply.body)["scores"]]
    assert ages == [2 * 86_400, HALF_AN_HOUR, None]


@contextmanager
def served(home):
    """Run `holdfast serve`."""
    command = [sys.executable, "-m", "holdfast", "serve", "--home", home.root, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        address = process.stdout.readline().rpartition(" ")[2].strip()
        with httpx.Client(base_url=address, timeout=10) as client:
            yield client
    finally:
        process.kill()
        process.communicate()


GONE = {"features_late", "features_unavailable"}  # as the deadline or the store's own time-out comes first


def decide(service):
    (one,) = service.post("/v1/decisions", json={"members": ["m1"]}).json()["decisions"]
    return one


def decided_by_the_model(service):
    """Ask until the service reads its store again."""
    until = time.perf_counter() + 10
    while time.perf_counter() < until:
        if (one := decide(service))["fallback_reason"] is None:
            return one
    raise AssertionError("the store was not read again")


def test_the_service_answers_in_time_while_redis_hangs_or_is_down_and_reads_on_after(
    tmp_path, release_root, now, filled, own_redis
):
    home = Home(tmp_path / "home")
    home.root.mkdir()
    home.settings.write_text(ENGINE.format(own_redis.address, "holdfast"))
    store = filled(home)
    shutil.copytree(release_root, home.releases / release_root.name)
    promote(home, release_root.name, expected=None, who="ada", now=now, verdict=Verdict(promote=True, said=()))
    with served(home) as service:
        first = decide(service)
        assert first["fallback_reason"] is None
        assert 2 * 86_400 <= first["feature_age_seconds"] < 2 * 86_400 + 60
        for fail, mend in ((own_redis.hang, own_redis.go_on), (own_redis.stop, own_redis.start)):
            fail()
            start = time.perf_counter()
            one = decide(service)
            assert time.perf_counter() - start < 1
            assert (one["outcome"], one["treatment"]) == ("fallback", "control")
            assert one["fallback_reason"] in GONE
            assert one["feature_age_seconds"] is None
            mend()
            if mend == own_redis.start:
                assert decide(service)["fallback_reason"] in GONE  # it lost everybody
                store.materialize(now - TWO_DAYS)
            again = decided_by_the_model(service)
            assert again["churn_probability"] == first["churn_probability"]
        assert {row["fallback_reason"] for row in read_decisions(home.decisions)} - GONE == {None}
