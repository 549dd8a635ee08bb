"""Live features on the demonstration's home: how soon a purchase counts, how many a second, and what decisions pay."""

import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path

import httpx
import pytest

from features.as_of.expression import of_members
from features.as_of.known import moment
from features.home import Home
from features.programme import read_programme
from features.snapshots import built
from features.warehouse import open_warehouse, quietly
from training.releases.ledger import champion_id

POSTS, ROWS, CALLERS, DECISIONS = 30, 500, 64, 300
numbers = count()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Copy the home, so that what is posted stays out of it."""
    place = Home(Path(os.environ.get("HOLDFAST_HOME", ".holdfast")))
    if champion_id(place) is None:
        pytest.skip(f"{place.root} holds no champion; `make demo` first")
    copy = Home(tmp_path_factory.mktemp("live") / "home")
    shutil.copytree(
        place.root, copy.root, ignore=shutil.ignore_patterns("mlartifacts", "mlflow.db", "live*", "online*")
    )
    subprocess.run([sys.executable, "-m", "holdfast", "features", "materialize", "--home", copy.root], check=True)
    return copy


@contextmanager
def serving(home):
    command = [sys.executable, "-m", "holdfast", "serve", "--home", str(home.root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            address = process.stdout.readline().split()[-1]
            with httpx.Client(base_url=address, timeout=60) as client:
                yield client
        finally:
            process.terminate()


def post(client, members, at):
    rows = [{"transaction_id": f"b{next(numbers)}", "member_id": m, "occurred_at": at, "amount": 999} for m in members]
    client.post("/v1/transactions", json={"rows": rows}).raise_for_status()


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def say(what, value):
    print(f"{what:<64} {value}")  # noqa: T201


def quantile(times, share):
    return f"{sorted(times)[int(share * len(times))] * 1e3:.1f} ms"


def bench_live(home):
    at = built(home)[-1].isoformat()
    ids = open_warehouse(home).frame("members", ["member_id"])["member_id"].tolist()
    with serving(home) as client:

        def reflect(member):
            post(client, [member], at)
            score = client.post("/v1/scores", json={"members": [member]}).json()["scores"][0]
            assert abs(score["feature_age_seconds"]) < 60

        times = [timed(partial(reflect, member)) for member in ids[:POSTS]]
        say("one purchase, posted and seen in the next score, median", quantile(times, 0.5))
        say("the slowest of them", quantile(times, 0.999))
        took = statistics.median(timed(lambda: post(client, ids[:ROWS], at)) for _ in range(3))
        say(
            f"{ROWS} purchases of {ROWS} members in one request",
            f"{took * 1e3:.0f} ms, {ROWS / took:,.0f} rows a second",
        )
        took = timed(lambda: together(client, ids, at))
        say(f"{CALLERS} callers, one purchase a request", f"{CALLERS * POSTS / took:,.0f} requests a second")
        quiet = decide(client, ids)
        with busy(client, ids, at):
            under = decide(client, ids)
        say("decision, p50 and p99, nothing posted", f"{quantile(quiet, 0.5)} {quantile(quiet, 0.99)}")
        say("decision, p50 and p99, purchases posted all the time", f"{quantile(under, 0.5)} {quantile(under, 0.99)}")
    say("the rival: the snapshot of all members computed anew", f"{whole(home) * 1e3:.0f} ms, one at a time")


def together(client, ids, at):
    """Post from several threads, each one purchase at a time."""

    def work(own):
        with httpx.Client(base_url=client.base_url, timeout=60) as mine:
            for member in own:
                post(mine, [member], at)

    threads = [threading.Thread(target=work, args=(ids[n * POSTS : (n + 1) * POSTS],)) for n in range(CALLERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def decide(client, ids):
    def ask(member):
        client.post("/v1/decisions", json={"members": [member], "campaign_id": "bench"}).raise_for_status()

    return [timed(partial(ask, member)) for member in ids[:DECISIONS]]


@contextmanager
def busy(client, ids, at):
    """Post one purchase after the other meanwhile."""
    stop = threading.Event()

    def work():
        with httpx.Client(base_url=client.base_url, timeout=60) as mine:
            while not stop.is_set():
                post(mine, [ids[next(numbers) % len(ids)]], at)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def whole(home):
    warehouse, programme = open_warehouse(home), read_programme(home.settings)
    tables = {name: warehouse.expression(name) for name in warehouse.tables}

    def compute():
        with quietly():
            of_members(tables, at=moment(built(home)[-1], programme), programme=programme).to_pyarrow()

    return statistics.median(timed(compute) for _ in range(3))
