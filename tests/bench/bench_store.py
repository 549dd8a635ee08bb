"""Benchmarks of the store: reading, filling and joining, each beside its rivals in the same run.

Run by `make bench`, on made-up members, so that it needs nothing that was computed before.
"""

import io
import statistics
import time
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore, RepoConfig

from features.definitions import DECISION, MODEL_FEATURES, NUMBERS, VIEW, WORDS, feast_objects
from features.home import Home
from features.snapshots import STEM
from features.store import PROJECT, open_store

ROUNDS = 7
AS_OF = datetime(2018, 1, 1, 5, tzinfo=UTC)
FEW, MANY = 5_000, 300_000  # members that Feast's own way is given to write, and ours


def snapshot(home, members, rng, as_of=AS_OF):
    numbers = rng.normal(size=(len(NUMBERS), members))
    numbers[rng.random(numbers.shape) < 0.1] = np.nan
    columns = {"member_id": [f"m{number:07d}" for number in range(members)]}
    columns |= {name: pa.array(values, from_pandas=True) for name, values in zip(NUMBERS, numbers, strict=True)}
    columns |= {name: rng.choice(["loyal", "new", "gone"], members) for name in WORDS}
    times = pa.array([as_of] * members, pa.timestamp("us", tz="UTC"))
    home.features.mkdir(parents=True, exist_ok=True)
    table = pa.table(columns | {"event_timestamp": times, "created_timestamp": times})
    pq.write_table(table, home.features / f"{as_of:{STEM}}.parquet")


def theirs(home, root):
    """The same definitions over the same snapshots, with Feast's DuckDB and SQLite stores."""
    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry={"path": str(root / "feast.pb"), "cache_ttl_seconds": 0},
        offline_store={"type": "duckdb"},
        online_store={"type": "sqlite", "path": str(root / "feast.db")},
        entity_key_serialization_version=3,
        repo_path=str(root),
    )
    store = FeatureStore(config=config)
    store.apply(feast_objects(home.features))
    return store


def materialize(store):
    with redirect_stdout(io.StringIO()):
        store.materialize(AS_OF - timedelta(seconds=1), AS_OF, feature_views=[VIEW])


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("few")
    home = Home(root / "home")
    snapshot(home, FEW, np.random.default_rng(1))
    ours = open_store(home)
    ours.apply()
    feast = theirs(home, root)
    packed, own = clock(lambda: ours.materialize(AS_OF)), clock(lambda: materialize(feast))
    return SimpleNamespace(ours=ours, feast=feast, packed=packed, own=own)


def clock(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def seconds(work):
    work()
    times = []
    for _ in range(ROUNDS):
        repeats = max(1, int(0.02 / max(clock(work), 1e-6)))
        times.append(clock(lambda repeats=repeats: [work() for _ in range(repeats)]) / repeats)
    return statistics.median(times)


def show(what, ours, rival, name):
    print(f"{what:<44} {ours * 1e3:10.3f} ms {rival * 1e3:10.3f} ms  {rival / ours:6.1f} x  against {name}")  # noqa: T201


@pytest.mark.parametrize("n", [1, 10, 100, 1000])
def bench_online_read(world, n):
    ids = [f"m{number * 3:07d}" for number in np.random.default_rng(n).choice(FEW // 3, n, replace=False)]
    rows = [{"member_id": member_id} for member_id in ids]
    service = world.feast.get_feature_service(DECISION)
    mine = world.ours.feast.get_feature_service(DECISION)
    ours = seconds(lambda: world.ours.online(ids, MODEL_FEATURES))
    what = f"online features of {n} members"
    show(what, ours, seconds(lambda: world.feast.get_online_features(service, rows)), "Feast's SQLite store")
    own = seconds(lambda: world.feast.get_online_features(service, rows).to_df())
    show(what, ours, own, "the same, to_df()")
    plugin = seconds(lambda: world.ours.feast.get_online_features(mine, rows))
    show(what, ours, plugin, "get_online_features over the packed store")
    with world.ours._table._reading:
        raw = seconds(lambda: _raw(world.ours._table._reader, ids))
    show(what, ours, raw, "the rows' bytes, by key")


def _raw(db, ids):
    marks = ",".join("?" * len(ids))
    query = f"SELECT numbers FROM vectors WHERE view = ? AND member_id IN ({marks})"  # noqa: S608 (marks only)
    packed = b"".join(row[0] for row in db.execute(query, (VIEW, *ids)))
    return np.frombuffer(packed, dtype="<f8").reshape(len(ids), -1)


def bench_materialize(world, tmp_path):
    """Members a second, from the snapshot's file to rows that a reader sees; Feast's own on fewer."""
    home = Home(tmp_path / "home")
    snapshot(home, MANY, np.random.default_rng(2))
    store = open_store(home)
    store.apply()
    show("materialise, a member", world.packed / FEW, world.own / FEW, f"Feast's own, {FEW:,} members each")
    for what in ("into an empty table", "over the same members"):
        busy = time.process_time()
        took = clock(lambda: store.materialize(AS_OF))
        busy = time.process_time() - busy
        rates = f"{MANY / took:,.0f} a second, {MANY / busy:,.0f} a second of processor time"
        print(f"materialise {MANY:,} members {what}: {rates}")  # noqa: T201
