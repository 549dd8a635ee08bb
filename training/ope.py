"""Off-policy evaluation: policies side by side, each with what it would have earned and how sure that is.

The estimators are in `estimators`; column 0 of every policy `(n, 1 + n_offers)` is `control`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from features.errors import ContractError
from features.schema import CONTROL
from training.encoding import fit_encoding
from training.estimators import Flags, Floats, Log, dm, dr, importance_weights, ips, snips
from training.evidence import effective_sample_size, estimate
from training.learners import Experiment, fit_nuisance
from training.metrics import Estimate
from training.splits import folds_of

NO_CONTACT: Final = "no contact"
RANDOM: Final = "random"
BEST_FIXED: Final = "best fixed offer"
GIVEN: Final = "policy"  # the one that `evaluate_policy` was asked about
NEEDED: Final = ("treatment", "propensity", "outcome")


@dataclass(frozen=True)
class PolicyRow:
    """Hold one policy of the comparison: money in minor units per decision."""

    policy_value: Estimate
    against_no_contact: Estimate
    against_best_fixed: Estimate
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
    rng : draws the folds; the same every time if not given

    Returns
    -------
    indexed by policy and estimator (`snips`, `ips`, and `dr`, `dm` where features are given): policy_value,
    against_no_contact and against_best_fixed, each with its 95 % interval as `_lower` and `_upper`, in the outcome's
    unit per decision; effective_sample_size; contacted, the share that is sent something. Missing where the log never
    took what the policy takes.

    The best fixed offer is chosen on the other half of the members each time, so it does not win by luck.

    Raises
    ------
    ContractError
        For columns or probabilities that are not there, and rows from which nothing can be estimated.
    """
    rng = rng or np.random.default_rng(0)
    offers, data = _read(log, contact_cost or {})
    q = _cross_fitted(log[list(features)], data, rng) if features else None
    eligible = np.ones((len(data), len(offers)), dtype=np.bool_)
    policies = {
        NO_CONTACT: fixed(0, eligible),
        RANDOM: uniform(eligible),
        BEST_FIXED: _best_of_the_other_half(data, eligible, q, rng),
        GIVEN: _probabilities(policy, (CONTROL, *offers), len(data)),
    }
    estimators: dict[str, Callable[[Floats], Floats]] = {"snips": partial(snips, data), "ips": partial(ips, data)}
    if q is not None:
        estimators = {"dr": partial(dr, data, q=q), **estimators, "dm": partial(dm, data, q=q)}
    terms = {name: {key: _terms(data, by, p) for key, p in policies.items()} for name, by in estimators.items()}
    rows = {
        (key, name): {
            **_interval("policy_value", found[key], data),
            **_interval("against_no_contact", found[key] - found[NO_CONTACT], data),
            **_interval("against_best_fixed", found[key] - found[BEST_FIXED], data),
            "effective_sample_size": effective_sample_size(importance_weights(data, p)),
            "contacted": float(1 - p[:, 0].mean()),
        }
        for key, p in policies.items()
        for name, found in terms.items()
    }
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table.set_axis(pd.MultiIndex.from_tuples(table.index, names=["policy", "estimator"]))


def _read(log: pd.DataFrame, contact_cost: Mapping[str, float]) -> tuple[tuple[str, ...], Log]:
    missing = [name for name in NEEDED if name not in log]
    if missing:
        raise ContractError(f"the log lacks {missing}; wanted {list(NEEDED)}, and member_id where members come again")
    treatment = log["treatment"].astype(str)
    offers = tuple(sorted((set(treatment) | set(contact_cost)) - {CONTROL}))
    if not offers:
        raise ContractError(f"only {CONTROL!r} was logged; wanted at least one offer beside it")
    places = {CONTROL: 0} | {offer: place for place, offer in enumerate(offers, 1)}
    return offers, Log(
        treatment=np.asarray(treatment.map(places), dtype=np.intp),
        propensity=log["propensity"].to_numpy(dtype=np.float64),
        outcome=log["outcome"].to_numpy(dtype=np.float64),
        contact_cost=np.array([0.0, *(contact_cost.get(offer, 0.0) for offer in offers)]),
        member_ids=log["member_id"].to_numpy() if "member_id" in log else np.arange(len(log)),
    )


def _probabilities(policy: pd.DataFrame | ArrayLike, treatments: Sequence[str], n: int) -> Floats:
    """Write a policy as probabilities `(n, 1 + n_offers)`, control first."""
    if not isinstance(policy, pd.DataFrame):
        chosen = np.asarray(policy).astype(str)
        policy = pd.DataFrame({name: (chosen == name).astype(np.float64) for name in dict.fromkeys(chosen)})
    strangers = [name for name in policy if name not in treatments]
    if strangers or len(policy) != n:
        raise ContractError(
            f"a policy of {len(policy)} rows and treatments {list(policy)} came; wanted {n} rows and {list(treatments)}"
        )
    matrix = policy.reindex(columns=list(treatments), fill_value=0.0).to_numpy(dtype=np.float64)
    if not (matrix >= 0).all() or not np.allclose(matrix.sum(axis=1), 1):
        raise ContractError("probabilities that are negative, missing or do not add up to 1 came; each row's have to")
    return matrix


def _cross_fitted(features: pd.DataFrame, data: Log, rng: np.random.Generator) -> Floats:
    """Predict every row's outcome under every treatment, by models that have not seen its member."""
    cluster = np.unique(np.asarray(data.member_ids), return_inverse=True)[1]
    experiment = Experiment(
        X=fit_encoding(features).matrix(features),
        arm=data.treatment,
        outcome=data.outcome,
        propensity=data.propensity,
        cluster=cluster,
        arms=data.n_treatments,
    )
    return fit_nuisance(experiment, rng=rng).outcome_means


def _best_of_the_other_half(data: Log, eligible: Flags, q: Floats | None, rng: np.random.Generator) -> Floats:
    half = folds_of(np.unique(np.asarray(data.member_ids), return_inverse=True)[1], 2, rng)
    policy = np.empty((len(data), data.n_treatments))
    for k in range(2):
        there, other = half == k, half != k
        best = choose_fixed(data.take(other), eligible[other], q=None if q is None else q[other])
        policy[there] = fixed(best, eligible[there])
    return policy


def _terms(data: Log, estimator: Callable[[Floats], Floats], policy: Floats) -> Floats:
    """Give an estimator's terms; missing ones where the log never took a treatment that the policy takes."""
    never = np.bincount(data.treatment, minlength=data.n_treatments) == 0
    return np.full(len(data), np.nan) if policy[:, never].any() else estimator(policy)


def _interval(name: str, terms: Floats, data: Log) -> dict[str, float]:
    if np.isnan(terms).any():
        return dict.fromkeys((name, f"{name}_lower", f"{name}_upper"), np.nan)
    found = estimate(terms, data.member_ids)
    return {name: found.value, f"{name}_lower": found.lower, f"{name}_upper": found.upper}
