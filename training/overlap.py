"""Overlap: how much a log knows of each treatment a policy takes, and whether treatments came as often as planned."""

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

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


def assignment_p(log: Log) -> float:
    """Give the p value that treatments came as often as their propensities say; see `evidence.sample_ratio_mismatch`.

    It needs a plan that is the same for every row, so it is missing (NaN) where a treatment's propensity differs
    between rows: there `overlap` says what is reached. Propensities that add up to more than 1 are no plan: 0.
    """
    planned = [log.propensity[log.treatment == arm] for arm in np.unique(log.treatment)]
    if any(np.ptp(each) > ROUNDING for each in planned):
        return np.nan
    counts, shares = [len(each) for each in planned], [float(each[0]) for each in planned]
    rest = 1.0 - sum(shares)
    if rest < -ROUNDING:
        return 0.0
    if rest > ROUNDING:  # planned, but not seen once
        counts, shares = [*counts, 0], [*shares, rest]
    return sample_ratio_mismatch(counts, shares) if len(shares) > 1 else 1.0
