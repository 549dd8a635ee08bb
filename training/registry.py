"""The only door to MLflow: every run with its parameters, metrics and data fingerprint; every model a version."""

import io
import json
import logging
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Final

from features.engine import Engine, masked
from features.errors import ContractError, HoldfastError, NotFoundError, UnavailableError
from features.files import write_whole
from features.home import Home
from features.programme import read_programme
from features.stores.postgres import in_schema

if TYPE_CHECKING:
    import xgboost as xgb
    from mlflow.entities import Run as MlflowRun
    from mlflow.tracking import MlflowClient

logger: Final = logging.getLogger("holdfast")

EXPERIMENT = "holdfast"
FILES = "mlartifacts"  # the folder in object storage, as `Home.artifacts`


@dataclass
class Run:
    """Collect what one training logged, written in one batch when the run ends."""

    parameters: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    models: dict[str, "xgb.Booster"] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)  # file name -> text
    pictures: dict[str, bytes] = field(default_factory=dict)  # file name -> PNG
    run_id: str = ""


@contextmanager
def tracked(home: Home, name: str) -> Iterator[Run]:
    """Log one run to MLflow when the block ends well, and each of its models as a new registered version.

    Raises
    ------
    UnavailableError
        If MLflow can't take all of it; what it took is a run that failed.
    """
    run = Run()
    yield run
    with _asked(home):
        _log(home, name, run)


def _log(home: Home, name: str, run: Run) -> None:
    import mlflow

    client = _client(home)
    run.run_id = client.create_run(_experiment(client, home), run_name=name).info.run_id
    mlflow.set_tracking_uri(_uri(home))
    # what MLflow says on the error stream while it registers is of no use to who runs a verb
    with redirect_stderr(io.StringIO()), mlflow.start_run(run_id=run.run_id):
        mlflow.log_params({key: json.dumps(value, default=str)[:500] for key, value in run.parameters.items()})
        mlflow.set_tags(run.tags)
        for file, text in run.texts.items():
            mlflow.log_text(text, file)
        with TemporaryDirectory() as folder:
            for file, picture in run.pictures.items():
                (Path(folder) / file).write_bytes(picture)
            mlflow.log_artifacts(folder)
        for model, booster in run.models.items():
            # requirements given: inferring them takes 10 s; no input example: it would keep a member's row
            mlflow.xgboost.log_model(
                booster,
                name=model,
                registered_model_name=f"{EXPERIMENT}-{model}",
                model_format="json",
                pip_requirements=["xgboost-cpu"],
                await_registration_for=None,
            )
        # last: a model that is logged after them copies every metric of its run, which took seconds a model
        mlflow.log_metrics(run.metrics)


def reach(home: Home) -> None:
    """Make sure that runs can be logged.

    Raises
    ------
    UnavailableError
        If they are kept in Postgres, and it does not answer.
    ContractError
        If MLflow has no way to keep files where releases are.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    _uri(home)
    place = files_uri(home, read_programme(home.settings).engine)
    try:
        get_artifact_repository(place)
    except (MlflowException, ImportError) as error:
        raise ContractError(
            f"MLflow can't keep files at {masked(place)}: it knows s3://, gs:// and abfss:// once their packages are "
            f"installed (s3: `pip install 'holdfast[s3]'`)"
        ) from error


def set_champion(home: Home, release_id: str) -> None:
    """Let the alias `champion` follow, for people who look in MLflow; if it can't be asked, that is said and no more.

    The ledger of promotions is what counts, and has it already.
    """
    try:
        with _asked(home):
            client = _client(home)
            for run in _last_run(client, home, release_id):
                for version in client.search_model_versions(f"run_id='{run.info.run_id}'"):
                    client.set_registered_model_alias(version.name, "champion", version.version)
    except UnavailableError:
        logger.warning(
            "release %s is champion, but MLflow does not answer: its alias `champion` stays where it was, until "
            "`holdfast promote %s` is typed again",
            release_id,
            release_id,
        )


def save_pictures(home: Home, release_id: str, folder: Path) -> list[Path]:
    """Write the pictures that were logged with a release, the last time it was trained, into a folder.

    Raises
    ------
    NotFoundError
        If there are none.
    UnavailableError
        If MLflow can't be asked.
    """
    with TemporaryDirectory() as cache:
        with _asked(home), redirect_stderr(io.StringIO()):
            client, found = _client(home), dict[str, str]()
            for run in _last_run(client, home, release_id):
                names = (file.path for file in client.list_artifacts(run.info.run_id) if file.path.endswith(".png"))
                found |= {name: client.download_artifacts(run.info.run_id, name, cache) for name in names}
        for name, picture in found.items():
            write_whole(folder / name, partial(shutil.copyfile, picture))
    if not found:
        raise NotFoundError(f"MLflow keeps no pictures of release {release_id}; `holdfast train` logs them")
    return [folder / name for name in found]


def metrics_of(evidence: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Flatten every estimate of the evidence into `table.row.metric` and its bounds."""
    found: list[tuple[str, float]] = []
    for key, item in evidence.items():
        name = "".join(c if c.isalnum() or c in "._- /" else " " for c in f"{prefix}{key}")
        if isinstance(item, dict) and set(item) == {"value", "lower", "upper", "n"}:
            found += [(name, item["value"]), (f"{name}.lower", item["lower"]), (f"{name}.upper", item["upper"])]
        elif isinstance(item, dict):
            found += metrics_of(item, f"{name}.")
    return found


def schema_version() -> str:
    """Name the version of its tables that this MLflow reads and writes."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    return str(_get_latest_schema_revision())


def tracking_uri(home: Home, engine: Engine) -> str:
    """Give the address by which MLflow finds its tables."""
    local = engine.tracking == "sqlite"
    return f"sqlite:///{home.tracking.resolve()}" if local else in_schema(engine.tracking, "tracking")


def files_uri(home: Home, engine: Engine) -> str:
    """Give the address below which MLflow keeps files."""
    local = engine.objects == "file"
    return home.artifacts.resolve().as_uri() if local else f"{engine.objects.rstrip('/')}/{FILES}"


@contextmanager
def _asked(home: Home) -> Iterator[None]:
    try:
        yield
    except HoldfastError:
        raise
    except Exception as error:  # every storage has errors of its own, and their words may hold what is secret
        engine = read_programme(home.settings).engine
        raise UnavailableError(
            f"MLflow does not answer as it should ({type(error).__name__}), whose files are at "
            f"{masked(files_uri(home, engine))} and all else at {masked(engine.tracking)}; `holdfast doctor` says what "
            f"is wrong, then the same command goes on from what is done"
        ) from error


def _uri(home: Home) -> str:
    return tracking_uri(home, read_programme(home.settings).engine)


def _client(home: Home) -> "MlflowClient":
    from mlflow.tracking import MlflowClient

    home.root.mkdir(parents=True, exist_ok=True)
    uri = _uri(home)
    with redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of SQLAlchemy, about MLflow's own mappings
        return MlflowClient(tracking_uri=uri, registry_uri=uri)


def _last_run(client: "MlflowClient", home: Home, release_id: str) -> "list[MlflowRun]":
    """Give the last run that a release was logged with whole, if there is one."""
    whole = f"tags.release_id = '{release_id}' and attributes.status = 'FINISHED'"
    return list(client.search_runs([_experiment(client, home)], whole, max_results=1))


def _experiment(client: "MlflowClient", home: Home) -> str:
    existing = client.get_experiment_by_name(EXPERIMENT)
    if existing:
        return str(existing.experiment_id)
    place = files_uri(home, read_programme(home.settings).engine)
    return str(client.create_experiment(EXPERIMENT, artifact_location=place))
