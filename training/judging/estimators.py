"""Estimators of what a policy would have earned, from the log of another one.

An estimator turns a log `(treatment, propensity, outcome)` and an evaluation policy `(n, 1 + n_offers)` into one term
for each row, whose mean is the policy value. Terms of two policies subtract row by row, so a difference is paired, and
sums of terms by member give intervals that know that a member's rows are alike. Column 0 is `control`, as in `policy`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.errors import ContractError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


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

    @cached_property
    def clusters(self) -> NDArray[np.intp]:
        """The number of each row's member, `(n,)`."""
        return np.unique(np.asarray(self.member_ids), return_inverse=True)[1]

    @cached_property
    def members_by_treatment(self) -> NDArray[np.intp]:
        """How many members got each treatment, `(1 + n_offers,)`."""
        pairs = np.unique(self.treatment * (self.clusters.max() + 1) + self.clusters)
        return np.bincount(pairs // (self.clusters.max() + 1), minlength=self.n_treatments)

    def take(self, rows: Flags) -> "Log":
        """Give the log of some rows."""
        return replace(
            self,
            treatment=self.treatment[rows],
            propensity=self.propensity[rows],
            outcome=self.outcome[rows],
            member_ids=np.asarray(self.member_ids)[rows],
        )

    def of_logged(self, matrix: Floats) -> Floats:
        """Pick the logged treatment's column in each row of `(n, 1 + n_offers)`."""
        return np.asarray(matrix[np.arange(len(self)), self.treatment], dtype=np.float64)


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


def _check_predictions(log: Log, q: Floats) -> None:
    if q.shape != (len(log), log.n_treatments) or not np.isfinite(q).all():
        raise ContractError(
            f"predictions of shape {q.shape} came, finite ones of {(len(log), log.n_treatments)} were wanted"
        )
