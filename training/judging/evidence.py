"""How much a log says: means with intervals that know whose rows are whose, and whether the log can be believed."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincc, ndtr, stdtrit

from features.errors import ContractError
from training.metrics import Estimate

Floats = NDArray[np.float64]

SURE: Final = 0.975  # the upper end of a two-sided interval of 95 %
Z: Final = 1.959964  # its normal quantile
Z_POWER: Final = 0.841621  # the 80 % quantile
GROUPS: Final = 10_000


def estimate(terms: Floats, member_ids: Sequence[Any] | NDArray[Any]) -> Estimate:
    """Average terms `(n,)`, with the 95 % interval of a mean clustered by member.

    se² = C / (C - 1) Σ_c (Σ_{i in c} (t_i - mean))² / n², over C members; Liang and Zeger, Biometrika 1986.
    The quantile is Student's of C - 1 degrees.

    >>> round(estimate(np.array([1.0, 3.0]), ["a", "b"]).upper, 2)  # 2 + 12.71 · sqrt(2 · (1 + 1) / 2²)
    14.71
    """
    members = _Members.of(member_ids)
    n, mean = len(terms), float(np.mean(terms))
    error = float(np.sqrt(members.count / (members.count - 1) * np.sum(members.sums(terms - mean) ** 2))) / n
    reach = float(stdtrit(members.count - 1, SURE)) * error
    return Estimate(value=mean, lower=mean - reach, upper=mean + reach, n=n)


def bootstrap(
    terms: Floats, member_ids: Sequence[Any] | NDArray[Any], *, rng: np.random.Generator, n_resamples: int = 1000
) -> list[Estimate]:
    """Average each column of terms `(n, k)`, with percentile 95 % intervals over members drawn anew.

    All columns see the same draws. Percentiles lie as far out as makes the interval Student's where terms are normal:
    plain ones are too narrow for few members (Hesterberg, "What teachers should know about the bootstrap", The American
    Statistician 2015). Student's degrees are as many as the members know of the variance; see `_degrees`. In
    `estimate`, whose misses lie on one side, that made an interval that was right a sixth wider: there they are C - 1.
    Of more than 10,000 members groups are drawn, for the same interval in less time.
    """
    members = _Members.of(member_ids, most=GROUPS)
    sums = np.column_stack([members.sums(column) for column in (*terms.T, np.ones(len(terms)))])
    draws = (rng.integers(members.count, size=members.count) for _ in range(n_resamples))
    # einsum, since a product by BLAS may differ in the last bit between columns that are the same
    drawn = np.stack([np.einsum("c,ck", np.bincount(draw, minlength=members.count), sums) for draw in draws])
    means = drawn[:, :-1] / drawn[:, -1:]
    found = []
    for drawn_means, column, mean in zip(means.T, sums.T, terms.mean(axis=0), strict=False):
        degrees = _degrees(column - mean * sums[:, -1])
        tail = ndtr(-np.sqrt(members.count / (members.count - 1)) * stdtrit(degrees, SURE))
        lower, upper = np.quantile(drawn_means, [tail, 1 - tail])
        found.append(Estimate(float(mean), float(lower), float(upper), len(terms)))
    return found


def _degrees(apart: Floats) -> float:
    """Say how many degrees of freedom a variance has that was found from members `apart` `(C,)` from their mean.

    Moments matched (Satterthwaite, Biometrics Bulletin 1946): 2 E(s²)² / Var(s²), where Var(s²) / s⁴ is
    2 / (C - 1) + (κ - 3) / C and κ is the kurtosis: C - 1 where members are normal or of lighter tails, few where a
    few carry the estimate.

    >>> _degrees(np.array([-1.0, -1, 1, 1])), round(_degrees(np.array([-3.0] + 99 * [3 / 99])), 1)  # κ of 98
    (3.0, 2.1)
    """
    count, square = len(apart), float(np.sum(apart**2))
    kurtosis = count * float(np.sum(apart**4)) / square**2 if square > 0 else 0.0
    return 2 / (2 / (count - 1) + max(kurtosis - 3, 0.0) / count)


@dataclass(frozen=True)
class _Members:
    """Know whose rows are whose."""

    member: NDArray[np.intp]  # (n,)
    count: int

    @classmethod
    def of(cls, member_ids: Sequence[Any] | NDArray[Any], *, most: int | None = None) -> Self:
        """Give each member a number; with `most`, so many groups of members one."""
        _, member = np.unique(np.asarray(member_ids), return_inverse=True)
        count = int(member.max()) + 1
        if count < 2:  # noqa: PLR2004 (one member has no spread)
            raise ContractError(
                "decisions on one member came, at least two members were wanted; an interval needs both"
            )
        return cls(member, count) if most is None or count <= most else cls(member % most, most)

    def sums(self, column: Floats) -> Floats:
        """Add up a column `(n,)` by member."""
        return np.bincount(self.member, weights=column, minlength=self.count).astype(np.float64)


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
