"""The point-in-time join against Feast's own DuckDB store, both by Feast's public call."""

import features.unchecked  # noqa: F401  (before Feast itself)

# isort: split

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float64, String

from features.stores import offline

START = datetime(2017, 11, 5, 5, tzinfo=UTC)  # New York's clocks change within the first day


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
    rows = sheet(rng)
    for name, part in {"a": rows[::3], "b": rows[1::3], "c": rows[2::3]}.items():
        write(source / f"{name}.parquet", part)
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
    entities.index = [7, 7, 8, 9]
    job = store.get_historical_features(entities, ["v:stage", "v:spend"], full_feature_names=True)
    joined = job.to_arrow()
    assert joined.column_names == ["member_id", "event_timestamp", "note", "v__stage", "v__spend"]
    assert joined.column("note").to_pylist() == list("1234")
    assert joined.column("v__spend").to_pylist() == [None, 5.0, None, None]
    assert joined.column("v__stage").to_pylist() == [None, "x", None, None]
    pd.testing.assert_frame_equal(job.to_df(), joined.to_pandas().reset_index(drop=True), check_index_type=True)
