"""Spark computes what DuckDB computes, to the bit: one session for all of it, for to start one takes ten seconds."""

import gc
import shutil
import socket

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xgboost as xgb
from typer.testing import CliRunner

from features.as_of.frame import write_training_frame
from features.as_of.parity import draw, offline_online
from features.catalogue.entries import CATALOGUE
from features.decisions import read_decisions
from features.definitions import ALL, DECISION, NUMBERS, WORDS
from features.errors import NotFoundError, UnavailableError
from features.home import Home
from features.programme import read_programme
from features.snapshots import build, read_snapshots
from features.spark import java_version, reach
from features.store import open_store
from holdfast import app, quiet_dependencies
from training import churn
from training.artifacts import open_release
from training.metrics import auc
from training.releases.names import last_trained
from training.spark import boost_file, boost_on_spark

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings(  # Spark's own sockets, from which it reads what was collected
        "ignore:unclosed <socket:ResourceWarning", "ignore:.*<socket.socket:pytest.PytestUnraisableExceptionWarning"
    ),
]
SETTINGS = """
timezone = "America/New_York"
margin_rate = 0.3
tracked_offers = ["A", "B"]
tracked_categories = ["fish", "meat", "bread"]
points_expire_after_days = 70
snapshot_days = 40
"""
ENGINE = '[engine]\nfeatures = "spark"\nspark = "local[2]"\n'
MEMBERS = 1000  # of the synthetic world


@pytest.fixture(scope="module")
def spark(spark_there):  # noqa: ARG001 (it only has to be)
    from features.spark import connect

    # a tenth of what the tests take is computing, the rest compiling
    quick = "--conf spark.driver.extraJavaOptions=-XX:TieredStopAtLevel=1 pyspark-shell"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYSPARK_SUBMIT_ARGS", quick)
        yield connect("local[2]")
    gc.collect()  # while its sockets are still allowed to go
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
    far = brought(company, tmp_path_factory.mktemp("far"), ENGINE)
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


def test_the_training_frame_is_equal(homes, tmp_path):
    _, far, _ = homes
    store, rng = open_store(far), np.random.default_rng(5)
    store.apply()
    asked = draw(far, 400, rng)
    asked["as_of"] += np.timedelta64(1, "s") * rng.integers(0, 50 * 86_400, len(asked))  # long after the last one too
    asked = asked.assign(as_of=asked["as_of"].dt.as_unit("us"), label=rng.random(len(asked)))
    rows = pa.Table.from_pandas(asked.assign(row=range(len(asked))), preserve_index=False)
    pq.write_table(rows, tmp_path / "asked.parquet")
    write_training_frame(far, "local[2]", tmp_path / "asked.parquet", [*NUMBERS, *WORDS], tmp_path / "frame.parquet")
    found = pd.read_parquet(tmp_path / "frame.parquet").drop(columns="row")
    for service in (ALL, DECISION):
        wanted = store.training_frame(asked, service)
        pd.testing.assert_frame_equal(found[list(wanted)], wanted, check_exact=True)


def test_online_in_redis_is_what_spark_computed(homes, redis_server, tmp_path):
    _, far, _ = homes
    home = Home(tmp_path / "home")
    shutil.copytree(far.root, home.root)
    said = home.settings.read_text().replace("[engine]", f'[engine]\nonline = "{redis_server.address}"')
    home.settings.write_text(said + 'online_prefix = "spark"\n')
    open_store(home).apply()
    found = offline_online(home, points=200, rng=np.random.default_rng(3), progress=lambda *_: None)
    assert found.points > 40
    assert not found.differing


def test_trees_that_spark_grows_rank_as_well_and_are_a_plain_booster(homes):
    _, far, dates = homes
    rng = np.random.default_rng(9)
    rows = read_snapshots(far, dates).sample(4_000, replace=True, random_state=9, ignore_index=True)
    names = ["recency_days", "visits_84d", "spend_84d", "tenure_days"]
    risk = 1 / (1 + np.exp(1 - rows["recency_days"].fillna(60).to_numpy() / 30))
    rows["label"] = (rng.random(len(rows)) < risk).astype(float)
    given = {**churn._fixed(names), "rounds": 30, "max_depth": 3, "learning_rate": 0.1}
    there = boost_on_spark(far, "local[2]", rows, names, given)
    X, churned = rows[names].to_numpy(dtype=np.float32), rows["label"].to_numpy()
    here = churn.train_booster(churn.Rows(X, churned, tuple(names)), given)
    reread = xgb.Booster()
    reread.load_model(bytearray(there.save_raw("json")))
    ranked = [auc(churned, booster.inplace_predict(X)) for booster in (here, reread)]
    assert ranked[0] > 0.6
    assert ranked[1] == pytest.approx(ranked[0], abs=0.01)
    assert not [*far.root.glob(".training*")]


@pytest.fixture
def typed(spark, tmp_path):
    """Type verbs of a programme whose snapshots are there: they are equal to the bit, whoever computes them."""
    assert spark
    quiet_dependencies()
    home = Home(tmp_path)

    def run(*words):
        done = CliRunner().invoke(app, [*map(str, words), "--home", str(home.root)])
        assert done.exit_code == 0, done.exception
        return done.stdout

    run.home = home
    run("ingest", "synthetic", "--members", MEMBERS)
    with home.settings.open("a") as settings:
        settings.write("snapshot_days = 28\n")
    for words in (("features", "build"), ("features", "apply"), ("features", "materialize")):
        run(*words)
    return run


def learned(typed):
    """Train anew what the engine decides about, and give the release."""
    for kept in (typed.home.releases / "trained.json", typed.home.steps / "churn.json"):
        kept.unlink(missing_ok=True)
    typed("train", "--trials", 1)
    return open_release(typed.home.releases, last_trained(typed.home))


# MLflow, about its own types, when its `pyfunc` is imported
@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
@pytest.mark.usefixtures("few_rounds")
def test_what_is_learned_on_spark_is_as_good_as_what_is_learned_here_and_is_promoted_and_decides(typed):
    here = learned(typed)
    with typed.home.settings.open("a") as settings:
        settings.write(f'{ENGINE}training = "spark"\n')
    there = learned(typed)
    assert {name for name in here.manifest.files if here.manifest.files[name] != there.manifest.files[name]} == {
        "churn.json",
        "golden.json",
    }
    rows = [release.manifest.evidence["churn"]["rows"]["model"] for release in (here, there)]
    for metric in ("auc", "log_loss", "calibration_error"):
        one, other = (row[metric] for row in rows)
        assert one["lower"] < other["value"] < one["upper"], metric
        assert other["lower"] < one["value"] < other["upper"], metric
    assert "is champion" in typed("promote")
    typed("decide", "--out", typed.home.root / "out.csv")
    assert {row["release_id"] for row in read_decisions(typed.home.decisions)} == {there.release_id}


@pytest.mark.usefixtures("spark")
def test_rows_that_spark_can_not_read_are_said_in_a_line_without_them(tmp_path):
    pq.write_table(pa.table({"label": ["m17"], "a": [1.0]}), tmp_path / "frame.parquet")
    with pytest.raises(UnavailableError, match="Spark gave up") as refused:
        boost_file("local[2]", tmp_path / "frame.parquet", ["a"], {"rounds": 1, "objective": "binary:logistic"})
    assert "m17" not in str(refused.value)
    assert "\n" not in str(refused.value)


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


@pytest.mark.usefixtures("spark_there")
def test_a_master_that_is_not_there_is_said_at_once():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        master = f"spark://127.0.0.1:{listening.getsockname()[1]}"
        reach(master)
    with pytest.raises(UnavailableError, match=rf"no master of Spark answers at {master}; start it, or set \[engine\]"):
        reach(master)
    reach("local[2]")
