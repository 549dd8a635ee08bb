"""Benchmarks of the store: reading, filling and joining, each beside its rivals in the same run.

Run by `make bench`, on made-up members, so that it needs nothing that was computed before.
"""

import io
import statistics
import time
from contextlib import redirect_stdout
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore, RepoConfig

from features.definitions import DECISION, MODEL_FEATURES, NUMBERS, VIEW, WORDS, feast_objects
from features.home import Home
from features.store import PROJECT, open_store
from features.stores.packed_redis import _keys

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
    pq.write_table(table, home.snapshot(as_of))


def theirs(home, root, online):
    """The same definitions over the same snapshots, with Feast's DuckDB store and one of its online stores."""
    config = RepoConfig(
        project=PROJECT,
        provider="local",
        registry={"path": str(root / f"{online['type']}.pb"), "cache_ttl_seconds": 0},
        offline_store={"type": "duckdb"},
        online_store=online,
        entity_key_serialization_version=3,
        repo_path=str(root),
    )
    store = FeatureStore(config=config)
    store.apply(feast_objects(home.features))
    return store


def materialize(store):
    with redirect_stdout(io.StringIO()):
        store.materialize(AS_OF - timedelta(seconds=1), AS_OF, feature_views=[VIEW])


@pytest.fixture(scope="module", params=["SQLite", "Redis"])
def world(request, redis_server, tmp_path_factory):
    """Ours and Feast's store of one kind, both filled with few members by materialising."""
    root, redis = tmp_path_factory.mktemp("few"), request.param == "Redis"
    redis_server.client.flushall()
    home = Home(root / "home")
    snapshot(home, FEW, np.random.default_rng(1))
    engine = f'[engine]\nonline = "{redis_server.address}"\n' if redis else ""
    home.settings.write_text(engine)
    own = {"type": "sqlite", "path": str(root / "feast.db")}
    if redis:
        own = {"type": "redis", "connection_string": f"127.0.0.1:{redis_server.port}"}
    ours, feast = open_store(home), theirs(home, root, own)
    ours.apply()

    def size():
        return redis_server.client.info("memory")["used_memory"] if redis else home.online.stat().st_size

    start = size() if redis else 0
    packed = clock(lambda: ours.materialize(AS_OF))
    middle = size()
    taken = clock(lambda: materialize(feast))
    kept = size() - middle if redis else (root / "feast.db").stat().st_size
    return SimpleNamespace(
        kind=request.param,
        engine=engine,
        server=redis_server.client,
        ours=ours,
        feast=feast,
        seconds=SimpleNamespace(ours=packed, feast=taken),
        kept=SimpleNamespace(ours=(middle - start) / FEW, feast=kept / FEW),
        size=size,
    )


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
    what = f"{len(MODEL_FEATURES)} online features of {n} members, {world.kind}"
    own = seconds(lambda: world.feast.get_online_features(service, rows))
    show(what, ours, own, f"Feast's {world.kind} store")
    frame = seconds(lambda: world.feast.get_online_features(service, rows).to_df())
    show(what, ours, frame, "the same, to_df()")
    plugin = seconds(lambda: world.ours.feast.get_online_features(mine, rows))
    show(what, ours, plugin, "get_online_features over the packed store")
    show(what, ours, seconds(_raw(world, ids)), "the rows' bytes, by key: the floor")


def _raw(world, ids):
    """Read nothing but bytes, as numbers: SELECT, or MGET."""
    if world.kind == "Redis":
        keys, _ = _keys("holdfast", VIEW, ids)
        return lambda: np.frombuffer(b"".join(row[:800] for row in world.server.mget(keys)), dtype="<f8")
    db = world.ours._table._reader
    query = f"SELECT numbers FROM vectors WHERE view = ? AND member_id IN ({','.join('?' * len(ids))})"  # noqa: S608 (marks)
    return lambda: np.frombuffer(b"".join(row[0] for row in db.execute(query, (VIEW, *ids))), dtype="<f8")


def bench_materialize(world, tmp_path):
    """Members a second, from the snapshot's file to rows that a reader sees; Feast's own on fewer."""
    home = Home(tmp_path / "home")
    snapshot(home, MANY, np.random.default_rng(2))
    home.settings.write_text(world.engine)
    store = open_store(home)
    store.apply()
    what = f"materialise, a member, {world.kind}"
    show(what, world.seconds.ours / FEW, world.seconds.feast / FEW, f"Feast's own, {FEW:,} members each")
    print(f"{'':8}kept a member: {world.kept.ours:,.0f} bytes, by Feast {world.kept.feast:,.0f}; ", end="")  # noqa: T201
    print(f"the models' {len(MODEL_FEATURES)} features alone {8 * len(MODEL_FEATURES)}")  # noqa: T201
    for where in ("into an empty table", "over the same members"):
        before = peak(reset=True)
        busy = time.process_time()
        took = clock(lambda: store.materialize(AS_OF))
        busy = time.process_time() - busy
        rates = (
            f"{MANY / took:,.0f} a second ({1e6 * took / MANY:.1f} us a member), {MANY / busy:,.0f} a processor second"
        )
        print(f"materialise {MANY:,} members {where}, {world.kind}: {rates}, {peak() - before:,.0f} MB")  # noqa: T201


def peak(*, reset=False):
    """Give the most memory in use, in MB, and forget it if asked to."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    (line,) = (line for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines() if "VmHWM" in line)
    return int(line.split()[1]) / 1024
