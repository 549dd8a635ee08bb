"""Uplift learned from an experiment's log, and the policy it makes, beside the policies one would have without it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.errors import ContractError
from features.offers import Catalogue, read_catalogue
from features.programme import Programme
from features.schema import CONTROL
from features.synthetic import TRUTH, oracle
from training.artifacts import Release, Scores
from training.judging.estimators import Log, dr
from training.judging.evidence import estimate
from training.logged.log import log_of
from training.logged.overlap import overlap_of
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
from training.policy import (
    Terms,
    benefit_errors,
    benefits,
    costs,
    greedy,
    net_values,
    terms_of,
)
from training.preparation import Prepared
from training.releases.manifest import OfferSpec, plain
from training.uplift import Outcome, UpliftModel, fit_uplifts

Floats = NDArray[np.float64]
MODEL, ORACLE, CHAMPION = "model", "oracle", "champion"
MARGIN, RETENTION = "margin", "retention"  # the outcomes that uplift is learned of


@dataclass(frozen=True)
class Judgement:
    """Hold what the test part of the log says of the policies; money in minor units per decision."""

    table: dict[str, PolicyRow]
    against_champion: Estimate | None
    best_fixed: str
    personalised: bool  # whether members are treated differently: a policy that is one offer for all is not
    contacted: Floats  # (n,) probability that each decision sends something
    overlap: dict[str, dict[str, float | None]]  # by treatment: what the log has seen of the policy; see `overlap`
    truth: dict[str, Estimate]  # by policy: its true gain over no contact; only where the truth is known
    truth_correlation: dict[str, float]  # by offer, of predicted with true uplift; likewise

    def to_json(self) -> dict[str, Any]:
        """Give all but the single decisions as JSON values."""
        return {name: plain(value) for name, value in vars(self).items() if name != "contacted"}


def learn_uplift(
    log: pd.DataFrame, features: Sequence[str], offers: Sequence[OfferSpec], rng: np.random.Generator
) -> dict[str, UpliftModel]:
    """Fit every offer's uplift on margin and retention, and its chance of redemption; columns come as `offers` do.

    Raises
    ------
    ContractError
        If an offer was never tried.
    """
    cost = {offer.offer_id: float(offer.contact_cost) for offer in offers}
    untried = sorted(set(cost) - set(log["treatment"]))
    if untried:
        raise ContractError(f"the log never tried {untried}; explore them, or take them out of the offers table")
    tried = sorted(set(log["treatment"]) - {CONTROL})
    if tried != list(cost):
        raise ContractError(f"offers came in the order {list(cost)}, {tried} was wanted: sort them by offer_id")
    return fit_uplifts(
        log[list(features)],
        log["treatment"].to_numpy(),
        {MARGIN: Outcome(log["outcome"], cost), RETENTION: Outcome(log["retained"])},
        log["propensity"].to_numpy(),
        redeemed=log["redeemed"],
        clusters=log["member_id"].to_numpy(),
        rng=rng,
    )


def judge_policies(
    log: pd.DataFrame,
    scores: Scores,
    average_effect: Mapping[str, float],
    *,
    offers: Sequence[OfferSpec],
    policy: Floats,
    champion: Floats | None,
) -> Judgement:
    """Value the model's policy and its rivals on the later part of the log, doubly robust, clustered by member.

    The best fixed offer is the one the training part chose, so that it does not win by luck on the test part.

    Parameters
    ----------
    scores : of the log's rows, columns of `uplift` in the order of `offers`
    average_effect : by offer, in the training part
    policy, champion : (n, 1 + n_offers) what the model and the champion would do, as `served` and `champion_policy` say
    """
    ids = [offer.offer_id for offer in offers]
    cost = np.array([offer.contact_cost for offer in offers], dtype=np.float64)
    policies = {MODEL: policy}
    if f"{TRUTH}{ids[0]}" in log:
        policies[ORACLE] = greedy(net_values(oracle(log, ids), cost))
    if champion is not None:
        policies[CHAMPION] = champion
    best = int(np.argmax([average_effect[name] for name in ids] - cost))
    test = log_of(log, offers)
    q = scores.margin_by_treatment
    everybody = np.ones((len(log), len(offers)), dtype=np.bool_)
    everything = policies | {
        NO_CONTACT: fixed(0, everybody),
        RANDOM: uniform(everybody),
        BEST_FIXED: fixed(best + 1, everybody),
    }
    known = ORACLE in policies
    return Judgement(
        table=compare(test, policies, best_fixed=best + 1, eligible=everybody, q=q),
        against_champion=(
            estimate(dr(test, policies[MODEL], q) - dr(test, policies[CHAMPION], q), test.member_ids)
            if CHAMPION in policies
            else None
        ),
        best_fixed=ids[best],
        personalised=len(np.unique(policies[MODEL], axis=0)) > 1,
        contacted=1.0 - policies[MODEL][:, 0],
        overlap=_overlap(test, policies[MODEL], (CONTROL, *ids)),
        truth=_true_gains(log, everything, ids, cost) if known else {},
        truth_correlation=_correlation(log, ids, scores.uplift) if known else {},
    )


def served(scores: Scores, terms: Terms, *, floor: float = 0.0) -> Floats:
    """Write as probabilities the policy that is served, without hold-out, exploration and constraints.

    Parameters
    ----------
    floor : how many standard errors of its benefit an offer's net value has to be above
    """
    net_value = net_values(benefits(scores, terms), costs(scores, terms))
    return greedy(net_value, bar=floor * benefit_errors(scores, terms))


def model_policy(scores: Scores, offers: Sequence[OfferSpec], prepared: Prepared) -> Floats:
    """Write what the programme as it is would do by these scores."""
    terms = terms_of(read_catalogue(prepared.warehouse, prepared.programme), offers)
    return served(scores, terms, floor=prepared.programme.experiment.floor)


def champion_policy(
    log: pd.DataFrame, champion: Release, offer_ids: Sequence[str], *, catalogue: Catalogue
) -> Floats | None:
    """Write what a champion would do on these rows under today's terms; None if it has an offer that the log lacks."""
    if not set(champion.offer_ids) <= set(offer_ids):
        return None
    scores, own = champion.score(columns_of(log, champion)), [offer_ids.index(name) for name in champion.offer_ids]
    floor = Programme.model_validate(champion.manifest.programme).experiment.floor
    policy = np.zeros((len(log), 1 + len(offer_ids)))
    policy[:, [0, *(1 + place for place in own)]] = served(
        scores, terms_of(catalogue, champion.manifest.offers), floor=floor
    )
    return policy


def columns_of(frame: pd.DataFrame, release: Release) -> NDArray[np.float32]:
    """Give the matrix a release reads, `(n, n_features)`.

    Raises
    ------
    ContractError
        If one of its features is no longer computed.
    """
    missing = [name for name in release.feature_names if name not in frame]
    if missing:
        raise ContractError(
            f"the champion reads features that are no longer computed: {missing}; promote a new one by hand"
        )
    return frame[list(release.feature_names)].to_numpy(dtype=np.float32)


def _overlap(log: Log, policy: Floats, treatments: Sequence[str]) -> dict[str, dict[str, float | None]]:
    rows = overlap_of(log, policy, treatments).to_dict("index")
    return {str(name): {str(of): None if np.isnan(x) else x for of, x in row.items()} for name, row in rows.items()}


def _true_gains(
    log: pd.DataFrame, policies: Mapping[str, Floats], offer_ids: Sequence[str], cost: Floats
) -> dict[str, Estimate]:
    """Average what the simulation gives each policy, without the noise of outcomes."""
    gain = np.hstack([np.zeros((len(log), 1)), oracle(log, offer_ids) - cost])
    members = log["member_id"].to_numpy()
    return {name: estimate((policy * gain).sum(axis=1), members) for name, policy in policies.items()}


def _correlation(log: pd.DataFrame, offer_ids: Sequence[str], uplift: Floats) -> dict[str, float]:
    truth = oracle(log, offer_ids)
    return {
        offer: float(np.corrcoef(uplift[:, i], truth[:, i])[0, 1]) if np.ptp(uplift[:, i]) > 0 else 0.0
        for i, offer in enumerate(offer_ids)
    }
