"""Whether treatments were drawn as the log says: no feature, nor the arms' sizes, may differ beyond chance."""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc
from scipy.stats import rankdata

from training.estimators import Log

Floats = NDArray[np.float64]

FEWEST_ROWS: Final = 20  # with and without a value, for its mean to be near normal


def assignment_p(log: Log, X: Floats) -> tuple[float, float]:
    """Give the p values that the arms' sizes, and the features `(n, n_features)` within them, are as drawn.

    Where treatment a was drawn with probability p_a(x), the terms (1{T = a} / p_a - 1) z have mean 0 for whatever was
    known before, z: 1 for the sizes, a feature's centred rank for balance. Each sum over its standard deviation is a
    normal deviate; the smallest p is multiplied by how many there are (Bonferroni). A mismatch means that assignment or
    logging is broken: Fabijan et al., "Diagnosing sample ratio mismatch in online controlled experiments", KDD 2019.
    """
    arms = np.unique(log.treatment)
    weight = (log.treatment[:, None] == arms) / log.propensity[:, None] - 1.0  # (n, n_arms)
    return _smallest_p(weight, np.ones((len(log), 1))), _smallest_p(weight, _ranks(X))


def _smallest_p(weight: Floats, z: Floats) -> float:
    spread = np.sqrt((weight**2).T @ z**2)
    sums = weight.T @ z
    deviates = np.abs(np.divide(sums, spread, out=np.zeros_like(sums), where=spread > 0))
    return float(min(1.0, deviates.size * erfc(deviates.max(initial=0.0) / np.sqrt(2.0))))


def _ranks(X: Floats) -> Floats:
    """Give centred ranks, which no large spender carries, and who has no value, where enough have none."""
    missing = np.isnan(X)
    there = (missing.sum(axis=0) >= FEWEST_ROWS) & ((~missing).sum(axis=0) >= FEWEST_ROWS)
    ranks = rankdata(X, axis=0, nan_policy="omit")
    centred = np.nan_to_num(ranks - np.nanmean(ranks, axis=0, where=~missing) if len(X) else ranks)
    absent = missing[:, there].astype(np.float64)
    return np.hstack([centred, absent - absent.mean(axis=0)])
