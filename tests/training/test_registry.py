import json

import pytest

from features.errors import NotFoundError
from features.home import Home
from training import registry
from training.registry import EXPERIMENT, Run, save_pictures, set_champion, tracked

# MLflow, about its own types, when its `pyfunc` is imported
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
MODELS = ("churn", "uplift", "value")


class FittingError(Exception):
    """What goes wrong in a training."""


def fail(home):
    with tracked(home, "train") as run:
        run.parameters = {"depth": 1}
        raise FittingError


def record(run: Run, parts, release_id):
    run.parameters = {"settings": {"trials": 3}, "depth": 4, "long": "x" * 9000}
    run.metrics = {"churn.rows.model.auc": 0.81, "churn.rows.model.auc.lower": 0.79}
    run.tags = {"release_id": release_id, "data": "f00d"}
    run.models = parts.models.boosters
    run.texts = {"model_card.md": "# Release", "evidence.json": "{}"}
    run.pictures = {"uplift.png": b"\x89PNG"}


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return Home(tmp_path_factory.mktemp("tracking") / "home")


@pytest.fixture(scope="module")
def runs(home, parts):
    """Two runs, and one that failed; the first use of a tracking store costs seconds."""
    with tracked(home, "train") as first:
        record(first, parts, "r1")
    with tracked(home, "train") as second:
        record(second, parts, "r2")
    with pytest.raises(FittingError):
        fail(home)
    return first, second


@pytest.fixture(scope="module")
def client(home, runs):
    from mlflow.tracking import MlflowClient

    assert len(runs) == 2
    uri = f"sqlite:///{home.tracking}"
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def test_a_run_keeps_its_parameters_metrics_tags_and_pages(client, runs):
    data = client.get_run(runs[0].run_id).data
    assert data.params["depth"] == "4"
    assert json.loads(data.params["settings"]) == {"trials": 3}
    assert len(data.params["long"]) <= 500
    assert data.metrics == {"churn.rows.model.auc": 0.81, "churn.rows.model.auc.lower": 0.79}
    assert (data.tags["release_id"], data.tags["data"]) == ("r1", "f00d")
    assert {file.path for file in client.list_artifacts(runs[0].run_id)} >= {
        "model_card.md",
        "evidence.json",
        "uplift.png",
    }


def test_a_run_that_failed_is_not_kept(client):
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert len(client.search_runs([experiment.experiment_id])) == 2


@pytest.mark.parametrize("model", MODELS)
def test_every_training_is_a_version_of_every_model(client, runs, model):
    versions = client.search_model_versions(f"name='{EXPERIMENT}-{model}'")
    assert sorted((int(version.version), version.run_id) for version in versions) == [
        (1, runs[0].run_id),
        (2, runs[1].run_id),
    ]


@pytest.mark.usefixtures("runs")
def test_the_pictures_of_a_release_are_written_into_a_folder(home, tmp_path):
    folder = tmp_path / "shown" / "here"
    assert save_pictures(home, "r2", folder) == [folder / "uplift.png"]
    assert (folder / "uplift.png").read_bytes() == b"\x89PNG"
    assert [path.name for path in folder.iterdir()] == ["uplift.png"]
    with pytest.raises(NotFoundError, match="MLflow keeps no pictures of release r9; `holdfast train`"):
        save_pictures(home, "r9", folder)


@pytest.mark.usefixtures("runs")
def test_boosters_are_json_and_nothing_is_code(home):
    files = [path for path in home.artifacts.rglob("*") if path.is_file()]
    boosters = [path for path in files if path.name == "model.json"]
    assert len(boosters) == 2 * len(MODELS)
    assert all("learner" in json.loads(path.read_bytes()) for path in boosters)
    # a pickle of protocol 2 or later begins with 0x80 and its number; joblib's and dill's do too
    for path in (path for path in home.root.rglob("*") if path.is_file()):
        assert path.suffix not in {".pkl", ".pickle", ".joblib", ".dill", ".ubj", ".xgb", ".bin"}, path
        assert path.read_bytes()[:1] != b"\x80", path
    assert {path.name for path in files if path.suffix == ".py"} == set()


@pytest.mark.usefixtures("runs")
def test_no_members_row_is_kept_as_an_example(home):
    # erasure could not reach it
    assert not [path for path in home.artifacts.rglob("*") if "example" in path.name or "dataset" in path.name]


def test_everything_is_below_home(home, client, runs):
    for run in runs:
        assert client.get_run(run.run_id).info.artifact_uri.startswith(home.artifacts.as_uri())
    assert {path.name for path in home.root.iterdir()} <= {"mlflow.db", "mlartifacts"}


def test_where_mlflow_does_not_answer_a_promotion_holds_and_that_is_said(home, monkeypatch, caplog):
    monkeypatch.setattr(registry, "_client", lambda _: 1 / 0)
    set_champion(home, "r2")
    assert "release r2 is champion, but MLflow does not answer" in caplog.text
    assert "ZeroDivision" not in caplog.text


def test_the_alias_follows_the_champion(home, client):
    for release_id, version in (("r1", 1), ("r2", 2), ("r1", 1)):
        set_champion(home, release_id)
        for model in MODELS:
            assert int(client.get_model_version_by_alias(f"{EXPERIMENT}-{model}", "champion").version) == version
    set_champion(home, "unknown")  # the ledger is what counts: nothing moves, and nothing fails
    assert int(client.get_model_version_by_alias(f"{EXPERIMENT}-churn", "champion").version) == 1
