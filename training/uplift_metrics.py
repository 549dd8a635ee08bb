"""How well predicted uplift ranks members, and how much of it is there: curves, areas and calibration.

The sign is kept everywhere: a ranking worse than chance scores below it. Metrics take their rows as those of `metrics`
do, and a `weight` for each.
"""

from dataclasses import dataclass

import numpy as np

from features.errors import ContractError
from training.metrics import Array, Floats, by_score


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
    return top.share, top.share * top.effect()


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
    return top.share, top.n_treated * top.effect() / top.n_treated[-1]


def qini_coefficient(outcome: Array, uplift: Array, treated: Array, *, weight: Array | None = None) -> float:
    """Measure the area between the Qini curve and the straight line of random targeting, in the outcome's unit.

    Positive ranks better than chance, 0 as chance, negative worse: the sign is kept. It is not divided by the area of a
    perfect ranking, which money has no agreed form of.

    >>> qini_coefficient(np.array([3, 1, 1, 1]), np.array([2, 2, 1, 1]), np.array([1, 0, 1, 0]))
    0.25
    """
    share, gain = qini_curve(outcome, uplift, treated, weight=weight)
    return float(np.trapezoid(gain - share * gain[-1], share))


def uplift_at(outcome: Array, uplift: Array, treated: Array, *, share: float, weight: Array | None = None) -> float:
    """Estimate the effect among the top `share` of members; of those tied at the cut the due part counts.

    >>> uplift_at(np.array([3, 1, 1, 1]), np.array([2, 2, 1, 1]), np.array([1, 0, 1, 0]), share=0.5)
    2.0
    """
    if not 0 < share <= 1:
        raise ContractError(f"share {share} came, above 0 and at most 1 was wanted")
    return float(_Top.ranked(outcome, uplift, treated, weight).cut(share).effect()[0])


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
        w = np.ones(len(outcome)) if weight is None else np.asarray(weight, dtype=np.float64)
        t, c = w * (np.asarray(treated) > 0), w * (np.asarray(treated) <= 0)
        if not t.any() or not c.any():
            raise ContractError(f"{len(w)} rows of one arm came, treated and control were wanted; log the other too")
        groups = by_score(-np.asarray(uplift, dtype=np.float64), w, t, c, t * outcome, c * outcome)
        rows, *sums = (np.concatenate([[0.0], np.cumsum(group)]) for group in groups)
        return cls(rows / rows[-1], *sums)

    def cut(self, share: float) -> "_Top":
        columns = (self.n_treated, self.n_control, self.sum_treated, self.sum_control)
        return _Top(np.array([share]), *(np.interp([share], self.share, column) for column in columns))

    def effect(self) -> Floats:
        both = (self.n_treated > 0) & (self.n_control > 0)
        treated = self.sum_treated / np.where(both, self.n_treated, 1)
        control = self.sum_control / np.where(both, self.n_control, 1)
        return np.where(both, treated - control, 0.0)
