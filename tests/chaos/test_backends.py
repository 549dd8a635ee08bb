"""Redis or Postgres refused, black-holed, slowed, resetting or cut off: every valid request is answered, and soon.

MLflow and whom alerts go to are away throughout: a service works from its last good copy and sends no alerts itself.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from features.decisions import read_decisions
from features.live import materialize
from features.snapshots import built
from features.store import open_store
from tests.chaos.client import Client
from tests.chaos.proxy import MODES, Proxy
from tests.serving.test_live import START
from tests.serving.test_live import home as company  # noqa: F401 (a fixture)

MEMBERS = [f"m{number}" for number in range(20)]
NOBODY = "127.0.0.1:1"
AWAY = f'[alerts]\ntargets = ["json://{NOBODY}/"]\nalertmanager = "http://{NOBODY}"\n'


@pytest.fixture(scope="module")
def redis(redis_server):
    proxy = Proxy(redis_server.port)
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def postgres(postgres_server):
    proxy = Proxy(postgres_server.port)
    proxy.address = postgres_server.address.replace(f":{postgres_server.port}/", f":{proxy.port}/")
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def connected(company, redis, postgres):  # noqa: F811 (the fixture is asked for)
    """A company whose features lie in Redis and whose log is copied to Postgres, each behind a proxy."""
    settings = company.settings.read_text()
    engine = f'[engine]\nonline = "redis://127.0.0.1:{redis.port}/0"\ndecisions = "{postgres.address}"\n'
    company.settings.write_text(settings + engine + AWAY)
    store = open_store(company)
    store.apply()
    materialize(store, built(company)[-1], now=START)
    return company


@pytest.fixture
def service(connected, redis, postgres):
    """Serve it, all proxies passing; one for each test, for one of them ends it."""
    redis.turn("pass")
    postgres.turn("pass")
    command = [sys.executable, "-m", "holdfast", "serve", "--home", str(connected.root), "--port", "0"]
    settings = os.environ | {"MLFLOW_TRACKING_URI": f"http://{NOBODY}"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, env=settings, **pipes) as process:
        process.address = process.stdout.readline().split()[-1]
        yield process
        process.kill()


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


def through_all_modes(address, proxy, count, slow):
    """Ask in every mode; give what was wrong, what is worth saying, and how often only a fallback answered."""
    wrong, notes, fallbacks = 0, [], {}
    for mode in MODES:
        proxy.turn(mode)
        times, statuses, outcomes = asyncio.run(asked(address, count, f"{id(proxy)}-{mode}"))
        wrong += count - statuses[200] + slow(times)
        notes.append(f"{mode} {1000 * np.quantile(times, 0.99):.0f} ms")
        fallbacks[mode] = outcomes["fallback"]
    proxy.turn("pass")
    return wrong, "p99: " + ", ".join(notes), fallbacks


def arrived(postgres_server):
    """Count the decisions in Postgres: none before the service has made their table."""
    if postgres_server.run("SELECT to_regclass('decisions')") == [""]:
        return 0
    return int(postgres_server.run("SELECT count(*) FROM decisions")[0])


def test_every_request_is_answered_while_mlflow_and_the_alerts_target_are_away(service, effort, tell, slow):
    count = effort(40, 1_000)
    asyncio.run(asked(service.address, 50, "warm"))
    times, statuses, outcomes = asyncio.run(asked(service.address, count, "away"))
    wrong = count - statuses[200] + slow(times)
    note = f"p99: {1000 * np.quantile(times, 0.99):.0f} ms; fallbacks {outcomes['fallback']}"
    tell("requests while MLflow and the alerts' target are away", count, wrong, note)
    assert outcomes["fallback"] == 0


def test_every_request_is_answered_whatever_redis_does(service, redis, effort, tell, slow):
    count = effort(40, 1_000)
    asyncio.run(asked(service.address, 50, "warm"))
    wrong, note, fallbacks = through_all_modes(service.address, redis, count, slow)
    assert fallbacks["refuse"] == fallbacks["black hole"] == count  # it was away
    until = time.monotonic() + 10
    while asyncio.run(asked(service.address, 5, f"again{time.monotonic()}"))[2]["fallback"]:
        assert time.monotonic() < until, "it does not come back"
    tell("requests while Redis is away, by mode", count * len(MODES), wrong, f"{note}; fallbacks {fallbacks}")


def test_every_request_is_answered_whatever_postgres_does_and_all_of_it_arrives(  # noqa: PLR0917
    service,
    company,  # noqa: F811 (the fixture is asked for)
    postgres,
    postgres_server,
    effort,
    tell,
    slow,
):
    count = effort(40, 1_000)
    wrong, note, _ = through_all_modes(service.address, postgres, count, slow)
    logged = len(read_decisions(company.decisions))
    until = time.monotonic() + 100  # the drain waits longer after each failure
    while arrived(postgres_server) < logged:
        assert time.monotonic() < until, "what was decided does not arrive"
    tell("requests while Postgres is away, by mode", count * len(MODES), wrong, f"{note}; {logged:,} arrived")


def test_a_service_ends_when_told_to_though_postgres_hangs(service, postgres):
    postgres.turn("black hole")
    asyncio.run(asked(service.address, 20, "last"))
    assert postgres.swallowed.wait(30)  # the drain has begun, and hears nothing
    service.terminate()
    assert service.wait(timeout=30) == 0
