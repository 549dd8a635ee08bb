"""Search parameters by a loss over time-respecting folds; resumable, pruned, with progress."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import optuna

from training.studies import open_studies

Parameters = dict[str, Any]
FoldLosses = Callable[[Parameters], Iterable[float]]

# Shallow trees and small steps: library defaults lose to logistic regression on data of this kind
START: Final[Parameters] = {
    "max_depth": 3,
    "learning_rate": 0.05,
    "rounds": 200,
    "min_child_weight": 10.0,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "reg_lambda": 5.0,
}
PRUNED, WAITING = optuna.trial.TrialState.PRUNED, optuna.trial.TrialState.WAITING
JUDGED: Final = (optuna.trial.TrialState.COMPLETE, PRUNED)  # a trial that was cut off says nothing and is made up for


@dataclass(frozen=True)
class Tuned:
    """Hold the best parameters and how they were found."""

    parameters: Parameters
    loss: float
    trials: int
    pruned: int


def tune(
    losses: FoldLosses,
    *,
    study: str,
    storage: Path | str,
    trials: int,
    rng: np.random.Generator,
    progress: Callable[[int, int], None],
    start: Parameters | None = None,
) -> Tuned:
    """Minimise the mean of the folds' losses.

    The first trial is `START`; a trial that is worse than the median after a fold is pruned. A study that was killed
    goes on where it stood; one that is complete is not run again.

    Parameters
    ----------
    storage : a journal's file, or an address of Postgres
    start : tried second, such as the champion's; what it lacks is drawn
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    search = optuna.create_study(
        study_name=study,
        storage=open_studies(storage),
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=0),
    )
    # the seed moves on with the trials: one that starts again would suggest the same parameters again
    search.sampler = optuna.samplers.TPESampler(seed=(int(rng.integers(2**31)) + _count(search, *JUDGED)) % 2**31)
    for known in (START, start or START):
        if not any(trial.system_attrs.get("fixed_params") == known for trial in _trials(search, *JUDGED, WAITING)):
            search.enqueue_trial(known)
    done = _count(search, *JUDGED)
    progress(done, trials)
    search.optimize(
        lambda trial: _objective(trial, losses),
        n_trials=max(0, trials - done),
        callbacks=[lambda study, _: progress(_count(study, *JUDGED), trials)],
    )
    return Tuned(search.best_params, float(search.best_value), _count(search, *JUDGED), _count(search, PRUNED))


def _trials(search: optuna.Study, *states: optuna.trial.TrialState) -> list[optuna.trial.FrozenTrial]:
    return search.get_trials(deepcopy=False, states=states)


def _count(search: optuna.Study, *states: optuna.trial.TrialState) -> int:
    return len(_trials(search, *states))


def _objective(trial: optuna.Trial, losses: FoldLosses) -> float:
    total, count = 0.0, 0
    for step, loss in enumerate(losses(_suggest(trial))):
        total, count = total + loss, count + 1
        trial.report(total / count, step)
        if trial.should_prune():
            raise optuna.TrialPruned
    return total / count


def _suggest(trial: optuna.Trial) -> Parameters:
    return {
        "max_depth": trial.suggest_int("max_depth", 2, 6),
        "learning_rate": trial.suggest_float("learning_rate", 0.02, 0.15, log=True),
        "rounds": trial.suggest_int("rounds", 80, 320, step=40),
        "min_child_weight": trial.suggest_float("min_child_weight", 1.0, 200.0, log=True),
        "subsample": trial.suggest_float("subsample", 0.5, 1.0),
        "colsample_bytree": trial.suggest_float("colsample_bytree", 0.3, 1.0),
        "reg_lambda": trial.suggest_float("reg_lambda", 0.5, 50.0, log=True),
    }
