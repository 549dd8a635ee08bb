"""Uplift learned from an experiment's log, and the policy it makes, beside the policies one would have without it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xgboost as xgb
from numpy.typing import NDArray

from features.errors import ContractError
from features.schema import CONTROL
from features.synthetic import TRUTH, oracle
from training.artifacts import Release
from training.estimators import Log, dr
from training.evidence import estimate, sample_ratio_mismatch
from training.manifest import OfferSpec
from training.metrics import Estimate
from training.ope import (
    BEST_FIXED,
    NO_CONTACT,
    RANDOM,
    PolicyRow,
    compare,
    fixed,
    uniform,
)
from training.policy import net_values, treatment_probabilities
from training.uplift import UpliftModel, fit_uplift
from training.value import predict_value

Floats = NDArray[np.float64]
MODEL, ORACLE, CHAMPION = "model", "oracle", "champion"


@dataclass(frozen=True)
class Judgement:
    """Hold what the test part of the log says of the policies; money in minor units per decision."""

    table: dict[str, PolicyRow]
    against_champion: Estimate | None
    best_fixed: str
    sample_ratio_p: float
    truth: dict[str, Estimate]  # by policy: its true gain over no contact; only where the truth is known
    truth_correlation: dict[str, float]  # by offer, of predicted with true uplift; likewise


def learn_uplift(
    log: pd.DataFrame, features: Sequence[str], offers: Sequence[OfferSpec], rng: np.random.Generator
) -> UpliftModel:
    """Fit the uplift of every offer; its columns come in the order of `offers`.

    Raises
    ------
    ContractError
        If an offer was never tried.
    """
    cost = {offer.offer_id: float(offer.contact_cost) for offer in offers}
    untried = sorted(set(cost) - set(log["treatment"]))
    if untried:
        raise ContractError(f"the log never tried {untried}; explore them, or take them out of the offers table")
    model = fit_uplift(
        log[list(features)],
        log["treatment"].to_numpy(),
        log["outcome"].to_numpy(),
        log["propensity"].to_numpy(),
        clusters=log["member_id"].to_numpy(),
        contact_cost=cost,
        rng=rng,
    )
    if list(model.offers) != list(cost):
        raise ContractError(
            f"offers came in the order {list(cost)}, {list(model.offers)} was wanted: sort them by offer_id"
        )
    return model


def judge_policies(
    log: pd.DataFrame,
    model: UpliftModel,
    value: xgb.Booster,
    *,
    features: Sequence[str],
    offers: Sequence[OfferSpec],
    champion: Release | None,
) -> Judgement:
    """Value the model's policy and its rivals on the later part of the log, doubly robust, clustered by member.

    The best fixed offer is the one the training part chose, so that it does not win by luck on the test part.
    """
    X = log[list(features)].to_numpy(dtype=np.float32)
    cost = np.array([offer.contact_cost for offer in offers], dtype=np.float64)
    uplift = model.predict(X)
    baseline = predict_value(value, X)[:, None]
    test = log_of(log, offers)
    policies = {MODEL: greedy(uplift, cost)}
    if f"{TRUTH}{offers[0].offer_id}" in log:
        policies[ORACLE] = greedy(oracle(log, model.offers), cost)
    if champion is not None and champion.offer_ids == model.offers:
        policies[CHAMPION] = greedy(champion.score(_columns(log, champion)).uplift, cost)
    average = np.array([model.record.average_effect[offer].value for offer in model.offers]) - cost
    q = np.hstack([baseline, baseline + uplift])
    everybody = np.ones((len(log), len(offers)), dtype=np.bool_)
    best = int(np.argmax(average))
    table = compare(test, policies, best_fixed=best + 1, eligible=everybody, q=q)
    everything = policies | {
        NO_CONTACT: fixed(0, everybody),
        RANDOM: uniform(everybody),
        BEST_FIXED: fixed(best + 1, everybody),
    }
    counts = [int((test.treatment == arm).sum()) for arm in range(test.n_treatments)]
    return Judgement(
        table=table,
        against_champion=(
            estimate(dr(test, policies[MODEL], q) - dr(test, policies[CHAMPION], q), test.member_ids)
            if CHAMPION in policies
            else None
        ),
        best_fixed=model.offers[best],
        sample_ratio_p=sample_ratio_mismatch(counts, _expected_shares(log, offers)),
        truth=_true_gains(log, model, everything, cost) if ORACLE in policies else {},
        truth_correlation=_correlation(log, model, uplift) if ORACLE in policies else {},
    )


def log_of(log: pd.DataFrame, offers: Sequence[OfferSpec]) -> Log:
    """Write a frame's log as arrays; treatment 0 is control."""
    index = {CONTROL: 0} | {offer.offer_id: i + 1 for i, offer in enumerate(offers)}
    return Log(
        treatment=log["treatment"].map(index).to_numpy().astype(np.int64),
        propensity=log["propensity"].to_numpy(dtype=np.float64),
        outcome=log["outcome"].to_numpy(dtype=np.float64),
        contact_cost=np.array([0.0, *[float(offer.contact_cost) for offer in offers]]),
        member_ids=log["member_id"].to_numpy(),
    )


def greedy(uplift: Floats, contact_cost: Floats) -> Floats:
    """Write as probabilities the policy that is served, without hold-out and exploration."""
    value = net_values(uplift, contact_cost)
    everybody = np.ones(value.shape, dtype=np.bool_)
    return treatment_probabilities(value, everybody, np.zeros(len(value), dtype=np.bool_), exploration=0.0)


def _columns(log: pd.DataFrame, release: Release) -> NDArray[np.float32]:
    missing = [name for name in release.feature_names if name not in log]
    if missing:
        raise ContractError(
            f"the champion reads features that are no longer computed: {missing}; promote a new one by hand"
        )
    return log[list(release.feature_names)].to_numpy(dtype=np.float32)


def _expected_shares(log: pd.DataFrame, offers: Sequence[OfferSpec]) -> list[float]:
    names = [CONTROL, *[offer.offer_id for offer in offers]]
    shares = log.groupby("treatment")["propensity"].first().reindex(names).to_numpy(dtype=np.float64)
    return [float(share) for share in shares / shares.sum()]


def _true_gains(
    log: pd.DataFrame, model: UpliftModel, policies: Mapping[str, Floats], cost: Floats
) -> dict[str, Estimate]:
    """Average what the simulation gives each policy, without the noise of outcomes."""
    gain = np.hstack([np.zeros((len(log), 1)), oracle(log, model.offers) - cost])
    members = log["member_id"].to_numpy()
    return {name: estimate((policy * gain).sum(axis=1), members) for name, policy in policies.items()}


def _correlation(log: pd.DataFrame, model: UpliftModel, uplift: Floats) -> dict[str, float]:
    truth = oracle(log, model.offers)
    return {
        offer: float(np.corrcoef(uplift[:, i], truth[:, i])[0, 1]) if np.ptp(uplift[:, i]) > 0 else 0.0
        for i, offer in enumerate(model.offers)
    }
