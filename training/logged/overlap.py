"""Overlap: how much a log knows of each treatment a policy takes."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from features.schema import CONTROL
from training.judging.estimators import Floats, Log, importance_weights
from training.judging.evidence import effective_sample_size
from training.judging.frames import read_log, read_policy

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
    return overlap_of(data, read_policy(policy, names, len(data)), names)


def overlap_of(log: Log, policy: Floats, treatments: Sequence[str]) -> pd.DataFrame:
    """Give the table of `overlap` from arrays: `policy` is `(n, 1 + n_offers)`, `treatments` names its columns."""
    weights = importance_weights(log, policy)
    rows = [_known_of(log, arm, weights, policy[:, arm]) for arm in range(log.n_treatments)]
    return pd.DataFrame(rows, index=pd.Index(treatments, name="treatment"))


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
