"""Distillation: what several learners say of every offer, and of every outcome, in one booster and one prediction.

Such a booster trained straight on pseudo-outcomes ranks far worse than one that learns good estimates. Outcomes differ
in scale, margin in minor units and retention in parts of 1, and a tree that splits for all at once listens to the
largest: so the targets are standardised, and what they were is kept beside the booster.
"""

from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
import xgboost as xgb

from training.learning.effects import Student
from training.learning.learners import BINS, Flags, Floats, Matrix, Trees

STUDENT: Final = Trees(depth=6, rate=0.2, rounds=40, leaf_share=0.0, ridge=1.0)


def distil(X: Matrix, teacher: Floats, *, held_out: Flags, nthread: int) -> tuple[Student, tuple[float, ...]]:
    """Fit one booster to all targets, and say how well one fitted on other members follows each on `held_out`.

    Parameters
    ----------
    X : (n_rows, n_features)
    teacher : (n_rows, n_outputs)
    held_out : (n_rows,)

    Returns
    -------
    The student, and for every target its correlation with the teacher; 1 where the teacher says the same of everybody
    """
    mean, spread = teacher.mean(axis=0), teacher.std(axis=0)
    flat = np.ptp(teacher, axis=0) == 0
    spread[flat] = 0.0
    targets = np.divide(teacher - mean, spread, out=np.zeros_like(teacher), where=~flat)
    rounds = 1 if flat.all() else STUDENT.rounds

    def fit(rows: Flags) -> xgb.Booster:
        return _student(X[rows], targets[rows], rounds)

    with ThreadPoolExecutor(nthread) as pool:
        booster, rival = pool.map(fit, (np.ones_like(held_out), ~held_out))
    booster.set_param({"nthread": nthread})
    said = np.asarray(rival.inplace_predict(X[held_out])).reshape(-1, teacher.shape[1])
    follows = [_correlation(one, other) for one, other in zip(said.T, targets[held_out].T, strict=True)]
    reach = (mean, spread, teacher.min(axis=0), teacher.max(axis=0))
    return Student(booster, *(tuple(numbers.tolist()) for numbers in reach)), tuple(follows)


def _student(X: Matrix, targets: Floats, rounds: int) -> xgb.Booster:
    # Everything is learned, nothing drawn: the teacher is smooth, and there is no noise to average away.
    params = STUDENT.params(len(X)) | {"multi_strategy": "multi_output_tree", "subsample": 1.0}
    return xgb.train(params, xgb.QuantileDMatrix(X, targets, max_bin=BINS, nthread=1), num_boost_round=rounds)


def _correlation(said: Floats, target: Floats) -> float:
    if np.ptp(target) == 0 or np.ptp(said) == 0:
        return 1.0
    return float(np.corrcoef(said, target)[0, 1])
