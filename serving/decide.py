"""From a release, a catalogue and what is known of members to a treatment for each: no clock, no disk, no chance.

One core for the service, for batches and for replay. What depends on release and catalogue alone is worked out once.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.log.standing import Standing
from features.offers import Catalogue, Offer
from features.programme import Campaign, Programme
from features.schema import CONTROL
from serving.explain import Explainer
from training.artifacts import Matrix, Release, Scores
from training.budget import told_apart
from training.constraints import CONSENT, OPTED_OUT, Constraints
from training.policy import (
    HELD_OUT,
    Terms,
    arms_of,
    benefit_errors,
    benefits,
    costs,
    draw,
    member_numbers,
    net_values,
    terms_of,
    treatment_probabilities,
)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Column = NDArray[Any]

FALLBACKS: Final = (  # by `Members.fallback`
    *(None, "unknown_member", "features_unavailable", "features_invalid"),
    *("features_late", "features_too_old", "model_unavailable"),
)
UNKNOWN, UNAVAILABLE, INVALID, LATE, TOO_OLD, NO_MODEL = range(1, len(FALLBACKS))
SOURCES: Final = ("model", "last_score", "segment_default", "nothing")  # whose a member's numbers are
MODEL_SOURCE, LAST_SCORE, SEGMENT_DEFAULT, NOTHING = range(len(SOURCES))


@dataclass(frozen=True)
class StandIn:
    """Hold numbers that stand in for the models' where a member can't be scored."""

    source: NDArray[np.int8]  # (n_members,) places in SOURCES
    scores: Floats  # (n_members, 2 + 5 n_offers) as `Scores` has them, one after the other; NaN where there are none


@dataclass(frozen=True)
class Members:
    """Hold what a decision about members rests on, in columns."""

    X: Matrix  # (n_members, n_features), in the release's order, NaN where missing
    fallback: NDArray[
        np.int8
    ]  # (n_members,) why somebody can't be scored: a place in FALLBACKS, 0 where nothing is wrong
    number: Floats  # (n_members,) each one's own, by which who is exactly alike is told apart
    arm: NDArray[np.int8]  # (n_members,) of the experiment
    facts: Mapping[str, Column]  # (n_members,) each: what rules and consent read
    standing: Standing
    stand_in: StandIn | None = None  # None: for nobody

    @property
    def opted_out(self) -> Flags:
        """Who does not want to be scored, `(n_members,)`."""
        return np.asarray(self.facts[CONSENT] == OPTED_OUT)

    @property
    def source(self) -> NDArray[np.int8]:
        """Whose numbers there are of each, `(n_members,)` places in SOURCES."""
        of_others = NOTHING if self.stand_in is None else self.stand_in.source
        return np.where(self.fallback == 0, np.int8(MODEL_SOURCE), np.asarray(of_others, dtype=np.int8))

    @property
    def known(self) -> Flags:
        """Of whom there can be numbers, `(n_members,)`."""
        return np.asarray(self.source != NOTHING)

    @property
    def scored(self) -> Flags:
        """Of whom there are numbers, `(n_members,)`."""
        return self.known & ~self.opted_out

    @property
    def own(self) -> Flags:
        """Whose numbers are the models' own, `(n_members,)`."""
        return np.asarray(self.fallback == 0) & ~self.opted_out

    def rows(self, part: slice) -> "Members":
        """Give some of the members."""
        standing = Standing(**{name: values[part] for name, values in vars(self.standing).items()})
        facts = {name: values[part] for name, values in self.facts.items()}
        told = (self.X[part], self.fallback[part], self.number[part], self.arm[part])
        given = self.stand_in and StandIn(self.stand_in.source[part], self.stand_in.scores[part])
        return Members(*told, facts, standing, given)


@dataclass(frozen=True)
class Worth:
    """Hold what each offer would bring and cost, in minor units; zeros for who is not scored."""

    churn_probability: Floats  # (n_members,)
    value: Floats  # (n_members,)
    uplift: Floats  # (n_members, n_offers)
    benefit: Floats  # (n_members, n_offers)
    cost: Floats  # (n_members, n_offers) expected, whole minor units: what counts against a budget
    bar: Floats  # (n_members, n_offers) what a net value has to be above
    error: Floats  # (n_members, n_offers) standard error of the benefit

    def rows(self, part: slice) -> "Worth":
        """Give those of some members."""
        return Worth(**{name: values[part] for name, values in vars(self).items()})


@dataclass(frozen=True)
class Purse:
    """Hold what is left of budget and stock, infinite where nothing limits it, and what one more unit would earn."""

    budget: float
    stock: Floats  # (n_offers,)
    price: float
    stock_prices: Floats  # (n_offers,)
    apart: bool = False  # whether others may use it up meanwhile

    @property
    def priced(self) -> bool:
        """Whether money or stock is short, so that a price parts who gets something from who does not."""
        return bool(self.price > 0 or (self.stock_prices > 0).any())

    @property
    def full(self) -> bool:
        """Whether nothing can run out."""
        return bool(np.isinf(self.budget) and np.isinf(self.stock).all())


@dataclass(frozen=True)
class Occasion:
    """Say when, for which campaign, among which offers and out of what is decided."""

    now: datetime
    campaign_id: str | None
    asked: tuple[str, ...] | None  # None: every offer
    purse: Purse


@dataclass(frozen=True)
class Choice:
    """Hold what was decided, in columns."""

    refusals: NDArray[np.uint8]  # (n_members, n_offers) places in `training.constraints.REFUSALS`; 0: possible
    net_value: Floats  # (n_members, n_offers) what each is expected to earn: without the prices, by which it is chosen
    probabilities: Floats  # (n_members, 1 + n_offers), control first
    chosen: NDArray[np.intp]  # (n_members,) columns of `probabilities`
    fell_back: Flags  # (n_members,) who gets the fallback offer, which is no column
    spent: Floats  # (n_members,)
    budget: Floats  # (n_members,) what was left of it when each one's turn came
    stock: Floats  # (n_members, n_offers) likewise


class Decider:
    """Decide by one release and one catalogue."""

    def __init__(self, release: Release, catalogue: Catalogue) -> None:
        self.release, self.catalogue = release, catalogue
        self.programme = Programme.model_validate(release.manifest.programme)
        self.treatments = (CONTROL, *release.offer_ids)
        self.constraints = Constraints(self.catalogue, release.offer_ids)
        self.facts = tuple(sorted({*self.constraints.facts, CONSENT}))
        self.explainer = Explainer(release.manifest.features, self.programme)
        by_id = {offer.offer_id: offer for offer in self.catalogue.offers}
        self.fallback = by_id.get(self.catalogue.policy.fallback)
        self.stock = np.array(
            [self.constraints.stock.get(name, np.inf) for name in release.offer_ids], dtype=np.float64
        )
        self._terms: dict[str | None, Terms] = {}

    def prepared(self) -> "Decider":
        """Make now what the first member would otherwise wait for."""
        _ = self.release.models.shares
        return self

    def campaign(self, campaign_id: str | None) -> Campaign | None:
        """Give a campaign of the catalogue; a name that is none is a label."""
        return self.catalogue.campaigns.get(campaign_id) if campaign_id is not None else None

    def drawn(self, member_ids: Sequence[str]) -> tuple[Floats, NDArray[np.int8]]:
        """Give members' own numbers, and in which arm of the experiment these put them, `(n_members,)` each."""
        experiment = self.programme.experiment
        number = member_numbers(member_ids, salt=experiment.salt)
        return number, arms_of(number, hold_out=experiment.hold_out, random_arm=experiment.random_arm)

    def weigh(self, members: Members, campaign_id: str | None) -> Worth:
        """Score members, and say what each offer would bring and cost."""
        return self.worth(self.score(members), members.scored, campaign_id)

    def score(self, members: Members) -> Scores | None:
        """Give the scores of those who have any: a row each, and none of the others; None where nobody has."""
        scored, own = members.scored, members.own
        if not scored.any():
            return None
        if members.stand_in is None or own.all():
            return self.release.score(np.ascontiguousarray(members.X if own.all() else members.X[own]))
        rows = members.stand_in.scores.copy()
        if own.any():
            rows[own] = self.release.score(np.ascontiguousarray(members.X[own])).rows
        return Scores.of_rows(rows[scored])

    def worth(self, scores: Scores | None, scored: Flags, campaign_id: str | None) -> Worth:
        """Say what each offer would bring and cost each member.

        Parameters
        ----------
        scores : as `score` gives them
        scored : (n_members,) whose they are
        """
        if scores is None:
            return _worthless(len(scored), len(self.release.offer_ids))
        terms = self._terms_of(campaign_id)
        error = benefit_errors(scores, terms)
        columns = (
            scores.churn_probability,
            scores.value,
            scores.uplift,
            benefits(scores, terms),
            np.rint(costs(scores, terms)),
            self.programme.experiment.floor * error,
            error,
        )
        return Worth(*(spread(column, scored) for column in columns))

    def choose(self, members: Members, worth: Worth, *, occasion: Occasion, uniform: Floats) -> Choice:
        """Draw a treatment for each member in turn, out of what those before left of stock and budget.

        All are decided as if nothing were used up meanwhile. What stands of that is kept, up to the first for whom
        something more has run out, and the rest is decided anew: exact, and one pass where there is plenty.

        Parameters
        ----------
        uniform : (n_members,) at least 0 and below 1; logged, it replays the decision
        """
        done, kept = 0, list[Choice]()
        while True:
            rest, purse = slice(done, None), occasion.purse
            choice = self._choose(members.rows(rest), worth.rows(rest), occasion, uniform[rest])
            stands = len(choice.chosen) if purse.full else self._standing_rows(choice, worth.cost[rest], purse)
            kept.append(_first(choice, stands))
            if done + stands == len(uniform):
                return joined(kept)
            used = np.bincount(kept[-1].chosen, minlength=len(self.treatments))[1:]
            left = replace(purse, budget=purse.budget - kept[-1].spent.sum(), stock=purse.stock - used)
            occasion = replace(occasion, purse=left)
            done += stands

    def refusals(self, members: Members, worth: Worth, occasion: Occasion) -> NDArray[np.uint8]:
        """Say why an offer is not possible for a member, `(n_members, n_offers)`, 0 where it is."""
        purse = occasion.purse
        return self.constraints.refusals(
            members.facts,
            members.standing,
            worth.cost,
            now=occasion.now,
            campaign_id=occasion.campaign_id,
            offers=occasion.asked,
            scored=members.known,
            sold_out=purse.stock < 1,
            affordable=None if np.isinf(purse.budget) else worth.cost <= purse.budget,
            apart=purse.apart,
        )

    def probabilities(
        self, net_value: Floats, eligible: Flags, arm: NDArray[np.int8], *, bar: Floats, error: Floats
    ) -> Floats:
        """Give each treatment its probability, `(n_members, 1 + n_offers)`, as `treatment_probabilities` does."""
        experiment = self.programme.experiment
        return treatment_probabilities(
            net_value,
            eligible,
            arm,
            exploration=experiment.exploration,
            regret=experiment.regret,
            bar=bar,
            error=error,
            mandatory=eligible & self.constraints.mandatory,
        )

    def _choose(self, members: Members, worth: Worth, occasion: Occasion, uniform: Floats) -> Choice:
        refusals, purse = self.refusals(members, worth, occasion), occasion.purse
        benefit = told_apart(worth.benefit, members.number) if purse.priced else worth.benefit
        priced = net_values(benefit, worth.cost, price=purse.price, stock_price=purse.stock_prices)
        probabilities = self.probabilities(priced, refusals == 0, members.arm, bar=worth.bar, error=worth.error)
        chosen = draw(probabilities, uniform)
        fell_back = ~members.known & ~members.opted_out & self._may_fall_back(members, occasion)
        costs_of = np.column_stack([np.where(fell_back, self.fallback_cost, 0.0), worth.cost])
        spent = np.take_along_axis(costs_of, chosen[:, None], axis=1)[:, 0]
        used = chosen[:, None] == np.arange(1, len(self.treatments))
        budget, stock = purse.budget - _before(spent), purse.stock - _before(used.astype(np.float64))
        earned = net_values(worth.benefit, worth.cost)
        return Choice(refusals, earned, probabilities, chosen, fell_back, spent, budget, stock)

    def _standing_rows(self, choice: Choice, cost: Floats, purse: Purse) -> int:
        """Count the first members for whom no more has run out than for the very first."""
        out = (choice.stock < 1) & (purse.stock >= 1)
        if np.isfinite(purse.budget):
            costs_of = np.column_stack([np.full(len(cost), self.fallback_cost), cost])
            dear = (costs_of > choice.budget[:, None]) & (costs_of <= purse.budget)
            out = np.column_stack([out, dear])
        changed = np.flatnonzero(out.any(axis=1))
        return int(changed[0]) if len(changed) else len(cost)

    @property
    def fallback_cost(self) -> float:
        """What sending the fallback offer costs."""
        return float(self.fallback.contact_cost) if self.fallback else 0.0

    def _may_fall_back(self, members: Members, occasion: Occasion) -> Flags:
        """Say who may get the fallback offer: nobody held out, and nobody whom a cap on all contacts protects."""
        policy, standing, offer = self.catalogue.policy, members.standing, self.fallback
        valid = offer is not None and offer.valid_from <= occasion.now < offer.valid_until
        if not valid or self.fallback_cost > occasion.purse.budget or self._held_back(occasion.purse):
            return np.zeros(len(members.arm), dtype=np.bool_)
        rested = standing.since_any >= policy.min_days_between_contacts
        few = standing.in_period < (np.inf if policy.contacts_per_period is None else policy.contacts_per_period)
        return np.asarray((members.arm != HELD_OUT) & rested & few)

    def _held_back(self, purse: Purse) -> bool:
        """Say whether the fallback offer is limited by what is not known now."""
        offer = self.fallback
        return bool(offer and purse.apart and self.constraints.limits(offer, budget=bool(np.isfinite(purse.budget))))

    def _terms_of(self, campaign_id: str | None) -> Terms:
        if campaign_id not in self.catalogue.campaigns:
            campaign_id = None
        if campaign_id not in self._terms:
            self._terms[campaign_id] = terms_of(
                self.catalogue, self.release.manifest.offers, self.campaign(campaign_id)
            )
        return self._terms[campaign_id]


def released_offers(release: Release) -> list[Offer]:
    """Give the offers as they were when a release was trained, without constraints: for where there is no warehouse."""
    names = ("offer_id", "name", "channel", "contact_cost", "redemption_cost")
    return [
        Offer(
            **{name: getattr(offer, name) for name in names},
            valid_from=datetime.fromisoformat(offer.valid_from),
            valid_until=datetime.fromisoformat(offer.valid_until),
        )
        for offer in release.manifest.offers
    ]


def spread(values: Column, scored: Flags) -> Column:
    """Put rows of those who are scored in their places among all, zeros elsewhere."""
    if scored.all():
        return values
    rows = np.zeros((len(scored), *values.shape[1:]), dtype=values.dtype)
    rows[scored] = values
    return rows


def _worthless(members: int, offers: int) -> Worth:
    nothing = np.zeros((members, offers))
    return Worth(np.zeros(members), np.zeros(members), *(nothing,) * 5)


def _before(used: Floats) -> Floats:
    """Sum what those before used."""
    return np.asarray(np.cumsum(used, axis=0) - used)


def _first(choice: Choice, rows: int) -> Choice:
    return Choice(**{name: values[:rows] for name, values in vars(choice).items()})


def joined(choices: Sequence[Choice]) -> Choice:
    """Put choices on members in a row together."""
    if len(choices) == 1:
        return choices[0]
    return Choice(**{name: np.concatenate([getattr(one, name) for one in choices]) for name in vars(choices[0])})
