"""How good a model is: ranking, probability and money metrics, and their intervals.

A metric is higher-is-better unless its name has `loss` or `error`. Every metric takes its rows first, the truth before
the prediction, and a `weight` for each row, so that one bootstrap serves them all: drawing a member twice is giving it
twice the weight.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.errors import ContractError

Floats = NDArray[np.float64]
Array = NDArray[Any]
Clusters = Sequence[Any] | Array
Metric = Callable[..., float]

LEVEL: Final = (2.5, 97.5)  # percentiles: every interval here is of 95 %
EDGE: Final = 1e-15
DEFINED: Final = 0.9  # three members of the rarer class are in 95 % of the resamples, two in 86 %


@dataclass(frozen=True)
class Estimate:
    """Hold an estimate with its 95 % interval and the number of rows it rests on."""

    value: float
    lower: float
    upper: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.lower:.3f}, {self.upper:.3f}]"


def auc(outcome: Array, score: Array, *, weight: Array | None = None) -> float:
    """Estimate the chance that a positive outranks a negative, ties counting half (Mann and Whitney, 1947).

    >>> auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8]))
    0.875
    """
    positive, negative = by_score(score, *_classes(outcome, weight))
    below = np.cumsum(negative) - negative
    return float(positive @ (below + negative / 2) / (positive.sum() * negative.sum()))


def average_precision(outcome: Array, score: Array, *, weight: Array | None = None) -> float:
    """Sum the precision at each distinct score, weighted by the recall gained there.

    >>> average_precision(np.array([0, 1, 1]), np.array([0.1, 0.2, 0.3]))
    1.0
    """
    positive, negative = by_score(score, *_classes(outcome, weight))
    found, refused = np.cumsum(positive[::-1]), np.cumsum(negative[::-1])
    # A group that no resample drew weighs nothing, above and below the line.
    precision = found / np.maximum(found + refused, EDGE)
    return float(precision @ positive[::-1] / found[-1])


def lift(outcome: Array, score: Array, *, share: float = 0.1, weight: Array | None = None) -> float:
    """Divide the rate of the outcome among the top `share` of rows by that of all; of those tied at the cut a due part.

    >>> lift(np.array([1, 0, 0, 0]), np.array([0.9, 0.5, 0.2, 0.1]), share=0.5)
    2.0
    """
    if not 0 < share <= 1:
        raise ContractError(f"share {share} came, above 0 and at most 1 was wanted")
    positive, negative = by_score(score, *_classes(outcome, weight))
    found = np.concatenate([[0.0], np.cumsum(positive[::-1])])
    rows = np.concatenate([[0.0], np.cumsum((positive + negative)[::-1])])
    return float(np.interp(share * rows[-1], rows, found) / share / found[-1])


def log_loss(outcome: Array, probability: Array, *, weight: Array | None = None) -> float:
    """Average -log of the probability given to what happened, in nats.

    >>> round(log_loss(np.array([1, 0]), np.array([0.5, 0.5])), 6)
    0.693147
    """
    return _mean(log_losses(outcome, probability), weight)


def log_losses(outcome: Array, probability: Array) -> Floats:
    """Give -log of the probability given to what happened row by row, `(n_rows,)`, in nats.

    >>> log_losses(np.array([1, 0]), np.array([0.5, 0.75])).round(6).tolist()
    [0.693147, 1.386294]
    """
    p = np.clip(np.asarray(probability, dtype=np.float64), EDGE, 1 - EDGE)
    return np.asarray(-np.where(np.asarray(outcome) > 0, np.log(p), np.log1p(-p)))


def brier_loss(outcome: Array, probability: Array, *, weight: Array | None = None) -> float:
    """Average the squared distance of a probability from what happened (Brier, 1950).

    >>> brier_loss(np.array([1, 0]), np.array([0.5, 0.0]))
    0.125
    """
    return _mean((np.asarray(probability, dtype=np.float64) - outcome) ** 2, weight)


def calibration_error(outcome: Array, probability: Array, *, weight: Array | None = None, bins: int = 10) -> float:
    """Average |mean probability - rate of the outcome| over bins of equal size (Naeini et al., AAAI 2015).

    Equal probabilities share a bin. Few rows to a bin push it up by chance alone, about 0.4 / sqrt(rows in a bin) at
    a rate of one half: read it with its interval and its n.

    >>> round(calibration_error(np.array([0, 1, 1, 1]), np.array([0.5, 0.5, 0.9, 0.9]), bins=2), 6)
    0.05
    """
    p = np.asarray(probability, dtype=np.float64)
    w = np.ones(len(p)) if weight is None else weight
    gap = np.bincount(bins_of(p, bins), weights=w * (p - outcome), minlength=bins)
    return float(np.abs(gap).sum() / w.sum())


def mean_absolute_error(outcome: Array, prediction: Array, *, weight: Array | None = None) -> float:
    """Average the distance between prediction and outcome, in the outcome's unit.

    >>> mean_absolute_error(np.array([100, 200]), np.array([110, 170]))
    20.0
    """
    return _mean(np.abs(np.asarray(prediction, dtype=np.float64) - outcome), weight)


def root_mean_squared_error(outcome: Array, prediction: Array, *, weight: Array | None = None) -> float:
    """Take the root of the mean squared distance, in the outcome's unit.

    >>> root_mean_squared_error(np.array([0.0, 0.0]), np.array([1.0, 7.0]))
    5.0
    """
    return float(np.sqrt(_mean((np.asarray(prediction, dtype=np.float64) - outcome) ** 2, weight)))


def r_squared(outcome: Array, prediction: Array, *, weight: Array | None = None) -> float:
    """Give the share of the outcome's variance that is explained: 1 is perfect, 0 as good as the mean, below 0 worse.

    >>> r_squared(np.array([0.0, 2.0]), np.array([0.0, 1.0]))
    0.5
    """
    y = np.asarray(outcome, dtype=np.float64)
    spread = _mean((y - np.average(y, weights=weight)) ** 2, weight)
    if spread == 0:
        raise ContractError("every outcome is the same, so there is no variance to explain; bring rows that differ")
    return 1 - _mean((y - prediction) ** 2, weight) / spread


def by_score(score: Array, *columns: Floats) -> tuple[Floats, ...]:
    """Sum columns over rows of equal score, in ascending order of score."""
    order = np.argsort(score, kind="stable")
    ordered = np.asarray(score)[order]
    if np.isnan(ordered[-1]):  # sorts last, so it would rank best
        raise ContractError("a missing score came, one for each row was wanted; fill it or leave the row out")
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    return tuple(np.add.reduceat(column[order], starts) for column in columns)


def bins_of(score: Array, bins: int) -> NDArray[np.intp]:
    """Give each score the number of its bin: bins hold equally many rows, lowest first, and equal scores share one.

    >>> bins_of(np.array([0.5, 0.1, 0.4, 0.9]), 2).tolist()
    [1, 0, 0, 1]
    """
    return np.searchsorted(np.quantile(score, np.linspace(0, 1, bins + 1))[1:-1], score)


def bootstrap(
    metric: Metric, *arrays: Array, clusters: Clusters, rng: np.random.Generator, n_resamples: int = 200
) -> Estimate:
    """Estimate a metric with a percentile interval, drawing whole members: rows of one member are no fresh evidence.

    Resamples in which the metric is not defined (no positive was drawn) are left out, if they are few.

    Parameters
    ----------
    metric : called with `arrays` and `weight`
    arrays : each (n_rows,); the second one is the score
    clusters : (n_rows,) the member of each row

    Raises
    ------
    ContractError
        With fewer than two members, or where the metric is not defined on the whole and on nine resamples in ten.

    References
    ----------
    Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 1979; Field and Welsh,
    "Bootstrapping clustered data", JRSS B 2007.
    """
    value, lower, upper = bootstrap_all(metric, *arrays, clusters=clusters, rng=rng, n_resamples=n_resamples)
    return Estimate(value=float(value), lower=float(lower), upper=float(upper), n=len(arrays[0]))


def bootstrap_all(
    metrics: Callable[..., Any],
    *arrays: Array,
    clusters: Clusters,
    rng: np.random.Generator,
    n_resamples: int = 200,
) -> tuple[Floats, Floats, Floats]:
    """Give value, lower and upper of many numbers that share their work, such as the points of a curve.

    Arguments as in `bootstrap`; `metrics` gives an array, each number of which has an interval of its own.
    """
    # The order of rows means nothing to a metric, and a sort of what is sorted is one pass.
    order = np.argsort(arrays[1], kind="stable")
    ordered = [np.asarray(array)[order] for array in arrays]
    _, member = np.unique(np.asarray(clusters)[order], return_inverse=True)
    value = np.asarray(metrics(*ordered, weight=None), dtype=np.float64)
    if not np.isfinite(value).all():
        raise ContractError(f"the metric is {value} on {len(order)} rows; outcomes and predictions have to be finite")
    times = _multiplicities(int(member.max()) + 1, rng, n_resamples)
    defined = [draw for drawn in times if (draw := _try(metrics, ordered, drawn[member])) is not None]
    if len(defined) < DEFINED * n_resamples:
        raise ContractError(f"{len(defined)} of {n_resamples} resamples define the metric; bring more rows")
    lower, upper = np.percentile(np.asarray(defined, dtype=np.float64), LEVEL, axis=0)
    return value, lower, upper


def paired_bootstrap(
    metric: Metric,
    outcome: Array,
    *,
    model: Array,
    rival: Array,
    clusters: Clusters,
    rng: np.random.Generator,
    n_resamples: int = 200,
) -> Estimate:
    """Estimate metric(model) - metric(rival) on the same rows and the same draws, so that shared luck cancels.

    Parameters
    ----------
    outcome, model, rival : (n_rows,) what happened, and the two predictions of it
    clusters : (n_rows,) the member of each row
    """

    def difference(outcome: Array, model: Array, rival: Array, *, weight: Array | None) -> float:
        return metric(outcome, model, weight=weight) - metric(outcome, rival, weight=weight)

    return bootstrap(difference, outcome, model, rival, clusters=clusters, rng=rng, n_resamples=n_resamples)


def _multiplicities(n_clusters: int, rng: np.random.Generator, n_resamples: int) -> list[Floats]:
    if n_clusters < 2:  # noqa: PLR2004 (one member has no spread)
        raise ContractError("rows of one member came, at least two members were wanted; an interval needs both")
    draws = (rng.integers(n_clusters, size=n_clusters) for _ in range(n_resamples))
    return [np.bincount(drawn, minlength=n_clusters).astype(np.float64) for drawn in draws]


def _try(metrics: Callable[..., Any], arrays: list[Array], weight: Floats) -> Any:  # noqa: ANN401 (a number, or many)
    try:
        return metrics(*arrays, weight=weight)
    except ContractError:
        return None


def _mean(values: Floats, weight: Array | None) -> float:
    return float(np.average(values, weights=weight))


def _classes(outcome: Array, weight: Array | None) -> tuple[Floats, Floats]:
    """Split the weight of each row into that of a positive and that of a negative."""
    y = np.asarray(outcome) > 0
    w = np.ones(len(y)) if weight is None else np.asarray(weight, dtype=np.float64)
    positive, negative = w * y, w * ~y
    if not positive.any() or not negative.any():
        raise ContractError(f"{len(y)} rows of one class came, both were wanted; take a longer window")
    return positive, negative
