"""Spark computes what DuckDB computes, to the bit: one session for all of it, for to start one takes ten seconds."""

import os
import shutil
import socket

import numpy as np
import pyarrow.parquet as pq
import pytest

from features.catalogue.entries import CATALOGUE
from features.errors import NotFoundError, UnavailableError
from features.home import Home
from features.programme import read_programme
from features.snapshots import build
from features.spark import java_version, reach, spark_version

SETTINGS = """
timezone = "America/New_York"
margin_rate = 0.3
tracked_offers = ["A", "B"]
tracked_categories = ["fish", "meat", "bread"]
points_expire_after_days = 70
snapshot_days = 40
"""


@pytest.fixture(scope="module")
def spark():
    try:
        spark_version()
        java_version()
    except NotFoundError as error:
        if "CI" in os.environ:
            pytest.fail(str(error))
        pytest.skip(str(error))
    from features.spark import connect

    # a tenth of what the tests take is computing, the rest compiling
    quick = "--conf spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1 pyspark-shell"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_SUBMIT_ARGS", quick)
        yield connect("local[2]")
    connect("local[2]")._session.stop()
    connect.cache_clear()


def brought(company, root, engine=""):
    """Give a home with everything a company may bring, also rows that became known late."""
    home = Home(root)
    home.settings.write_text(f"{SETTINGS}{engine}")
    rng = np.random.default_rng(11)
    tables = company.everything(rng, days=120)
    lines = tables["transactions"]
    late = lines["occurred_at"] + np.where(rng.random(len(lines)) < 0.1, np.timedelta64(9, "D"), np.timedelta64(0, "D"))
    tables["transactions"] = lines.assign(known_at=late)
    company.ingest(tables, home=home, programme=read_programme(home.settings))
    return home


@pytest.fixture(scope="module")
def homes(company, spark, tmp_path_factory):
    """Build the snapshots of one company twice."""
    assert spark
    local = brought(company, tmp_path_factory.mktemp("local"))
    far = brought(company, tmp_path_factory.mktemp("far"), '[engine]\nfeatures = "spark"\nspark = "local[2]"\n')
    steps = []
    dates = [build(home, progress=lambda *step: steps.append(step)) for home in (local, far)]
    assert dates[0] == dates[1]
    return local, far, dates[0]


@pytest.fixture(scope="module")
def snapshots(homes):
    local, far, dates = homes
    return [(pq.read_table(local.snapshot(as_of)), pq.read_table(far.snapshot(as_of))) for as_of in dates]


def test_every_feature_of_every_member_is_equal_to_the_bit(snapshots):
    filled = set()
    for local, far in snapshots:
        for name in local.column_names:
            ours, theirs = local[name].combine_chunks(), far[name].combine_chunks()
            assert ours.equals(theirs), name  # a missing value equals only a missing one, and -0.0 equals 0.0
            if str(ours.type) == "double":
                bits = [one.fill_null(0).to_numpy().view(np.int64) for one in (ours, theirs)]
                assert np.array_equal(*bits), name
            filled |= {name} if ours.null_count < len(ours) else set()
    assert len(snapshots) >= 2
    # what is missing everywhere would prove nothing; of two offers none is the third
    assert set(CATALOGUE) - filled == {"offer_3_recency_days"}


def test_the_files_have_the_same_columns_types_and_order_of_rows(snapshots):
    for local, far in snapshots:
        layouts = [[(column.name, column.type) for column in rows.schema] for rows in (local, far)]
        assert layouts[0] == layouts[1]
        assert far["member_id"].to_pylist() == sorted(far["member_id"].to_pylist())


def test_another_engine_makes_no_snapshot_anew(homes, tmp_path):
    _, far, dates = homes
    home = Home(tmp_path / "home")
    shutil.copytree(far.root, home.root)
    home.settings.write_text(SETTINGS)
    before = {path: path.stat().st_mtime_ns for path in home.features.glob("*.parquet")}
    assert build(home, progress=lambda *_: None) == dates
    assert {path: path.stat().st_mtime_ns for path in home.features.glob("*.parquet")} == before
    assert len(before) == len(dates)


def test_nothing_is_left_beside_the_snapshots(homes):
    _, far, dates = homes
    assert {path.name for path in far.features.iterdir()} == {
        "manifest.json",
        *(far.snapshot(as_of).name for as_of in dates),
    }


@pytest.mark.parametrize(
    ("version", "words"), [(None, "there is none"), ("1.8.0_402", "this came: .*1.8.0"), ("11.0.22", "this came: .*11")]
)
def test_no_java_or_an_old_one_is_said_with_what_brings_it(monkeypatch, tmp_path, version, words):
    if version:
        (tmp_path / "bin").mkdir()
        java = tmp_path / "bin" / "java"
        java.write_text(
            f"#!/bin/sh\necho 'Picked up JAVA_TOOL_OPTIONS' >&2; echo 'openjdk version \"{version}\"' >&2\n"
        )
        java.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(NotFoundError, match=f"needs Java 17 or later, {words}.*; apt-get install"):
        java_version()


def test_a_master_that_is_not_there_is_said_at_once():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        master = f"spark://127.0.0.1:{listening.getsockname()[1]}"
        reach(master)
    with pytest.raises(UnavailableError, match=rf"no master of Spark answers at {master}; start it, or set \[engine\]"):
        reach(master)
    reach("local[2]")
