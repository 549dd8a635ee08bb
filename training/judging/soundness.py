"""Whether the data can be learned from, and whether what was learned stays: leaks, copies, thin classes, stability."""

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import studentized_range

from training.churn import best_single_feature
from training.judging.findings import DataChecks
from training.metrics import Estimate, auc

Floats = NDArray[np.float64]

DECILES: Final = np.linspace(0.1, 0.9, 9)
LEVEL: Final = 0.95  # of intervals
TOP: Final = 0.1  # the share of members a campaign against churn would begin with


def check_data(learn: pd.DataFrame, test: pd.DataFrame, features: Sequence[str]) -> DataChecks:
    """Look for what makes a model look better than it is.

    Parameters
    ----------
    learn, test : member_id, as_of, churned, margin and the features
    """
    both = pd.concat([frame[["member_id", "as_of"]] for frame in (learn, test)], ignore_index=True)
    columns = [*features, "margin"]
    hashes = [pd.util.hash_pandas_object(frame[columns], index=False).to_numpy() for frame in (learn, test)]
    left = test["churned"].to_numpy() == 1
    members = test["member_id"]
    best = best_single_feature(
        learn[list(features)].to_numpy(dtype=np.float32), learn["churned"].to_numpy(dtype=np.float64)
    )
    return DataChecks(
        repeated=int(both.duplicated().sum()),
        shared=float(np.isin(hashes[1], hashes[0]).mean()),
        fewest_of_a_class=min(members[left].nunique(), members[~left].nunique()),
        best_feature=features[best.place],
        best_feature_auc=best.auc,
    )


def auc_spread(churned: Floats, probability: Floats, as_of: pd.Series) -> Estimate:
    """Give how far apart the AUC of the best and the worst date are; dates with one class say nothing.

    The interval is what chance leaves of it where dates hold members of their own, Tukey's studentized range (The
    Problem of Multiple Comparisons, 1953) of errors by `auc_error`: the same members on every date make it wide.

    >>> dates = pd.Series([1, 1, 2, 2])
    >>> auc_spread(np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.1, 0.9, 0.9, 0.1]), dates).value
    1.0
    """
    dates = [as_of.to_numpy() == date for date in as_of.unique()]
    told = [(churned[there], probability[there]) for there in dates if 0 < churned[there].mean() < 1]
    if len(told) < 2:  # noqa: PLR2004 (one is apart from none)
        return Estimate(0.0, 0.0, 0.0, len(told))
    found = [auc(outcome, score) for outcome, score in told]
    error = np.sqrt(np.mean([auc_error(value, outcome) ** 2 for value, (outcome, _) in zip(found, told, strict=True)]))
    reach = float(studentized_range.ppf(LEVEL, len(found), np.inf) * error)
    spread = float(np.ptp(found))
    return Estimate(spread, max(spread - reach, 0.0), min(spread + reach, 1.0), len(found))


def auc_error(value: float, churned: Floats) -> float:
    """Give the standard error of an AUC from its value and the sizes of its classes.

    Hanley and McNeil, "The meaning and use of the area under a receiver operating characteristic (ROC) curve",
    Radiology 1982.

    >>> round(auc_error(0.9, np.repeat([0.0, 1.0], [50, 50])), 3)
    0.032
    """
    left, stayed = float(churned.sum()), float(len(churned) - churned.sum())
    one, two = value / (2 - value), 2 * value**2 / (1 + value)
    variance = value * (1 - value) + (left - 1) * (one - value**2) + (stayed - 1) * (two - value**2)
    return float(np.sqrt(variance / (left * stayed)))


def population_stability(reference: Floats, current: Floats) -> float:
    """Say how far scores have moved, by deciles of the reference: sum (q - p) ln(q / p), each share at least 0.0001.

    Below 0.1 nothing moved, above 0.25 much did (Siddiqi, "Credit Risk Scorecards", 2006).

    >>> scores = np.arange(100.0)
    >>> population_stability(scores, scores)
    0.0
    >>> population_stability(scores, scores + 100) > 0.25
    True
    """
    edges = np.unique(np.quantile(reference, DECILES))
    shares = [
        np.bincount(np.searchsorted(edges, scores, side="right"), minlength=len(edges) + 1) / len(scores)
        for scores in (reference, current)
    ]
    p, q = (np.maximum(share, 1e-4) for share in shares)
    return float(np.sum((q - p) * np.log(q / p)))


def top_overlap(one: Floats, other: Floats) -> float:
    """Say which share of those at most risk by one model is so by another; of equal scores the first counts.

    >>> top_overlap(np.arange(20.0), np.arange(20.0)[::-1])
    0.0
    """
    size = max(1, int(TOP * len(one)))
    chosen = [set(np.argsort(-scores, kind="stable")[:size].tolist()) for scores in (one, other)]
    return len(chosen[0] & chosen[1]) / size
