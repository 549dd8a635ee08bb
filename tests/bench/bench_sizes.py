"""What one member and one decision take up in each store: what the sizing page's arithmetic begins with."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from features.decisions import Answer, SharedLog
from features.engine import Engine
from features.home import Home
from features.log.drain import drain
from features.store import open_store
from tests.bench.bench_store import AS_OF, snapshot

MEMBERS, DECISIONS = 50_000, 20_000
FEATURES, OFFERS = 110, 5
NOW = datetime(2018, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("sizes"))
    snapshot(home, MEMBERS, np.random.default_rng(0))
    return home


def fill(home, engine):
    store = open_store(home, engine)
    store.apply()
    store.materialize(AS_OF)


def bench_bytes_a_member(home, redis_server):
    snapshot_bytes = home.snapshot(AS_OF).stat().st_size
    fill(home, Engine())
    redis_server.client.flushall()
    before = redis_server.client.info("memory")["used_memory"]
    fill(home, Engine(online=redis_server.address, online_prefix="sizes", online_timeout_ms=5_000))
    memory = redis_server.client.info("memory")["used_memory"] - before
    redis_server.client.flushall()
    for name, size in {"snapshot": snapshot_bytes, "sqlite": home.online.stat().st_size, "redis": memory}.items():
        print(f"\nbytes a member, {name}: {size / MEMBERS:,.0f}", end="")  # noqa: T201


def bench_bytes_a_decision(tmp_path, postgres_server, decision):
    vector = np.random.default_rng(0).normal(size=FEATURES).astype("<f4").tobytes()
    offers = {
        "treatments": ("control", *(f"offer-{n}" for n in range(OFFERS))),
        "probabilities": tuple(np.random.default_rng(1).dirichlet(np.ones(OFFERS + 1)).tolist()),
        "refusals": ("",) * OFFERS,
        **{name: tuple(range(100, 100 + OFFERS)) for name in ("uplift", "cost", "net_value")},
        "stock_prices": (0.0,) * OFFERS,
        "treatment": "offer-1",
        "features": vector,
        "reasons": tuple({"feature": f"visits_{days}d", "direction": "raises", "share": 0.21} for days in (7, 28, 84)),
        "standing": {"spent": 1200, "contacts": []},
    }
    path = tmp_path / "decisions.db"
    with SharedLog(path) as log:
        for number in range(DECISIONS):
            at = NOW + timedelta(seconds=number)
            key, named = f"k{number:020d}", f"m{number:09d}"
            one = decision(f"d{number:020d}", member_id=named, decided_at=at, idempotency_key=key, **offers)
            stored = log.append([one], now=at, answer=Answer(key, "0" * 64, 200, b"x" * 900))
            if number % 200 == 199:
                stored.result()
        stored.result()
    print(f"\nbytes a decision, journal: {path.stat().st_size / DECISIONS:,.0f}", end="")  # noqa: T201
    with SharedLog(path) as log:
        drain(log, path, postgres_server.address)
    (taken,) = postgres_server.run(
        "SELECT sum(pg_total_relation_size(c.oid)) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
        "WHERE nspname = 'public' AND relkind = 'r'"
    )
    print(f"\nbytes a decision, postgres: {int(taken) / DECISIONS:,.0f}")  # noqa: T201
