"""Curves with bands, as plain arrays that can be drawn: uplift, Qini, and reliability."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from training.metrics import Array, Clusters, Floats, bins_of, bootstrap_all

SHARES: Final = np.linspace(0, 1, 101)
Curve = Callable[..., tuple[Floats, Floats]]


@dataclass(frozen=True)
class Band:
    """Hold a curve and its 95 % band by members, point by point; each of one length."""

    x: Floats
    y: Floats
    lower: Floats
    upper: Floats


def ranking_band(
    curve: Curve,
    outcome: Array,
    uplift: Array,
    treated: Array,
    *,
    clusters: Clusters,
    rng: np.random.Generator,
    weight: Array | None = None,
) -> Band:
    """Draw `uplift_curve` or `qini_curve` of `uplift_metrics` at every hundredth of the members."""
    return _band(curve, (outcome, uplift, treated), weight=weight, clusters=clusters, at=SHARES, rng=rng)


def reliability_band(
    outcome: Array, probability: Array, *, clusters: Clusters, rng: np.random.Generator, bins: int = 10
) -> Band:
    """Draw the rate of the outcome over the mean probability, in bins of equally many rows."""
    at, _ = reliability_curve(outcome, probability, bins=bins)

    def curve(outcome: Array, probability: Array, *, weight: Array | None) -> tuple[Floats, Floats]:
        return reliability_curve(outcome, probability, weight=weight, bins=bins)

    return _band(curve, (outcome, probability), weight=None, clusters=clusters, at=at, rng=rng)


def reliability_curve(
    outcome: Array, probability: Array, *, weight: Array | None = None, bins: int = 10
) -> tuple[Floats, Floats]:
    """Give (mean probability, rate of the outcome) in bins of equally many rows; equal probabilities share a bin.

    >>> predicted, rate = reliability_curve(np.array([0, 1, 1, 1]), np.array([0.5, 0.5, 0.9, 0.9]), bins=2)
    >>> predicted.tolist(), rate.tolist()
    ([0.5, 0.9], [0.5, 1.0])
    """
    p = np.asarray(probability, dtype=np.float64)
    w = np.ones(len(p)) if weight is None else weight
    bin_of = bins_of(p, bins)
    size, mean, rate = (np.bincount(bin_of, weights=v, minlength=bins) for v in (w, w * p, w * outcome))
    drawn = size > 0
    return mean[drawn] / size[drawn], rate[drawn] / size[drawn]


def _band(
    curve: Curve,
    arrays: Sequence[Array],
    *,
    weight: Array | None,
    clusters: Clusters,
    at: Floats,
    rng: np.random.Generator,
) -> Band:
    rows = np.ones(len(arrays[0])) if weight is None else np.asarray(weight, dtype=np.float64)

    def points(*columns: Array, weight: Array | None) -> Floats:
        *of_curve, given = columns
        x, y = curve(*of_curve, weight=given if weight is None else given * weight)
        return np.interp(at, x, y)

    return Band(at, *bootstrap_all(points, *arrays, rows, clusters=clusters, rng=rng))
