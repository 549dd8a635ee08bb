"""Benchmarks: each figure beside its rival in the same run, as a ratio, since machines differ and are noisy.

Run by `make bench`, after `make demo` has filled `.holdfast`.
"""

import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from features.definitions import DECISION, MODEL_FEATURES
from features.home import Home
from features.store import open_store
from training.artifacts import load_release
from training.releases.ledger import champion_id

ROUNDS = 7


@pytest.fixture(scope="module")
def home():
    place = Home(Path(os.environ.get("HOLDFAST_HOME", ".holdfast")))
    if champion_id(place) is None:
        pytest.skip(f"{place.root} holds no champion; `make demo` first")
    return place


def seconds(work, rounds=ROUNDS):
    work()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def show(what, ours, rival, name):
    print(f"{what:<44} {ours * 1e3:10.2f} ms {rival * 1e3:10.2f} ms  {rival / ours:6.2f} x  against {name}")  # noqa: T201


@pytest.mark.parametrize("n", [1, 10, 100, 1000])
def bench_online_read(home, n):
    store = open_store(home)
    ids = [str(member) for member in range(1, n + 1)]
    service = store.feast.get_feature_service(DECISION)
    rows = [{"member_id": member} for member in ids]
    ours = seconds(lambda: store.online(ids, MODEL_FEATURES))
    rival = seconds(lambda: store.feast.get_online_features(service, rows).to_df())
    show(f"online features of {n} members", ours, rival, "get_online_features().to_df()")


def bench_score(home):
    release = load_release(home.releases / champion_id(home))
    frame = pq.read_table(next(home.features.glob("*.parquet"))).to_pandas()
    X = frame[list(release.feature_names)].to_numpy(dtype=np.float32)
    ours = seconds(lambda: release.score(X))
    rival = seconds(lambda: [release.score(X[i : i + 1]) for i in range(len(X))], 3)
    show(f"churn, value and uplift of {len(X):,} members", ours, rival, "one call per member")


def bench_decisions(home):
    """Decisions over HTTP, one member a call and a hundred a call, one connection."""
    command = [sys.executable, "-m", "holdfast", "serve", "--home", str(home.root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().split()[-1]
        with httpx.Client(base_url=address, timeout=30) as client:

            def ask(members):
                client.post("/v1/decisions", json={"members": members, "campaign_id": "bench"}).raise_for_status()

            one = seconds(lambda: [ask(["1"]) for _ in range(50)]) / 50
            hundred = seconds(lambda: ask([str(member) for member in range(1, 101)]))
        process.terminate()
    show("100 durable decisions over HTTP, one call", hundred, one * 100, "100 calls of one")
