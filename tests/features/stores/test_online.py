"""The store online: what was snapshotted is what is read, by Feast's way and by ours, in every process."""

import features.unchecked  # noqa: F401  (before Feast itself)

# isort: split

import io
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing, redirect_stdout
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from feast import Entity, FeatureView, Field, FileSource, ValueType
from feast.types import Float64, Int64, String

from features.definitions import DECISION, MODEL_FEATURES, NUMBERS, VIEW, WORDS
from features.errors import ContractError, NotFoundError
from features.home import Home
from features.store import open_store
from features.stores.online import PackedOnlineStore, schema_of
from features.stores.packed import Batch, microseconds

AS_OF = datetime(2017, 11, 5, 5, 30, tzinfo=UTC)  # half an hour before New York's clocks change
LATER = AS_OF + timedelta(days=7)
IDS = [f"m{number:03d}" for number in range(120)]
READ = """
import json, sys
from pathlib import Path
from features.definitions import MODEL_FEATURES
from features.home import Home
from features.snapshots import built
from features.store import open_store
root, *ids = sys.argv[1:]
home = Home(Path(root))
store = open_store(home)
before = store.online(ids, MODEL_FEATURES)
store.apply()
store.materialize(built(home)[-1])
for found in (before, store.online(ids, MODEL_FEATURES)):
    print(json.dumps([found.X.tobytes().hex(), [time.isoformat() for time in found.event_timestamp]]))
"""


def write_snapshot(home, as_of, rng):
    numbers = rng.normal(size=(len(IDS), len(NUMBERS))) * 10.0 ** rng.integers(-9, 9, len(NUMBERS))
    numbers[rng.random(numbers.shape) < 0.1] = np.nan
    frame = pd.DataFrame(numbers, columns=list(NUMBERS))
    for word in WORDS:
        frame[word] = rng.choice(["loyal", "new", "gone", None], len(IDS))
    frame.insert(0, "member_id", IDS)
    times = pd.DatetimeIndex([as_of] * len(IDS)).as_unit("us")
    frame = frame.assign(event_timestamp=times, created_timestamp=times)
    home.features.mkdir(parents=True, exist_ok=True)
    frame.to_parquet(home.snapshot(as_of))
    return frame.set_index("member_id")


def rows_of(store, server):
    """Give what is kept, as it is kept, but for the filling that it came with."""
    if store.engine.online == "sqlite":
        with closing(sqlite3.connect(store.home.online)) as db:
            return db.execute("SELECT * FROM vectors").fetchall()
    keys = sorted(server.client.scan_iter(f"{store.engine.online_prefix}:{VIEW}:*", 1000))
    rows = [value[:4] + value[12:] for value in server.client.mget(keys)]
    return [(key.partition(b":")[2], row) for key, row in zip(keys, rows, strict=True)]


@pytest.fixture(scope="module")
def homes(engine, redis_server, tmp_path_factory):
    """Make homes whose online stores are alike, and empty."""

    def homes():
        home = Home(tmp_path_factory.mktemp("home"))
        prefix = f"{os.getpid()}.{home.root.name}"
        settings = {"sqlite": "", "redis": f'online = "{redis_server.address}"\nonline_prefix = "{prefix}"\n'}
        home.settings.write_text(f"[engine]\nonline_timeout_ms = 5000\n{settings[engine]}")
        return home

    return homes


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def engine(request):
    return request.param


@pytest.fixture(scope="module")
def world(homes):
    """Two weekly snapshots, the later one materialised."""
    home, rng = homes(), np.random.default_rng(5)
    frames = {as_of: write_snapshot(home, as_of, rng) for as_of in (AS_OF, LATER)}
    store = open_store(home)
    store.apply()
    store.materialize(LATER)
    return store, frames


def test_online_equals_the_snapshot_to_the_bit(world):
    store, frames = world
    found = store._table.read(VIEW, IDS, numbers=NUMBERS, words=WORDS)
    assert found.numbers.tobytes() == frames[LATER][list(NUMBERS)].to_numpy().tobytes()
    assert list(found.words) == list(frames[LATER][list(WORDS)].itertuples(index=False, name=None))
    assert set(found.event_timestamp) == {LATER}


def test_members_come_in_the_order_asked_and_as_often(world):
    store, frames = world
    asked = ["m007", "nobody", "m003", "m007"]
    features = list(MODEL_FEATURES)[::-3]
    found = store.online(asked, features)
    assert found.known.tolist() == [True, False, True, True]
    assert found.event_timestamp == (LATER, None, LATER, LATER)
    expected = frames[LATER].reindex(asked)[features].to_numpy(dtype=np.float32)
    assert found.X.tobytes() == expected.tobytes()
    assert found.segment[1] is found.lifecycle_stage[1] is None
    assert [found.segment[0], found.segment[2]] == frames[LATER]["segment"][["m007", "m003"]].tolist()


def test_feast_answers_the_same(world):
    store, _ = world
    asked = [*IDS, "nobody", "m000"]
    rows = [{"member_id": member_id} for member_id in asked]
    response = store.feast.get_online_features(store.feast.get_feature_service(DECISION), rows)
    theirs, ours = response.to_dict(), store.online(asked, MODEL_FEATURES)
    assert isinstance(store.feast._get_provider().online_store, PackedOnlineStore)
    X = np.column_stack([np.array(theirs[name], dtype=np.float32) for name in MODEL_FEATURES])
    assert X.tobytes() == ours.X.tobytes()
    assert (theirs["segment"], theirs["lifecycle_stage"]) == (list(ours.segment), list(ours.lifecycle_stage))
    place = list(response.proto.metadata.feature_names.val).index("segment")
    times = [t.ToDatetime(tzinfo=UTC) if t.seconds else None for t in response.proto.results[place].event_timestamps]
    assert times == list(ours.event_timestamp)


def test_feasts_own_materialize_writes_the_same_rows(world, homes, redis_server):
    store, _ = world
    home = homes()
    shutil.copytree(store.home.features, home.features)
    other = open_store(home)
    other.apply()
    with redirect_stdout(io.StringIO()):
        other.feast.materialize(LATER - timedelta(seconds=1), LATER, feature_views=[VIEW])
    assert rows_of(other, redis_server) == rows_of(store, redis_server)


def test_feasts_registry_knows_what_was_materialised(world):
    store, _ = world
    assert (LATER - timedelta(seconds=1), LATER) in store.feast.get_feature_view(VIEW).materialization_intervals


def test_an_older_snapshot_or_push_changes_nothing(world):
    store, _ = world
    before = store.online(IDS, MODEL_FEATURES)
    store.materialize(AS_OF)
    old = pd.DataFrame({name: [1.0] for name in NUMBERS} | {name: ["old"] for name in WORDS})
    old = old.assign(member_id="m000", event_timestamp=[AS_OF], created_timestamp=[LATER])
    store.feast.write_to_online_store(VIEW, df=old)
    after = store.online(IDS, MODEL_FEATURES)
    assert after.X.tobytes() == before.X.tobytes()
    assert after.event_timestamp == before.event_timestamp


def test_another_time_zone_reads_and_writes_the_same(world):
    store, _ = world
    asked, ours = IDS[:5], store.online(IDS[:5], MODEL_FEATURES)
    command = [sys.executable, "-W", "ignore", "-c", READ, store.home.root, *asked]
    done = subprocess.run(command, env=os.environ | {"TZ": "America/New_York"}, capture_output=True, check=True)
    for line in done.stdout.splitlines():
        X, times = json.loads(line)
        assert ours.X.tobytes().hex() == X
        assert times == [LATER.isoformat()] * len(asked)
    assert len(done.stdout.splitlines()) == 2


def test_a_model_that_reads_a_new_feature_is_refused(world, homes):
    """The table was filled by definitions without it: nothing is read in its place."""
    store, frames = world
    other = open_store(homes())
    schema = schema_of(store.feast.get_feature_view(VIEW))
    fewer = replace(schema, numbers=tuple(name for name in schema.numbers if name != "visits_28d"))
    numbers = frames[LATER][list(fewer.numbers)].to_numpy()
    times = [microseconds(LATER)] * len(IDS)
    words = [("new",) * len(WORDS)] * len(IDS)
    other._table.write(VIEW, fewer, [Batch(IDS, numbers, words, times, times)])
    with pytest.raises(ContractError, match=r"without visits_28d; `holdfast features materialize`"):
        other.online(IDS, MODEL_FEATURES)
    held = [name for name in MODEL_FEATURES if name != "visits_28d"]
    assert other.online(IDS, held).X.tobytes() == store.online(IDS, held).X.tobytes()


def test_a_snapshot_without_a_feature_is_refused(tmp_path):
    store = open_store(Home(tmp_path))
    frame = write_snapshot(store.home, LATER, np.random.default_rng(3)).reset_index()
    frame.drop(columns="visits_28d").to_parquet(store.home.snapshot(LATER))
    store.apply()
    with pytest.raises(ContractError, match=r"lacks visits_28d; `holdfast features build`"):
        store.materialize(LATER)


def test_an_empty_store_says_what_to_type(homes):
    store = open_store(homes())
    with pytest.raises(NotFoundError, match="holdfast features materialize"):
        store.online(["m000"], MODEL_FEATURES)
    with pytest.raises(NotFoundError, match="holdfast features apply"):
        store.materialize(LATER)
    store.apply()
    assert not store.online(["m000"], MODEL_FEATURES).known.any()
    with pytest.raises(NotFoundError, match="holdfast features build"):
        store.materialize(LATER)


@pytest.mark.parametrize(
    ("key", "kind", "problem"),
    [(ValueType.STRING, Int64, "visits .Int64"), (ValueType.INT64, Float64, "the key")],
    ids=["a whole number", "a numbered member"],
)
def test_what_cannot_be_packed_is_refused_when_it_is_defined(key, kind, problem, tmp_path):
    member = Entity(name="member", join_keys=["member_id"], value_type=key)
    column = Field(name="member_id", dtype=String if key is ValueType.STRING else Int64)
    source = FileSource(name="s", path=str(tmp_path / "s.parquet"), timestamp_field="event_timestamp")
    view = FeatureView(
        name="other", entities=[member], source=source, schema=[column, Field(name="visits", dtype=kind)]
    )
    view.entity_columns = [column]
    with pytest.raises(ContractError, match=problem):
        schema_of(view)


def test_a_view_that_is_no_longer_defined_leaves_no_rows(homes):
    home = homes()
    write_snapshot(home, LATER, np.random.default_rng(4))
    store = open_store(home)
    store.apply()
    store.materialize(LATER)
    store.feast.apply([], objects_to_delete=[store.feast.get_feature_view(VIEW)], partial=False)
    assert not store._table.read(VIEW, IDS, numbers=[], words=[]).known.any()
