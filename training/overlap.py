"""Overlap: how much a log knows of each treatment a policy takes, and whether treatments came as often as planned."""

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.special import erfc

from features.schema import CONTROL
from training.estimators import Floats, Log, importance_weights
from training.evidence import effective_sample_size, sample_ratio_mismatch
from training.frames import read_log, read_policy

ROUNDING: Final = 1e-6  # of logged propensities
THIN: Final = 0.01  # a propensity below it makes one row stand for more than a hundred


def overlap(log: pd.DataFrame, policy: pd.DataFrame | ArrayLike) -> pd.DataFrame:
    """Say for each treatment how much of what a policy does with it the log has seen.

    Parameters
    ----------
    log, policy : as in `training.ope.evaluate_policy`

    Returns
    -------
    indexed by treatment: rows, how many were logged; policy_share, of the policy's decisions; effective_sample_size and
    largest_weight, of its importance weights; reached, the weights' sum over that of the policy's probabilities: 1 but
    for chance where propensities are right and everybody could have got the treatment, less where some could not;
    thin_share, the share of the policy's probability where the propensity was below 0.01 (by inverse propensity), and
    all of it where the treatment was never logged. The last two are missing where the policy never takes it.
    """
    named = policy if isinstance(policy, pd.DataFrame) else np.unique(np.asarray(policy))
    offers, data = read_log(log, dict.fromkeys(map(str, named), 0.0))
    names = (CONTROL, *offers)
    given = read_policy(policy, names, len(data))
    weights = importance_weights(data, given)
    rows = [_known_of(data, arm, weights, given[:, arm]) for arm in range(data.n_treatments)]
    return pd.DataFrame(rows, index=pd.Index(names, name="treatment"))


def _known_of(data: Log, arm: int, weights: Floats, probability: Floats) -> dict[str, float]:
    there = data.treatment == arm
    weight, taken = weights[there], float(probability.sum())
    thin = float(weight[data.propensity[there] < THIN].sum()) if there.any() else taken
    return {
        "rows": int(there.sum()),
        "policy_share": float(probability.mean()),
        "effective_sample_size": effective_sample_size(weight),
        "largest_weight": float(weight.max(initial=0.0)),
        "reached": float(weight.sum()) / taken if taken else np.nan,
        "thin_share": min(thin / taken, 1.0) if taken else np.nan,
    }


def sample_ratio_p(log: Log) -> float:
    """Give the p value that treatments came as often as their propensities say; below 0.001 do not believe the log.

    Where each treatment has one propensity throughout, that is Pearson's χ² of `evidence.sample_ratio_mismatch`; more
    than 1 in all is no plan, and gives 0. Else the sum of 1{T = a} / p - 1 over its standard deviation is a normal
    deviate for every treatment a that everybody might get, and the smallest p is multiplied by how many there are
    (Bonferroni). Decisions that were certain, such as those on a hold-out group, tell nothing and are left out.
    """
    drawn = log.propensity < 1
    treatment, propensity = log.treatment[drawn], log.propensity[drawn]
    planned = [propensity[treatment == arm] for arm in np.unique(treatment)]
    if any(np.ptp(each) > ROUNDING for each in planned):
        weight = (treatment[:, None] == np.unique(treatment)) / propensity[:, None] - 1.0
        deviate = np.abs(weight.sum(axis=0)) / np.sqrt(np.sum(weight**2, axis=0))
        return float(min(1.0, len(deviate) * erfc(deviate.max() / np.sqrt(2.0))))
    counts, shares = [len(each) for each in planned], [float(each[0]) for each in planned]
    rest = 1.0 - sum(shares)
    if rest < -ROUNDING:
        return 0.0
    if rest > ROUNDING:  # planned, but not seen once
        counts, shares = [*counts, 0], [*shares, rest]
    return sample_ratio_mismatch(counts, shares) if len(shares) > 1 else 1.0
