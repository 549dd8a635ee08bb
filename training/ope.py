"""Off-policy evaluation: policies side by side, each with what it would have earned and how sure that is.

The estimators are in `estimators`, what the log can't know in `overlap`; column 0 of every policy `(n, 1 + n_offers)`
is `control`. Every interval stands twice, asymptotic and of resampled members: where they differ much, few decisions of
large weight or outcome carry the estimate, and neither is one of 95 %.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from features.errors import ContractError
from features.schema import CONTROL
from training.judging.estimators import Flags, Floats, Log, dm, dr, importance_weights, ips, snips
from training.judging.evidence import bootstrap, effective_sample_size, estimate, smallest_detectable_effect
from training.judging.frames import read_log, read_policy
from training.learning.encoding import fit_encoding
from training.learning.learners import Experiment, fit_nuisance
from training.logged.balance import sample_ratio_p
from training.metrics import Estimate
from training.splits import folds_of

Key = TypeVar("Key")

NO_CONTACT: Final = "no contact"
RANDOM: Final = "random"
BEST_FIXED: Final = "best fixed offer"
GIVEN: Final = "policy"  # the one that `evaluate_policy` was asked about
MEASURES: Final = ("policy_value", "against_no_contact", "against_best_fixed")
FEWEST_MEMBERS: Final = 10  # with a treatment: fewer are no evidence, and by SNIPS one row would seem to be certain


@dataclass(frozen=True)
class PolicyRow:
    """Hold one policy of the comparison: money in minor units per decision."""

    policy_value: Estimate
    against_no_contact: Estimate
    against_best_fixed: Estimate
    bootstrap: dict[str, Estimate]  # the same three, with intervals of resampled members
    smallest_detectable_effect: float  # the difference from the best fixed offer that is found four times in five
    effective_sample_size: float
    contacted: float  # share of decisions that send something


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

    Offers are judged by `dr` if there is an outcome model, else by `snips`; one that hardly anybody got can't win.
    """
    values = np.full(log.n_treatments, -np.inf)
    for offer in 1 + np.flatnonzero(log.members_by_treatment[1:] >= FEWEST_MEMBERS):
        policy = fixed(int(offer), eligible)
        values[offer] = float(np.mean(snips(log, policy) if q is None else dr(log, policy, q)))
    if np.isneginf(values).all():
        raise ContractError(
            f"no offer went to {FEWEST_MEMBERS} members, at least one that did was wanted; explore more"
        )
    return int(np.argmax(values))


def compare(
    log: Log,
    policies: Mapping[str, Floats],
    *,
    best_fixed: int,
    eligible: Flags,
    q: Floats | None = None,
    rng: np.random.Generator | None = None,
) -> dict[str, PolicyRow]:
    """Set no contact, random, the best fixed offer and given policies side by side, in that order.

    Parameters
    ----------
    log : the test part
    policies : name -> (n, 1 + n_offers): the model, the champion, an oracle
    best_fixed : the offer that `choose_fixed` took on the training part
    eligible : (n, n_offers)
    q : (n, 1 + n_offers) predicted outcomes, for `dr`; without them the estimator is `snips`
    rng : draws the members of the bootstrap; the same every time if not given
    """
    rivals = {NO_CONTACT: fixed(0, eligible), RANDOM: uniform(eligible), BEST_FIXED: fixed(best_fixed, eligible)}
    everything = rivals | dict(policies)
    terms = {name: snips(log, p) if q is None else dr(log, p, q) for name, p in everything.items()}
    found = _intervals(_measures(terms), log, rng or np.random.default_rng(0))
    return {
        name: PolicyRow(
            **{measure: found[name, measure].asymptotic for measure in MEASURES},
            bootstrap={measure: found[name, measure].bootstrap for measure in MEASURES},
            smallest_detectable_effect=smallest_detectable_effect(found[name, "against_best_fixed"].asymptotic),
            effective_sample_size=effective_sample_size(importance_weights(log, policy)),
            contacted=float(1 - policy[:, 0].mean()),
        )
        for name, policy in everything.items()
    }


def evaluate_policy(
    log: pd.DataFrame,
    policy: pd.DataFrame | ArrayLike,
    *,
    features: Sequence[str] = (),
    contact_cost: Mapping[str, float] | None = None,
    rng: np.random.Generator | None = None,
) -> pd.DataFrame:
    """Say what a policy would have earned, by every estimator, beside no contact, random and the best fixed offer.

    Parameters
    ----------
    log : a row per decision: treatment (an offer id or `control`), propensity (of that treatment), outcome (before
        contact costs), and, where members have several rows, member_id
    policy : (n,) the treatment it would have taken in each row, or a frame of probabilities with a column per treatment
    features : columns of the log from which outcomes are predicted, by models that have not seen the member; without
        them there is no direct and no doubly robust estimate
    contact_cost : by offer, in the outcome's unit; nothing if not given
    rng : draws the folds and the members of the bootstrap; the same every time if not given

    Returns
    -------
    indexed by policy and estimator (`snips`, `ips`, and `dr`, `dm` where features are given): policy_value,
    against_no_contact and against_best_fixed, each with its asymptotic 95 % interval as `_lower` and `_upper` and that
    of resampled members as `_bootstrap_lower` and `_bootstrap_upper`, in the outcome's unit per decision;
    smallest_detectable_effect, the difference from the best fixed offer that a log like this finds four times in five;
    effective_sample_size; contacted, the share that is sent something; sample_ratio_p, of the whole log (see
    `training.logged.balance.sample_ratio_p`). Missing where fewer than 10 members got what the policy takes.

    The best fixed offer is chosen on the other half of the members each time, so it does not win by luck.

    Raises
    ------
    ContractError
        For columns or probabilities that are not there, decisions that come twice, and rows from which nothing can be
        estimated.
    """
    rng = rng or np.random.default_rng(0)
    offers, data = read_log(log, contact_cost or {})
    given = read_policy(policy, (CONTROL, *offers), len(data))
    q = _cross_fitted(log[list(features)], data, rng) if features else None
    eligible = np.ones((len(data), len(offers)), dtype=np.bool_)
    policies = {
        NO_CONTACT: fixed(0, eligible),
        RANDOM: uniform(eligible),
        BEST_FIXED: best_of_the_other_half(data, eligible, q, rng),
        GIVEN: given,
    }
    estimators = _estimators(data, q)
    columns = {
        (key, name, measure): terms
        for name, by in estimators.items()
        for (key, measure), terms in _measures({key: _terms(data, by, p) for key, p in policies.items()}).items()
    }
    found, p_value = _intervals(columns, data, rng), sample_ratio_p(data)
    rows = {
        (key, name): {
            **dict(_cells({measure: found[key, name, measure] for measure in MEASURES})),
            "effective_sample_size": effective_sample_size(importance_weights(data, p)),
            "contacted": float(1 - p[:, 0].mean()),
            "sample_ratio_p": p_value,
        }
        for key, p in policies.items()
        for name in estimators
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.set_axis(pd.MultiIndex.from_tuples(table.index, names=["policy", "estimator"]))


def _estimators(data: Log, q: Floats | None) -> dict[str, Callable[[Floats], Floats]]:
    weighted: dict[str, Callable[[Floats], Floats]] = {"snips": partial(snips, data), "ips": partial(ips, data)}
    return weighted if q is None else {"dr": partial(dr, data, q=q), **weighted, "dm": partial(dm, data, q=q)}


@dataclass(frozen=True)
class _Intervals:
    """Hold one mean with its interval by theory and by resampling."""

    asymptotic: Estimate
    bootstrap: Estimate


def _measures(terms: Mapping[str, Floats]) -> dict[tuple[str, str], Floats]:
    """Set each policy's terms, by name, against those of no contact and of the best fixed offer, row by row."""
    nothing, fixed_offer = terms[NO_CONTACT], terms[BEST_FIXED]
    return {
        (name, measure): column
        for name, own in terms.items()
        for measure, column in zip(MEASURES, (own, own - nothing, own - fixed_offer), strict=True)
    }


def _intervals(columns: Mapping[Key, Floats], log: Log, rng: np.random.Generator) -> dict[Key, _Intervals]:
    members = log.clusters
    resampled = bootstrap(np.column_stack(list(columns.values())), members, rng=rng)
    asymptotic = (estimate(terms, members) for terms in columns.values())
    return dict(zip(columns, map(_Intervals, asymptotic, resampled), strict=True))


def _cells(found: Mapping[str, _Intervals]) -> Iterator[tuple[str, float]]:
    for measure, both in found.items():
        yield measure, both.asymptotic.value
        yield f"{measure}_lower", both.asymptotic.lower
        yield f"{measure}_upper", both.asymptotic.upper
        yield f"{measure}_bootstrap_lower", both.bootstrap.lower
        yield f"{measure}_bootstrap_upper", both.bootstrap.upper
    yield "smallest_detectable_effect", smallest_detectable_effect(found["against_best_fixed"].asymptotic)


def _cross_fitted(features: pd.DataFrame, data: Log, rng: np.random.Generator) -> Floats:
    """Predict every row's outcome under every treatment, by models that have not seen its member.

    A treatment that hardly anybody got has no model; the mean of all stands in for it.
    """
    known = data.members_by_treatment >= FEWEST_MEMBERS
    experiment = Experiment(
        X=fit_encoding(features).matrix(features),
        arm=np.where(known, np.cumsum(known) - 1, -1)[data.treatment],
        outcome=data.outcome,
        propensity=data.propensity,
        cluster=data.clusters,
        arms=int(known.sum()),
    )
    nuisance = fit_nuisance(experiment, rng=rng)
    q = np.repeat(nuisance.baseline[:, None], data.n_treatments, axis=1)
    q[:, known] = nuisance.outcome_means
    return q


def best_of_the_other_half(data: Log, eligible: Flags, q: Floats | None, rng: np.random.Generator) -> Floats:
    """Write as probabilities the best fixed offer, for each half of the members as the other half chose it."""
    half = folds_of(data.clusters, 2, rng)
    policy = np.empty((len(data), data.n_treatments))
    for k in range(2):
        there, other = half == k, half != k
        best = choose_fixed(data.take(other), eligible[other], q=None if q is None else q[other])
        policy[there] = fixed(best, eligible[there])
    return policy


def _terms(data: Log, estimator: Callable[[Floats], Floats], policy: Floats) -> Floats:
    """Give an estimator's terms; missing ones where the log hardly took a treatment that the policy takes."""
    scarce = data.members_by_treatment < FEWEST_MEMBERS
    return np.full(len(data), np.nan) if policy[:, scarce].any() else estimator(policy)
