"""How well predicted uplift ranks members, and how much of it is there: curves, areas and calibration.

The sign is kept everywhere: a ranking worse than chance scores below it. Metrics take their rows as those of `metrics`
do, and a `weight` for each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features.errors import ContractError
from training.judging.evidence import estimate
from training.metrics import Array, Clusters, Estimate, Floats, bins_of, by_score

TENTHS: Final = 10
FIFTHS: Final = 5
ENOUGH_OF_A_TENTH: Final = 100  # rows of the rarer arm


def uplift_curve(
    outcome: Array, uplift: Array, treated: Array, *, weight: Array | None = None
) -> tuple[Floats, Floats]:
    """Give (share of members treated, gain per member), best predicted uplift first.

    gain(s) = s · (mean outcome of treated - mean outcome of control among the top share s): what treating them brings
    per member of all. It ends at the average effect. Members of equal score enter together, on a straight line. Where
    the top holds no treated or no control member the gain is not known and stays 0.

    Parameters
    ----------
    outcome : (n,) of members given one offer or control, at random
    uplift : (n,) predicted
    treated : (n,) true for the offer, false for control
    weight : (n,) inverse propensities where these differ between members

    References
    ----------
    Gutierrez and Gérardy, "Causal inference and uplift modelling: a review of the literature", PMLR 67, 2017.

    >>> share, gain = uplift_curve(np.array([3, 1, 1, 1]), np.array([2, 2, 1, 1]), np.array([1, 0, 1, 0]))
    >>> share.tolist(), gain.tolist()
    ([0.0, 0.5, 1.0], [0.0, 1.0, 1.0])
    """
    top = _Top.ranked(outcome, uplift, treated, weight)
    return top.share, top.gain()


def qini_curve(outcome: Array, uplift: Array, treated: Array, *, weight: Array | None = None) -> tuple[Floats, Floats]:
    """Give (share of members treated, incremental outcome per treated member of all), best predicted uplift first.

    qini(s) = (Y_t(s) - Y_c(s) · n_t(s) / n_c(s)) / N_t, with sums and counts over the top share s; arguments and ties
    as in `uplift_curve`.

    References
    ----------
    Radcliffe, "Using control groups to target on predicted lift", Direct Marketing Analytics Journal 2007.

    >>> qini_curve(np.array([3, 1, 1, 1]), np.array([2, 2, 1, 1]), np.array([1, 0, 1, 0]))[1].tolist()
    [0.0, 1.0, 1.0]
    """
    top = _Top.ranked(outcome, uplift, treated, weight)
    return top.share, top.qini()


def qini_coefficient(outcome: Array, uplift: Array, treated: Array, *, weight: Array | None = None) -> float:
    """Measure the area between the Qini curve and the straight line of random targeting, in the outcome's unit.

    Positive ranks better than chance, 0 as chance, negative worse: the sign is kept. It is not divided by the area of a
    perfect ranking, which money has no agreed form of.

    >>> qini_coefficient(np.array([3, 1, 1, 1]), np.array([2, 2, 1, 1]), np.array([1, 0, 1, 0]))
    0.25
    """
    return _Top.ranked(outcome, uplift, treated, weight).qini_coefficient()


def uplift_at(outcome: Array, uplift: Array, treated: Array, *, share: float, weight: Array | None = None) -> float:
    """Estimate the effect among the top `share` of members; of those tied at the cut the due part counts.

    >>> uplift_at(np.array([3, 1, 1, 1]), np.array([2, 2, 1, 1]), np.array([1, 0, 1, 0]), share=0.5)
    2.0
    """
    if not 0 < share <= 1:
        raise ContractError(f"share {share} came, above 0 and at most 1 was wanted")
    return _Top.ranked(outcome, uplift, treated, weight).effect_at(share)


def ranking_metrics(outcome: Array, uplift: Array, treated: Array, *, weight: Array | None = None) -> dict[str, float]:
    """Read all `RANKING_METRICS` from one pass over a ranking.

    >>> ranking_metrics(np.array([3, 1, 1, 1]), np.array([2, 2, 1, 1]), np.array([1, 0, 1, 0]))["uplift_at_30"]
    2.0
    """
    top = _Top.ranked(outcome, uplift, treated, weight)
    return {name: read(top) for name, read in RANKING_METRICS.items()}


def area_under_uplift_curve(outcome: Array, uplift: Array, treated: Array, *, weight: Array | None = None) -> float:
    """Measure the area under the uplift curve (AUUC), in the outcome's unit per member; chance has half the effect.

    >>> area_under_uplift_curve(np.array([3, 1, 1, 1]), np.array([2, 2, 1, 1]), np.array([1, 0, 1, 0]))
    0.75
    """
    return _Top.ranked(outcome, uplift, treated, weight).area()


@dataclass(frozen=True)
class UpliftBin:
    """Set what was promised to members of about equal predicted uplift beside what came."""

    predicted: float
    actual: Estimate


def uplift_calibration(
    outcome: Array,
    uplift: Array,
    treated: Array,
    *,
    clusters: Clusters,
    weight: Array | None = None,
    bins: int = 10,
) -> list[UpliftBin]:
    """Compare in each tenth of the members, by predicted uplift, its mean with the effect that came.

    The effect is the difference of weighted means of the two arms, with the interval of its linear form clustered by
    member. An outcome less a prediction of it that knows nothing of the treatment has the same effect and less noise:
    pass that for a doubly robust table. Equal predictions share a bin; a bin of one arm or one member is left out.

    Parameters
    ----------
    outcome, uplift, treated, weight : as in `uplift_curve`
    clusters : (n,) the member of each row
    """
    members, bin_of = np.asarray(clusters), bins_of(uplift, bins)
    columns = [np.asarray(column, dtype=np.float64) for column in (outcome, treated, _weights(weight, len(bin_of)))]
    found = []
    for k in range(bins):
        rows = bin_of == k
        (y, t, w), inside = (column[rows] for column in columns), members[rows]
        if (w * (t > 0)).any() and (w * (t <= 0)).any() and (inside != inside[0]).any():
            predicted = float(np.mean(np.asarray(uplift)[rows]))
            found.append(UpliftBin(predicted, estimate(_terms(y, t > 0, w), inside)))
    return found


def calibration_bins(treated: Array) -> int:
    """Take tenths where each holds at least 100 rows of the rarer arm, fifths where there are fewer.

    >>> calibration_bins(np.repeat([0, 1], [5000, 1000])), calibration_bins(np.repeat([0, 1], [5000, 999]))
    (10, 5)
    """
    n_treated = int(np.count_nonzero(np.asarray(treated) > 0))
    return TENTHS if min(n_treated, len(treated) - n_treated) >= TENTHS * ENOUGH_OF_A_TENTH else FIFTHS


def uplift_calibration_error(
    outcome: Array, uplift: Array, treated: Array, *, weight: Array | None = None, bins: int = 10
) -> float:
    """Average |mean predicted - actual uplift| over the bins of `uplift_calibration`, by their share of members.

    Chance alone makes about 0.8 standard errors of a bin's effect: read it beside a rival's on the same rows.

    >>> uplift_calibration_error(np.array([3, 1, 1, 1]), np.array([2, 2, 1, 1]), np.array([1, 0, 1, 0]), bins=2)
    0.5
    """
    bin_of, w, t = bins_of(uplift, bins), _weights(weight, len(uplift)), np.asarray(treated) > 0
    total, of_t, of_c = (np.bincount(bin_of, weights=v, minlength=bins) for v in (w, w * t, w * ~t))
    known = (of_t > 0) & (of_c > 0)
    if not known.any():
        raise ContractError(f"{len(w)} rows of one arm came, treated and control were wanted; log the other too")
    sums = (np.bincount(bin_of, weights=v, minlength=bins)[known] for v in (w * t * outcome, w * ~t * outcome))
    predicted = np.bincount(bin_of, weights=w * uplift, minlength=bins)[known] / total[known]
    of_treated, of_control = sums
    gap = predicted - (of_treated / of_t[known] - of_control / of_c[known])
    return float(np.average(np.abs(gap), weights=total[known]))


def _weights(weight: Array | None, n: int) -> Floats:
    return np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64)


def _terms(outcome: Floats, treated: NDArray[np.bool_], weight: Floats) -> Floats:
    """Write a difference of weighted means as one term a row, whose mean it is: its linear form."""
    terms = np.zeros(len(outcome))
    for arm, sign in ((treated, 1.0), (~treated, -1.0)):
        w = weight * arm
        mean = (w @ outcome) / w.sum()
        terms += sign * (mean + len(w) * w * (outcome - mean) / w.sum())
    return terms


@dataclass(frozen=True)
class _Top:
    """Hold counts and sums over the top shares of a ranking, from nobody to everybody."""

    share: Floats
    n_treated: Floats
    n_control: Floats
    sum_treated: Floats
    sum_control: Floats

    @classmethod
    def ranked(cls, outcome: Array, uplift: Array, treated: Array, weight: Array | None) -> "_Top":
        w = _weights(weight, len(outcome))
        t, c = w * (np.asarray(treated) > 0), w * (np.asarray(treated) <= 0)
        if not t.any() or not c.any():
            raise ContractError(f"{len(w)} rows of one arm came, treated and control were wanted; log the other too")
        groups = by_score(uplift, w, t, c, t * outcome, c * outcome)
        rows, *sums = (np.concatenate([[0.0], np.cumsum(group[::-1])]) for group in groups)
        return cls(rows / rows[-1], *sums)

    def effect_at(self, share: float) -> float:
        columns = (self.n_treated, self.n_control, self.sum_treated, self.sum_control)
        cut = _Top(np.array([share]), *(np.interp([share], self.share, column) for column in columns))
        return float(cut.effect()[0])

    def gain(self) -> Floats:
        return self.share * self.effect()

    def area(self) -> float:
        return float(np.trapezoid(self.gain(), self.share))

    def qini(self) -> Floats:
        return np.asarray(self.n_treated * self.effect() / self.n_treated[-1])

    def qini_coefficient(self) -> float:
        qini = self.qini()
        return float(np.trapezoid(qini - self.share * qini[-1], self.share))

    def effect(self) -> Floats:
        both = (self.n_treated > 0) & (self.n_control > 0)
        treated = self.sum_treated / np.where(both, self.n_treated, 1)
        control = self.sum_control / np.where(both, self.n_control, 1)
        return np.where(both, treated - control, 0.0)


RANKING_METRICS: Final[dict[str, Callable[[_Top], float]]] = {
    "qini_coefficient": _Top.qini_coefficient,
    "area_under_uplift_curve": _Top.area,
    "uplift_at_10": lambda top: top.effect_at(0.1),
    "uplift_at_30": lambda top: top.effect_at(0.3),
}
