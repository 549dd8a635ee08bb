"""MLflow's runs and Optuna's trials in one real Postgres, where each finds its own tables and no others."""

from types import SimpleNamespace

import numpy as np
import pytest

from features.errors import NotFoundError, UnavailableError
from features.home import Home
from features.stores.health import revision
from training import pipeline
from training.preparation import Settings
from training.registry import schema_version as tracking_version
from training.registry import set_champion, tracked
from training.studies import schema_version as studies_version
from training.tuning import tune

# MLflow, about its own types, when its `pyfunc` is imported
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")


@pytest.fixture(scope="module")
def home(postgres_server, tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("shared"))
    home.settings.write_text(
        f'[engine]\ntracking = "{postgres_server.address}"\nstudies = "{postgres_server.address}"\n'
    )
    return home


def log(home, parts):
    with tracked(home, "train") as run:
        run.metrics, run.tags = {"auc": 0.81}, {"release_id": "r1"}
        run.models = {"churn": parts.models.boosters["churn"]}
    return run


@pytest.fixture(scope="module")
def run(home, parts):
    run = log(home, parts)
    set_champion(home, "r1")
    return run


def search(address, trials, *, study):
    calls = []

    def losses(parameters):
        calls.append(parameters)
        yield parameters["learning_rate"]

    quiet = {"rng": np.random.default_rng(0), "progress": lambda *_: None}
    return tune(losses, study=study, storage=address, trials=trials, **quiet), len(calls)


def test_a_run_is_kept_in_postgres_and_nothing_of_it_in_a_file(home, run, postgres_server):
    query = "SELECT key, value FROM holdfast_tracking.latest_metrics"
    assert postgres_server.run(query) == ["auc|0.81"]
    alias = "SELECT name, alias, version FROM holdfast_tracking.registered_model_aliases"
    assert postgres_server.run(alias) == ["holdfast-churn|champion|1"]
    assert run.run_id
    assert not home.tracking.exists()


def test_a_run_that_failed_is_not_the_one_that_its_release_is_found_by(home, run, parts, postgres_server, monkeypatch):
    import mlflow

    def away(_):
        raise OSError("hunter2")

    monkeypatch.setattr(mlflow, "log_metrics", away)
    with pytest.raises(UnavailableError, match=r"MLflow does not answer as it should \(OSError\).*\*\*\*@") as refused:
        log(home, parts)
    assert "hunter2" not in str(refused.value)
    set_champion(home, "r1")
    found = "SELECT run_uuid FROM holdfast_tracking.runs WHERE status ="
    assert postgres_server.run(f"{found} 'FINISHED'") == [run.run_id]
    assert len(postgres_server.run(f"{found} 'FAILED'")) == 1
    assert postgres_server.run("SELECT version FROM holdfast_tracking.registered_model_aliases") == ["1"]


def test_a_search_goes_on_where_it_stood(postgres_server):
    first, calls = search(postgres_server.address, 3, study="goes-on")
    assert (first.trials, calls) == (3, 3)
    second, calls = search(postgres_server.address, 5, study="goes-on")
    assert (second.trials, calls) == (5, 2)


def test_each_library_notes_its_own_version(run, postgres_server):
    search(postgres_server.address, 1, study="noted")
    assert run.run_id
    assert revision(postgres_server.address, "tracking") == tracking_version()
    assert revision(postgres_server.address, "studies") == studies_version()


def test_a_server_that_is_not_there_is_said_at_once_without_its_password():
    with pytest.raises(UnavailableError, match=r"studies at postgresql://\*\*\*@127") as refused:
        search("postgresql://ada:s3cret@127.0.0.1:1/none", 1, study="none")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ('tracking = "postgresql://ada:s3cret@127.0.0.1:1/none"', "tracking at "),
        ('training = "spark"\nspark = "spark://127.0.0.1:1"', "Spark"),  # or it is not installed
    ],
)
def test_a_training_of_which_the_end_would_fail_does_not_begin(tmp_path, monkeypatch, settings, told):
    home = Home(tmp_path)
    home.settings.write_text(f"[engine]\n{settings}\n")
    begun = []
    monkeypatch.setattr(pipeline, "open_warehouse", lambda _: SimpleNamespace(fingerprint="rows"))
    monkeypatch.setattr(pipeline, "begin", lambda *_: begun.append("work"))
    with pytest.raises((UnavailableError, NotFoundError), match=told):
        pipeline.train(home, settings=Settings(), progress=lambda *_: None)
    assert begun == []
