"""Whether treatments were drawn as the log says: neither the arms' sizes nor a feature may differ beyond chance.

Where treatment a was drawn with probability p_a(x), the terms (1{T = a} / p_a - 1) z have mean 0 for whatever was known
before, z: 1 for the sizes, a feature's centred rank for balance. Each sum over its standard deviation is a normal
deviate; the smallest p is multiplied by how many there are (Bonferroni). Decisions that were certain, such as those on
a hold-out group, tell nothing and are left out. Below 0.001 assignment or logging is broken, and no estimate from the
log holds: Fabijan et al., "Diagnosing sample ratio mismatch in online controlled experiments", KDD 2019.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfc
from scipy.stats import rankdata

from training.judging.estimators import Log
from training.judging.evidence import sample_ratio_mismatch

Floats = NDArray[np.float64]

FEWEST_ROWS: Final = 20  # with and without a value, for its mean to be near normal
ROUNDING: Final = 1e-6  # of logged propensities


def sample_ratio_p(log: Log) -> float:
    """Give the p value that treatments came as often as their propensities say.

    Where each treatment has one propensity throughout, that is Pearson's χ² of `evidence.sample_ratio_mismatch`; more
    than 1 in all is no plan, and gives 0. Else treatments have to be such that everybody might get them.
    """
    by_chance = log.propensity < 1
    if not by_chance.any():
        return 1.0
    drawn = log.take(by_chance)
    planned = [drawn.propensity[drawn.treatment == arm] for arm in np.unique(drawn.treatment)]
    if any(np.ptp(each) > ROUNDING for each in planned):
        return _smallest_p(_terms(drawn), np.ones((len(drawn), 1)))
    counts, shares = [len(each) for each in planned], [float(each[0]) for each in planned]
    rest = 1.0 - sum(shares)
    if rest < -ROUNDING:
        return 0.0
    if rest > ROUNDING:  # planned, but not seen once
        counts, shares = [*counts, 0], [*shares, rest]
    return sample_ratio_mismatch(counts, shares) if len(shares) > 1 else 1.0


def balance_p(log: Log, X: Floats) -> float:
    """Give the p value that no feature, of `(n, n_features)`, differs between the arms more than it was planned to."""
    by_chance = log.propensity < 1
    return _smallest_p(_terms(log.take(by_chance)), _ranks(X[by_chance])) if by_chance.any() else 1.0


def _terms(log: Log) -> Floats:
    """Give 1{T = a} / p_a - 1 for every treatment a that came, `(n, n_arms)`."""
    came = log.treatment[:, None] == np.unique(log.treatment)
    return np.asarray(came / log.propensity[:, None] - 1.0)


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
