"""Where Optuna keeps its studies, a journal's file or Postgres: opened, read, and copied from one to the other."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import NullPool

from features.stores.postgres import in_schema

Rows = list[tuple[Any, ...]]


def open_studies(place: Path | str) -> BaseStorage:
    """Open where studies are kept: a journal's file, or an address of Postgres."""
    if isinstance(place, str):
        # between two trials lies a training, over which a connection may be closed
        return optuna.storages.RDBStorage(in_schema(place, "studies"), engine_kwargs={"poolclass": NullPool})
    place.parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(str(place)))


def schema_version() -> str:
    """Name the version of its tables that this Optuna reads and writes."""
    return str(optuna.storages.RDBStorage("sqlite://").get_head_version())


def trials_of(kept: BaseStorage) -> dict[str, Rows]:
    """Give what each study holds, by its name: what it is about, and each trial without the number it has there."""
    return {study.study_name: list(_rows(kept, study._study_id)) for study in kept.get_all_studies()}  # noqa: SLF001


def copy_study(name: str, source: BaseStorage, target: BaseStorage) -> None:
    """Copy a study with its trials, in the place of one that was copied in part."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if name in {study.study_name for study in target.get_all_studies()}:
        optuna.delete_study(study_name=name, storage=target)
    optuna.copy_study(from_study_name=name, from_storage=source, to_storage=target)


def _rows(kept: BaseStorage, study_id: int) -> Iterator[tuple[Any, ...]]:
    directions = [direction.name for direction in kept.get_study_directions(study_id)]
    yield "study", directions, kept.get_study_user_attrs(study_id), kept.get_study_system_attrs(study_id)
    for trial in kept.get_all_trials(study_id, deepcopy=False):
        spaces = {name: optuna.distributions.distribution_to_json(one) for name, one in trial.distributions.items()}
        yield (
            *("trial", trial.number, trial.state.name, trial.values, trial.params, spaces, trial.intermediate_values),
            *(trial.user_attrs, trial.system_attrs, trial.datetime_start, trial.datetime_complete),
        )
