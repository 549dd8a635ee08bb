"""How much a log says: means with intervals that know whose rows are whose, and whether the log can be believed."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincc

from features.errors import ContractError
from training.metrics import Estimate

Floats = NDArray[np.float64]

Z: Final = 1.959964  # two-sided 95 %
Z_POWER: Final = 0.841621  # the 80 % quantile


def estimate(terms: Floats, member_ids: Sequence[Any] | NDArray[Any]) -> Estimate:
    """Average terms `(n,)`, with the normal 95 % interval of a mean clustered by member.

    se² = C / (C - 1) Σ_c (Σ_{i in c} (t_i - mean))² / n², over C members; Liang and Zeger, Biometrika 1986.

    >>> round(estimate(np.array([1.0, 3.0]), ["a", "b"]).upper, 2)  # 2 + 1.96 · sqrt(2 · (1 + 1) / 2²)
    3.96
    """
    _, member = np.unique(np.asarray(member_ids), return_inverse=True)
    n, n_members, mean = len(terms), int(member.max()) + 1, float(np.mean(terms))
    if n_members < 2:  # noqa: PLR2004 (one member has no spread)
        raise ContractError("decisions on one member came, at least two members were wanted; an interval needs both")
    sums = np.bincount(member, weights=terms - mean)
    error = float(np.sqrt(n_members / (n_members - 1) * np.sum(sums**2))) / n
    return Estimate(value=mean, lower=mean - Z * error, upper=mean + Z * error, n=n)


def effective_sample_size(weights: Floats) -> float:
    """Say how many equally weighted rows would know as much: (Σ w)² / Σ w² (Kish 1965; Owen 2013, chapter 9).

    >>> effective_sample_size(np.array([2.0, 2.0, 0.0, 0.0]))
    2.0
    """
    square = float(np.sum(weights**2))
    return float(np.sum(weights)) ** 2 / square if square else 0.0


def smallest_detectable_effect(difference: Estimate) -> float:
    """Say which true difference a log of this size finds four times in five: (z_0.975 + z_0.8) standard errors.

    >>> round(smallest_detectable_effect(Estimate(5.0, -14.6, 24.6, 1000)), 1)
    28.0
    """
    return (Z + Z_POWER) * (difference.upper - difference.lower) / (2 * Z)


def sample_ratio_mismatch(counts: Sequence[int], expected_shares: Sequence[float]) -> float:
    """Give the p value of Pearson's χ² that the arms' sizes came from the planned shares.

    Below 0.001 the assignment or the logging is broken, and no estimate from it holds. Fabijan et al., "Diagnosing
    sample ratio mismatch in online controlled experiments", KDD 2019.

    >>> round(sample_ratio_mismatch([440, 560], [0.5, 0.5]), 4)  # χ² = 2 · 60² / 500 = 14.4
    0.0001
    """
    observed, shares = np.asarray(counts, dtype=np.float64), np.asarray(expected_shares, dtype=np.float64)
    if observed.shape != shares.shape or len(shares) < 2 or not (shares > 0).all() or not observed.sum():  # noqa: PLR2004 (arms)
        raise ContractError(
            f"counts {counts} and shares {expected_shares} came; one of each per arm, above 0, was wanted"
        )
    expected = observed.sum() * shares / shares.sum()
    statistic = float(np.sum((observed - expected) ** 2 / expected))
    return float(gammaincc((len(shares) - 1) / 2, statistic / 2))
