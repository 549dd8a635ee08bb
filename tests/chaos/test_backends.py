"""Redis refused, black-holed, slowed, resetting or cut off: every valid request is answered, and soon."""

import asyncio
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from features.live import materialize
from features.snapshots import built
from features.store import open_store
from tests.chaos.client import Client
from tests.chaos.proxy import MODES, Proxy
from tests.serving.test_live import START
from tests.serving.test_live import home as company  # noqa: F401 (a fixture)

MEMBERS = [f"m{number}" for number in range(20)]


@pytest.fixture(scope="module")
def proxy(redis_server):
    proxy = Proxy(redis_server.port)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def address(company, proxy):  # noqa: F811 (the fixture is asked for)
    """Serve a company whose features lie in Redis, behind the proxy."""
    settings = company.settings.read_text()
    company.settings.write_text(f'{settings}[engine]\nonline = "redis://127.0.0.1:{proxy.port}/0"\n')
    store = open_store(company)
    store.apply()
    materialize(store, built(company)[-1], now=START)
    command = [sys.executable, "-m", "holdfast", "serve", "--home", str(company.root), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


async def asked(address, count, name):
    """Ask one after the other, as a till does; give the times, the statuses and what decided."""
    client, times, statuses, outcomes = Client(address), [], Counter(), Counter()
    for number in range(count):
        started = time.perf_counter()
        body = {"members": [MEMBERS[number % len(MEMBERS)]]}
        answer = await client.ask("POST", "/v1/decisions", body, Idempotency_Key=f"{name}-{number}")
        times.append(time.perf_counter() - started)
        statuses[answer.status] += 1
        if answer.status == 200:
            outcomes[answer.json()["decisions"][0]["outcome"]] += 1
    client.close()
    return times, statuses, outcomes


def test_every_request_is_answered_whatever_redis_does(address, proxy, effort, tell, hang):
    count, wrong, notes = effort(40, 1_000), 0, []
    asyncio.run(asked(address, 50, "warm"))
    for mode in MODES:
        proxy.turn(mode)
        times, statuses, outcomes = asyncio.run(asked(address, count, mode))
        wrong += count - statuses[200] + sum(took > hang for took in times)
        notes.append(f"{mode} {1000 * np.quantile(times, 0.99):.0f} ms, {outcomes['fallback']} fallbacks")
        if mode == "refuse":
            assert outcomes["fallback"] == count  # it did refuse
    proxy.turn("pass")
    until = time.monotonic() + 10
    while asyncio.run(asked(address, 5, f"again{time.monotonic()}"))[2]["fallback"]:
        assert time.monotonic() < until, "it does not come back"
    tell("requests while Redis is away, by mode", count * len(MODES), wrong, "p99 by mode: " + "; ".join(notes))
