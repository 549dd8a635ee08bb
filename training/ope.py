"""Off-policy evaluation: what a policy would have earned, from the log of another one.

An estimator turns a log `(treatment, propensity, outcome)` and an evaluation policy `(n, 1 + n_offers)` into one term
for each row, whose mean is the policy value. Terms of two policies subtract row by row, so a difference is paired, and
sums of terms by member give intervals that know that a member's rows are alike. Column 0 is `control`, as in `policy`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincc

from features.errors import ContractError
from training.metrics import Estimate

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

Z: Final = 1.959964  # two-sided 95 %
Z_POWER: Final = 0.841621  # the 80 % quantile

NO_CONTACT: Final = "no contact"
RANDOM: Final = "random"
BEST_FIXED: Final = "best fixed offer"


@dataclass(frozen=True)
class Log:
    """Hold what a logging policy did and what followed, one row per decision; money in minor units.

    Parameters
    ----------
    treatment : (n,) index, 0 for control
    propensity : (n,) probability of the logged treatment, above 0
    outcome : (n,) before contact costs
    contact_cost : (1 + n_offers,), of control first
    member_ids : (n,) rows of one member count as one piece of evidence

    Raises
    ------
    ContractError
        For rows from which nothing can be estimated.
    """

    treatment: NDArray[np.intp]
    propensity: Floats
    outcome: Floats
    contact_cost: Floats
    member_ids: Sequence[Any] | NDArray[Any]

    def __post_init__(self) -> None:
        lengths = {len(self.treatment), len(self.propensity), len(self.outcome), len(self.member_ids)}
        if len(lengths) != 1 or not len(self):
            raise ContractError(f"columns of {sorted(lengths)} rows came; equally many, at least one, were wanted")
        bad = ~((self.propensity > 0) & (self.propensity <= 1))
        if bad.any():
            raise ContractError(f"{bad.sum()} propensities outside (0, 1] came; a decision is logged with its chance")
        if not np.isfinite(self.outcome).all():
            raise ContractError("an outcome that is no finite number came; leave out rows whose horizon has not passed")
        if self.treatment.min() < 0 or self.treatment.max() >= self.n_treatments:
            raise ContractError(f"a treatment outside 0 to {self.n_treatments - 1} came; give each offer its cost")

    def __len__(self) -> int:
        return len(self.treatment)

    @property
    def n_treatments(self) -> int:
        """The number of offers and control."""
        return len(self.contact_cost)

    @property
    def reward(self) -> Floats:
        """The outcome after contact costs, `(n,)`."""
        return np.asarray(self.outcome - self.contact_cost[self.treatment], dtype=np.float64)

    def of_logged(self, matrix: Floats) -> Floats:
        """Pick the logged treatment's column in each row of `(n, 1 + n_offers)`."""
        return np.asarray(matrix[np.arange(len(self)), self.treatment], dtype=np.float64)


@dataclass(frozen=True)
class PolicyRow:
    """Hold one policy of the comparison: money in minor units per decision."""

    policy_value: Estimate
    against_no_contact: Estimate
    against_best_fixed: Estimate
    effective_sample_size: float
    contacted: float  # share of decisions that send something


def importance_weights(log: Log, policy: Floats) -> Floats:
    """Divide the evaluation policy's probability of the logged treatment by its propensity, `(n,)`."""
    if policy.shape != (len(log), log.n_treatments):
        raise ContractError(f"a policy of shape {policy.shape} came, {(len(log), log.n_treatments)} was wanted")
    return log.of_logged(policy) / log.propensity


def ips(log: Log, policy: Floats) -> Floats:
    """Weigh each reward by inverse propensity: w r. Unbiased where propensities are right.

    Horvitz and Thompson, "A generalization of sampling without replacement from a finite universe", JASA 1952.
    """
    return importance_weights(log, policy) * log.reward


def snips(log: Log, policy: Floats) -> Floats:
    """Divide by the weights' mean: V = Σ w r / Σ w; the terms are V + w (r - V) / mean(w), the estimator's linear form.

    Biased by order 1 / n, of less variance, and moved by a constant when all rewards are. Swaminathan and Joachims,
    "The self-normalized estimator for counterfactual learning", NeurIPS 2015.
    """
    w, reward = importance_weights(log, policy), log.reward
    if not w.any():
        raise ContractError("the log never took a treatment of this policy, nothing is known of it; explore more")
    value = (w @ reward) / w.sum()
    return np.asarray(value + w * (reward - value) / w.mean())


def dm(log: Log, policy: Floats, q: Floats) -> Floats:
    """Believe the outcome model: Σ_a π(a) (q(a) - cost(a)). As biased as the model.

    Parameters
    ----------
    q : (n, 1 + n_offers) predicted outcome before contact costs, by a model that has not seen these rows
    """
    _check_predictions(log, q)
    return np.asarray(np.sum(policy * (q - log.contact_cost), axis=1))


def dr(log: Log, policy: Floats, q: Floats) -> Floats:
    """Correct the outcome model by its weighted errors: dm + w (outcome - q(logged)).

    Unbiased if either the propensities or the model are right. Dudík, Langford and Li, "Doubly robust policy evaluation
    and learning", ICML 2011. Arguments as in `dm`.
    """
    return dm(log, policy, q) + importance_weights(log, policy) * (log.outcome - log.of_logged(q))


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


def fixed(treatment: int, eligible: Flags) -> Floats:
    """Write as probabilities the policy that sends everybody one offer, and control to who may not have it."""
    policy = np.zeros((len(eligible), 1 + eligible.shape[1]))
    possible = eligible[:, treatment - 1] if treatment else np.zeros(len(eligible), dtype=np.bool_)
    policy[:, treatment] = possible
    policy[:, 0] += ~possible
    return policy


def uniform(eligible: Flags) -> Floats:
    """Write as probabilities the policy that sends an eligible offer at random, and control where there is none."""
    policy = np.column_stack([~eligible.any(axis=1), eligible]).astype(np.float64)
    return np.asarray(policy / policy.sum(axis=1, keepdims=True))


def choose_fixed(log: Log, eligible: Flags, *, q: Floats | None = None) -> int:
    """Choose the best fixed offer's index, on the training part of a log: chosen on the test part it wins by luck.

    Offers are judged by `dr` if there is an outcome model, else by `snips`; one the log never took can't win.
    """
    values = np.full(log.n_treatments, -np.inf)
    for offer in np.unique(log.treatment[log.treatment > 0]):
        policy = fixed(int(offer), eligible)
        values[offer] = float(np.mean(snips(log, policy) if q is None else dr(log, policy, q)))
    if np.isneginf(values).all():
        raise ContractError("a log without any offer came, at least one was wanted; explore more")
    return int(np.argmax(values))


def compare(
    log: Log, policies: Mapping[str, Floats], *, best_fixed: int, eligible: Flags, q: Floats | None = None
) -> dict[str, PolicyRow]:
    """Set no contact, random, the best fixed offer and given policies side by side, in that order.

    Parameters
    ----------
    log : the test part
    policies : name -> (n, 1 + n_offers): the model, the champion, an oracle
    best_fixed : the offer that `choose_fixed` took on the training part
    eligible : (n, n_offers)
    q : (n, 1 + n_offers) predicted outcomes, for `dr`; without them the estimator is `snips`
    """
    rivals = {NO_CONTACT: fixed(0, eligible), RANDOM: uniform(eligible), BEST_FIXED: fixed(best_fixed, eligible)}
    everything = rivals | dict(policies)
    terms = {name: snips(log, p) if q is None else dr(log, p, q) for name, p in everything.items()}
    return {
        name: PolicyRow(
            policy_value=estimate(terms[name], log.member_ids),
            against_no_contact=estimate(terms[name] - terms[NO_CONTACT], log.member_ids),
            against_best_fixed=estimate(terms[name] - terms[BEST_FIXED], log.member_ids),
            effective_sample_size=effective_sample_size(importance_weights(log, policy)),
            contacted=float(1 - policy[:, 0].mean()),
        )
        for name, policy in everything.items()
    }


def _check_predictions(log: Log, q: Floats) -> None:
    if q.shape != (len(log), log.n_treatments) or not np.isfinite(q).all():
        raise ContractError(
            f"predictions of shape {q.shape} came, finite ones of {(len(log), log.n_treatments)} were wanted"
        )
