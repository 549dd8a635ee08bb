"""Workers and a batch on one log, in real processes: what no race, kill or handover may break."""

import os
import signal
import subprocess
import sys
import threading
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import numpy as np
import pyarrow as pa
import pytest

from features.decisions import SharedLog, read_decisions
from features.store import open_store
from serving.replay import replay

pytestmark = pytest.mark.long
AS_OF = datetime(2017, 12, 1, tzinfo=UTC)  # of the snapshot
BUDGET, STOCK, REST_DAYS = 6_000, 60, 7
SETTINGS = f"""
replay_from = 2017-12-01T12:00:00Z
[policy]
min_days_between_contacts = {REST_DAYS}
[campaigns.spring]
budget = {BUDGET}
[campaigns.summer]
[serving]
deadline_ms = 10000
"""


@pytest.fixture
def company(home, bring):
    """A home whose members stand online, with little of everything."""
    home.settings.write_text(SETTINGS)
    bring(stock=pa.array([STOCK, None, None], pa.int64()))
    store = open_store(home)
    store.apply()
    store.materialize(AS_OF)
    return home


@contextmanager
def served(home, workers):
    command = [sys.executable, "-m", "holdfast", "serve", "--home", home.root, "--port", "0", "--workers", str(workers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            yield process, process.stdout.readline().split()[-1]
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)


class Callers:
    """Ask for random members from several threads until told to stop; note what was answered under which key."""

    def __init__(self, address, rng, threads=6):
        self._address, self.stop = address, threading.Event()
        self.answers, self.statuses, self.enough = defaultdict(set), Counter(), threading.Event()
        self.replayed = 0
        self._pool = ThreadPoolExecutor(threads)
        self._running = [self._pool.submit(self._ask, name, one) for name, one in enumerate(rng.spawn(threads))]

    def _ask(self, name, rng):
        number = 0
        while not self.stop.is_set():
            number += 1
            members = [f"m{n:05d}" for n in rng.choice(2_000, rng.integers(1, 4), replace=False)]
            body = {"members": members, "campaign_id": "spring" if rng.random() < 0.5 else "summer"}
            headers = {"Idempotency-Key": f"{name}-{number}"}
            for _ in range(2):  # the second by another connection, so that it may meet another worker
                try:
                    with httpx.Client(base_url=self._address, timeout=30) as client:
                        answer = client.post("/v1/decisions", json=body, headers=headers)
                except httpx.TransportError:
                    self.statuses["cut"] += 1
                    continue
                self.statuses[answer.status_code] += 1
                if answer.status_code == 200:
                    self.replayed += "idempotency-replayed" in answer.headers
                    self.answers[headers["Idempotency-Key"]].add(answer.content)
            if len(self.answers) >= 80:
                self.enough.set()

    def finish(self):
        self.stop.set()
        for running in self._running:
            running.result()
        self._pool.shutdown()

    def decision_ids(self):
        return [
            one["decision_id"]
            for bodies in self.answers.values()
            for body in bodies
            for one in httpx.Response(200, content=body).json()["decisions"]
        ]


def check(home, callers):
    """Hold the log against what was promised to whoever asked, and against every limit."""
    rows = read_decisions(home.decisions)
    ids = [row["decision_id"] for row in rows]
    assert len(set(ids)) == len(ids)
    assert {len(bodies) for bodies in callers.answers.values()} == {1}
    assert set(callers.decision_ids()) <= set(ids)
    by_key = Counter(row["idempotency_key"] for row in rows if row["idempotency_key"])
    for key, (body,) in callers.answers.items():
        assert by_key[key] == len(httpx.Response(200, content=body).json()["decisions"])
    sent = [row for row in rows if row["treatment"] != "control"]
    spent = sum(cost_of(row) for row in sent if row["campaign_id"] == "spring")
    assert 0 < spent <= BUDGET
    contacts = Counter(row["treatment"] for row in sent)
    assert 0 < contacts["A"] <= STOCK
    assert max(Counter(row["member_id"] for row in sent).values()) == 1  # all within the days of rest
    with SharedLog(home.decisions) as log:
        assert (log.spent("spring"), log.contacted(["A", "B"])) == (spent, [contacts["A"], contacts["B"]])
    return rows


def cost_of(row):
    return row["cost"][row["treatments"].index(row["treatment"]) - 1]


def check_propensities(home, rows):
    """Hold what was drawn against its probabilities: a sum of independent differences, so normal by its variance."""
    for treatment in ("control", "A", "B"):
        p = np.array([row["probabilities"][row["treatments"].index(treatment)] for row in rows])
        drawn = np.array([row["treatment"] == treatment for row in rows])
        assert abs((drawn - p).sum()) < 4.5 * np.sqrt((p * (1 - p)).sum()) + 1e-9, treatment
    weights = [1 / row["propensity"] for row in rows]
    assert min(row["propensity"] for row in rows) > 0
    assert np.isfinite(weights).all()
    found = list(replay(home, rows))
    assert {name for one in found for name in one.differing} <= {"reasons"}  # batches leave them out


def test_no_limit_is_passed_by_workers_and_a_batch_together(company):
    with served(company, 3) as (process, address):
        callers = Callers(address, np.random.default_rng(1))
        callers.enough.wait(timeout=120)
        audience = ["--campaign", "spring", "--audience", "active", "--out", company.root / "out.parquet"]
        batch = [sys.executable, "-m", "holdfast", "decide", "--home", company.root, *audience]
        decided = subprocess.run(batch, check=False, capture_output=True, text=True, timeout=120)
        assert decided.returncode == 0, decided.stderr
        callers.finish()
        text = httpx.get(f"{address}/metrics", timeout=30).raise_for_status().text
        process.terminate()
        assert process.wait(timeout=60) == 0
    assert callers.statuses == {200: 2 * callers.replayed}
    rows = check(company, callers)
    assert any(row["idempotency_key"] is None for row in rows)  # of the batch
    check_propensities(company, rows)
    counted = sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith("holdfast_decisions_total"))
    assert counted == sum(row["idempotency_key"] is not None for row in rows)
    assert len({line for line in text.splitlines() if line.startswith("holdfast_log_backlog{")}) == 3


def test_a_worker_that_is_killed_is_replaced_and_nothing_acknowledged_is_lost(company):
    with served(company, 2) as (process, address):
        callers = Callers(address, np.random.default_rng(2))
        callers.enough.wait(timeout=120)
        victim = workers_of(process)[0]
        os.kill(victim, signal.SIGKILL)
        while victim in workers_of(process) or len(workers_of(process)) < 2:
            process.poll()
        callers.finish()
        process.terminate()
        assert process.wait(timeout=60) == 0
    assert set(callers.statuses) <= {200, "cut"}
    check(company, callers)


def test_when_the_keeper_is_killed_all_that_was_acknowledged_is_there_and_its_workers_end(company):
    with served(company, 2) as (process, address):
        callers = Callers(address, np.random.default_rng(3))
        callers.enough.wait(timeout=120)
        orphans = workers_of(process)
        process.kill()
        for orphan in orphans:
            wait_gone(orphan)
        callers.finish()
    assert set(callers.statuses) <= {200, 503, "cut"}
    check(company, callers)


def workers_of(process):
    children = subprocess.run(["pgrep", "-P", str(process.pid)], check=False, capture_output=True, text=True)
    return [int(pid) for pid in children.stdout.split()]


def wait_gone(pid):
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    import select

    assert select.select([handle], [], [], 60)[0], "the worker goes on without its parent"
    os.close(handle)
