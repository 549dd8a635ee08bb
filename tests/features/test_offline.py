"""The point-in-time join against Feast's own DuckDB store, and against a loop that a person can read."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64, String
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features import offline
from features.errors import ContractError
from features.history import Columns, open_history
from features.packed import Schema, microseconds

START = datetime(2017, 11, 5, 5, tzinfo=UTC)  # New York's clocks change within the first day
SCHEMA = Schema(("spend",), ("stage",))
COLUMNS = Columns("member_id", "event_timestamp", "created_timestamp")


def at(hours):
    return START + timedelta(hours=float(hours))


def write(path, rows):
    """Write rows of (member, event hour, hour of creation, spend, stage)."""
    member, event, created, spend, stage = zip(*rows, strict=True)
    stamp = pa.timestamp("us", tz="UTC")
    columns = {"member_id": member, "event_timestamp": pa.array([at(h) for h in event], stamp)}
    columns |= {"created_timestamp": pa.array([at(h) for h in created], stamp)}
    columns |= {"spend": pa.array(spend, pa.float64()), "stage": pa.array(stage, pa.string())}
    pq.write_table(pa.table(columns), path)


def expected(rows, member, hour, *, known, ttl):
    seen = [
        (event, created, spend, stage)
        for who, event, created, spend, stage in rows
        if who == member and event <= hour and (created <= hour or not known) and (not ttl or hour <= event + ttl)
    ]
    return max(seen, key=lambda row: row[:2], default=(None,) * 4)[2:]


names = st.sampled_from(["a", "b", "it's", "é"])
events = st.lists(
    st.tuples(names, st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=25, unique=True
)  # of one member and time, no two rows are created at the same time: which counts then is nobody's business


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=30)
@given(
    events=events,
    asked=st.lists(st.tuples(st.one_of(names, st.just("nobody")), st.integers(-1, 12)), max_size=20),
    known=st.booleans(),
    ttl=st.sampled_from([None, 1, 4]),
)
def test_every_row_is_the_latest_that_was_known(events, asked, known, ttl, tmp_path_factory):
    """Dormant members, late rows, ties, the same question twice, nobody: against a loop over all rows."""
    folder = tmp_path_factory.mktemp("h")
    rows = [(*event, float(place), "xyz"[place % 3]) for place, event in enumerate(events)]
    write(folder / "a.parquet", rows[: len(rows) // 2 + 1])
    write(folder / "b.parquet", rows[len(rows) // 2 + 1 :] or rows[:1])
    files = [folder / "a.parquet", folder / "b.parquet"] if len(rows) > len(rows) // 2 + 1 else [folder / "a.parquet"]
    history = open_history(files, SCHEMA, COLUMNS, folder=folder / "history")
    hours = np.array([microseconds(at(hour)) for _, hour in asked], dtype=np.int64)
    ids = pa.array([member for member, _ in asked], pa.string())
    found = history.latest(ids, hours, known=known, max_age=ttl and ttl * 3_600_000_000)
    spend, stage = (column.to_pylist() for column in history.take(found, ["spend", "stage"]))
    answers = [expected(rows, member, hour, known=known, ttl=ttl) for member, hour in asked]
    assert list(zip(spend, stage, strict=True)) == answers


def feast_store(root, source, *, ttl=timedelta(0), **offline_store):
    store = FeatureStore(
        config=RepoConfig(
            project="p",
            provider="local",
            registry=str(root / "registry.pb"),
            offline_store=offline_store,
            online_store={"type": "sqlite", "path": str(root / "online.db")},
            entity_key_serialization_version=3,
            repo_path=str(root),
        )
    )
    member = Entity(name="member", join_keys=["member_id"], value_type=ValueType.STRING)
    source = FileSource(
        name="s",
        path=str(source / "*.parquet"),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
    )
    schema = [
        Field(name="member_id", dtype=String),
        Field(name="spend", dtype=Float64),
        Field(name="stage", dtype=String),
    ]
    view = FeatureView(name="v", entities=[member], ttl=ttl, schema=schema, source=source)
    store.apply([member, source, view, FeatureService(name="all", features=[view])])
    return store


def sheet(rng, rows=4_000, members=200):
    event = rng.integers(0, 300, rows)
    pairs = {(int(m), int(e), int(e + rng.integers(0, 60))) for m, e in zip(rng.integers(0, members, rows), event)}  # noqa: B905
    spend = [None if rng.random() < 0.1 else float(s) for s in rng.normal(size=len(pairs))]
    return [(f"m{m}", e, c, s, "xyz"[c % 3]) for (m, e, c), s in zip(sorted(pairs), spend, strict=True)]


@pytest.mark.parametrize("known", [True, False], ids=["known by then", "whenever known"])
@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(hours=72)], ids=["for ever", "three days"])
def test_it_answers_as_feasts_duckdb_store(known, ttl, tmp_path):
    rng, source = np.random.default_rng(3), tmp_path / "source"
    source.mkdir()
    write(source / "a.parquet", sheet(rng))
    entities = pd.DataFrame(
        {
            "member_id": [f"m{m}" for m in rng.integers(0, 220, 1_000)],  # some are nobody
            "event_timestamp": [at(h) for h in rng.integers(-5, 700, 1_000)],  # most ask long after the last row
            "row": np.arange(1_000),
        }
    )
    entities = pd.concat([entities, entities.head(50).assign(row=lambda d: d["row"] + 1_000)], ignore_index=True)
    answers = []
    ours = {"type": offline.STORE, "history": str(tmp_path / "history")}
    for name, config in {"theirs": {"type": "duckdb"}, "ours": ours}.items():
        (tmp_path / name).mkdir()
        store = feast_store(tmp_path / name, source, ttl=ttl, **config)
        service = store.get_feature_service("all")
        job = store.get_historical_features(entities.copy(), service, filter_by_created_timestamp=known)
        answers.append(job.to_df().sort_values("row", ignore_index=True)[["row", "member_id", "spend", "stage"]])
    pd.testing.assert_frame_equal(*answers, check_exact=True)
    assert answers[0]["spend"].notna().sum() > 50


def test_rows_come_out_as_they_went_in(tmp_path):
    (tmp_path / "source").mkdir()
    write(tmp_path / "source" / "a.parquet", [("a", 1, 1, 5.0, "x"), ("b", 2, 2, None, None)])
    store = feast_store(tmp_path, tmp_path / "source", type=offline.STORE, history=str(tmp_path / "history"))
    entities = pd.DataFrame({"member_id": ["b", "a", "b", "z"], "event_timestamp": [at(9)] * 4, "note": list("1234")})
    joined = store.get_historical_features(entities, ["v:stage", "v:spend"], full_feature_names=True).to_arrow()
    assert joined.column_names == ["member_id", "event_timestamp", "note", "v__stage", "v__spend"]
    assert joined.column("note").to_pylist() == list("1234")
    assert joined.column("v__spend").to_pylist() == [None, 5.0, None, None]
    assert joined.column("v__stage").to_pylist() == [None, "x", None, None]


def test_a_file_that_changed_is_sorted_anew(tmp_path):
    path = tmp_path / "a.parquet"
    for spend in (1.0, 2.0):
        write(path, [("a", 1, 1, spend, "x")] * int(spend))
        history = open_history([path], SCHEMA, COLUMNS, folder=tmp_path / "history")
        row = history.latest(pa.array(["a"]), np.array([microseconds(at(2))]), known=True, max_age=None)
        assert history.take(row, ["spend"])[0].to_pylist() == [spend]
    assert len(list((tmp_path / "history").iterdir())) == 1


def test_a_row_without_a_time_is_refused_and_leaves_nothing(tmp_path):
    path = tmp_path / "a.parquet"
    write(path, [("a", 1, 1, 1.0, "x"), (None, 1, 1, 1.0, "x")])
    with pytest.raises(ContractError, match="a row lacks one of member_id"):
        open_history([path], SCHEMA, COLUMNS, folder=tmp_path / "history")
    assert list((tmp_path / "history").iterdir()) == []
