"""The standing comparisons: what other policies would have earned on the same decisions.

Members who were held out had no chance of an offer and are left out; every other decision has its logged chance, so the
rest is off-policy evaluation, doubly robust around what was foreseen and promised. What had no chance stays unknown.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features.errors import ContractError
from features.schema import CONTROL
from training.judging.estimators import Log, dr, importance_weights
from training.judging.evidence import effective_sample_size, estimate
from training.metrics import Estimate
from training.ope import FEWEST_MEMBERS, NO_CONTACT, best_of_the_other_half, fixed, uniform
from training.policy import greedy
from training.reporting.effect import enough, numbered
from training.reporting.rows import DRAWN, HELD, MODEL, Campaign

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

AS_IT_WAS, BEST_OFFER, ANY_OFFER = "as it was", "model", "random eligible offer"
ONE_OFFER, BY_CHURN, UNCAPPED = "best fixed offer", "churn score alone", "model without caps"
NOT_SEEN: Final = 0.01  # of what a policy takes may have had no chance
THIN: Final = 100  # decisions that a comparison has to be worth


@dataclass(frozen=True)
class Standing:
    """Hold what a policy would have earned, in minor units per decision after all costs; None: too much is unseen."""

    policy_value: Estimate | None
    against_no_contact: Estimate | None
    model_lead: Estimate | None  # of the model over it
    effective_sample_size: float
    contacted: float
    unseen: float  # share of what it takes that had no chance here

    @property
    def thin(self) -> bool:
        """Whether so few decisions carry it that its interval means little."""
        return self.effective_sample_size < THIN


def stand(campaign: Campaign, rng: np.random.Generator) -> dict[str, Standing]:
    """Set policies side by side on the decisions that were drawn; none where too few were."""
    drawn = campaign.frame["outcome"].isin(DRAWN).to_numpy()
    members = numbered(campaign.frame["member_id"].to_numpy())
    if not campaign.offers or not enough(drawn.astype(np.float64), members):
        return {}
    line = _foreseen_line(campaign)
    own, line = campaign.take(drawn), line[drawn]
    log = log_of(own)
    gain = np.nan_to_num(own.expected.net_value) * own.in_money
    q = np.column_stack([line, line[:, None] + gain])
    policies = dict(_policies(own, log, q, rng))
    terms = {name: dr(log, rule, q) for name, rule in policies.items()}
    table = _Table(log, own.expected.probabilities, terms)
    return {AS_IT_WAS: table.logged()} | {name: table.row(name, rule) for name, rule in policies.items()}


def _policies(own: Campaign, log: Log, q: Floats, rng: np.random.Generator) -> Iterator[tuple[str, Floats]]:
    """Give policies by name, `(n, 1 + n_offers)`."""
    net, possible = own.expected.net_value, own.expected.possible
    promised = bool(np.isfinite(net).any())
    yield NO_CONTACT, fixed(0, possible)
    if promised:
        model = _model(own)
        yield BEST_OFFER, model
    yield ANY_OFFER, uniform(possible)
    try:
        best = best_of_the_other_half(log, possible, q, rng)
    except ContractError:  # no offer went to enough members
        return
    yield ONE_OFFER, best
    if promised:
        churn, share = own.frame["churn_probability"].to_numpy(), 1 - model[:, 0].mean()
        riskiest = churn >= np.quantile(churn, 1 - share)
        yield BY_CHURN, np.where(riskiest[:, None], best, fixed(0, possible))
        yield UNCAPPED, greedy(net, eligible=own.expected.uncapped)


def _model(own: Campaign) -> Floats:
    """Write as probabilities what the model does where it neither explores nor draws at random."""
    net, possible, chances = own.expected.net_value, own.expected.possible, own.expected.probabilities
    best = greedy(net, eligible=possible)
    if np.isnan(chances).any():  # contacts: their probabilities are not known
        return best
    favourite = np.eye(chances.shape[1])[np.argmax(chances, axis=1)]
    return np.where((own.frame["outcome"] == MODEL).to_numpy()[:, None], favourite, best)


@dataclass(frozen=True)
class _Table:
    """Set policies' terms on one log side by side."""

    log: Log
    chances: Floats  # (n, 1 + n_offers) of each treatment; NaN: not known
    terms: Mapping[str, Floats]

    def logged(self) -> Standing:
        """Judge what was done by what followed."""
        return self._judged(self.log.outcome, float(len(self.log)), float((self.log.treatment > 0).mean()))

    def row(self, name: str, rule: Floats) -> Standing:
        """Judge a policy, unless too much of what it takes had no chance."""
        size = effective_sample_size(importance_weights(self.log, rule))
        contacted, unseen = float(1 - rule[:, 0].mean()), self._unseen(rule)
        if unseen > NOT_SEEN or not size:
            return Standing(None, None, None, size, contacted, unseen)
        return self._judged(self.terms[name], size, contacted, unseen)

    def _judged(self, terms: Floats, size: float, contacted: float, unseen: float = 0.0) -> Standing:
        ids, lead = self.log.clusters, self.terms.get(BEST_OFFER)
        return Standing(
            policy_value=estimate(terms, ids),
            against_no_contact=estimate(terms - self.terms[NO_CONTACT], ids),
            model_lead=None if lead is None else estimate(lead - terms, ids),
            effective_sample_size=size,
            contacted=contacted,
            unseen=unseen,
        )

    def _unseen(self, rule: Floats) -> float:
        """Add up what a policy takes where it had no chance, and of treatments that hardly anybody got."""
        never = (self.chances <= 0) | (self.log.members_by_treatment < FEWEST_MEMBERS)
        return float((rule * never).sum(axis=1).mean())


def log_of(campaign: Campaign) -> Log:
    """Write the decisions as a log whose outcome is margin less all costs."""
    frame, places = campaign.frame, {name: place for place, name in enumerate((CONTROL, *campaign.offers))}
    return Log(
        treatment=frame["treatment"].map(places).to_numpy().astype(np.int64),
        propensity=frame["propensity"].to_numpy(dtype=np.float64),
        outcome=(frame["margin"] - frame["cost"]).to_numpy(dtype=np.float64),
        contact_cost=np.zeros(len(places)),
        member_ids=frame["member_id"].to_numpy(),
    )


def _foreseen_line(campaign: Campaign) -> Floats:
    """Expect margin without an offer: a line through what was foreseen, fitted on who got nothing."""
    frame = campaign.frame
    margin, foreseen = frame["margin"].to_numpy(dtype=np.float64), frame["foreseen"].astype(np.float64)
    known = foreseen.fillna(foreseen.mean()).fillna(0.0).to_numpy()
    nothing = (frame["outcome"] == HELD).to_numpy()
    nothing = nothing if nothing.sum() >= THIN else (frame["treatment"] == CONTROL).to_numpy()
    if nothing.sum() < THIN or np.ptp(known[nothing]) == 0:
        return np.full(len(frame), margin[nothing].mean() if nothing.any() else margin.mean())
    slope, level = np.polyfit(known[nothing], margin[nothing], 1)
    return np.asarray(level + slope * known, dtype=np.float64)
