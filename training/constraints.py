"""What may be sent to whom: every constraint of a catalogue, over many members at once. NumPy alone.

For each member and offer it gives one word, the first of `REFUSALS` that applies, in that order; none: it is possible.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.log.standing import Standing
from features.offers import Catalogue, Offer, precedence
from features.programme import Campaign
from features.rules import Rule, known_facts, parse_rule

Facts = Mapping[str, NDArray[Any]]
Flags = NDArray[np.bool_]
Floats = NDArray[np.floating[Any]]
Where = bool | Flags  # everybody or nobody, or who: (n_members,)

STAGE: Final = "lifecycle_stage"
CONSENT: Final = "personalisation"
OPTED_OUT: Final = "no"
REFUSALS: Final = (
    "",  # it is possible
    "not_scored",  # no model has said what it would bring
    "opt_out",  # the member wants no personalised offers
    "not_asked",  # the request or the campaign is about others
    "excluded",  # the policy excludes it, or it is no longer in the catalogue
    "validity",  # its time, or the campaign's, has not come or is over
    "channel",  # closed
    "price",  # above the public one
    "rule",  # it is not known that the member is eligible
    "cost_cap",  # it would cost more than a member of this stage may
    "apart",  # something limits it, and other instances that decide as well can't be asked what is left
    "offer_contacts",  # the member got this offer too few days ago
    "contacts",  # the member got any offer too few days ago
    "contacts_per_period",  # the member got enough
    "stock",  # none is left
    "budget",  # too little is left
    "precedence",  # another possible offer takes precedence
    "mandatory",  # another one is mandatory
)
_CODES: Final = {word: code for code, word in enumerate(REFUSALS)}


class Constraints:
    """Hold a catalogue's constraints on the offers of a release, in the release's order.

    Raises
    ------
    ContractError
        If a rule can't be read, or offers exclude each other in a circle.
    """

    def __init__(self, catalogue: Catalogue, offer_ids: Sequence[str]) -> None:
        known = {offer.offer_id: offer for offer in catalogue.offers}
        self.catalogue, self.offer_ids = catalogue, tuple(offer_ids)
        self._offers = [known.get(offer_id) for offer_id in offer_ids]
        self._rules = [_rule(offer) for offer in self._offers]
        places = {offer_id: place for place, offer_id in enumerate(offer_ids)}
        self._order = [places[name] for name in precedence(catalogue.offers) if name in places]
        self._over = [
            [places[name] for name in (offer.excludes if offer else ()) if name in places] for offer in self._offers
        ]

    @property
    def facts(self) -> tuple[str, ...]:
        """Name what has to be known of members."""
        named = {name for rule in self._rules if rule for name in rule.names}
        return tuple(sorted(named | {STAGE, CONSENT}))

    @property
    def longest_days(self) -> int:
        """Say how many days back contacts matter; 0: none does."""
        policy = self.catalogue.policy
        period = policy.period_days if policy.contacts_per_period is not None else 0
        own = [offer.min_days_between_contacts for offer in self._offers if offer]
        return max(period, policy.min_days_between_contacts, *own, 0)

    @property
    def stock(self) -> dict[str, int]:
        """Say how many contacts there are in all, of offers of which there is an end."""
        return {offer.offer_id: offer.stock for offer in self._offers if offer and offer.stock is not None}

    def limits(self, offer: Offer, *, budget: bool) -> bool:
        """Say whether anything that runs out limits an offer: rests between contacts, its stock, or a budget."""
        return budget or offer.stock is not None or self.longest_days > 0

    @property
    def mandatory(self) -> Flags:
        """Say which offers go before all others, `(n_offers,)`."""
        return np.array([bool(offer and offer.mandatory) for offer in self._offers], dtype=np.bool_)

    def refusals(
        self,
        facts: Facts,
        standing: Standing,
        cost: Floats,
        *,
        now: datetime,
        campaign_id: str | None,
        offers: Sequence[str] | None,
        scored: Flags,
        sold_out: Flags,
        affordable: Flags | None,
        apart: bool = False,
    ) -> NDArray[np.uint8]:
        """Say why each member can't get each offer, `(n_members, n_offers)` places in `REFUSALS`; 0: it is possible.

        Parameters
        ----------
        facts : everything that `facts` names, `(n_members,)` each: numbers NaN and words None where missing
        cost : (n_members, n_offers) expected, minor units
        campaign_id : one that the catalogue lacks limits nothing
        offers : the only ones asked for; None: every one
        scored : (n_members,)
        sold_out : (n_offers,) of which nothing is left
        affordable : (n_members, n_offers) what the budget's rest covers; None: money is no matter
        apart : whether what others give out meanwhile is not known
        """
        campaign = self.catalogue.campaigns.get(campaign_id) if campaign_id is not None else None
        caps = self._caps(facts[STAGE])
        case = _Case(facts, standing, cost, caps, now, campaign, offers, sold_out, affordable, apart)
        of_any = np.zeros(len(scored), dtype=np.uint8)
        _refuse(of_any, "not_scored", ~scored)
        _refuse(of_any, "opt_out", np.asarray(facts[CONSENT] == OPTED_OUT))
        by_offer = np.tile(of_any, (len(self.offer_ids), 1))  # an offer's members lie side by side
        for place, codes in enumerate(by_offer):
            for word, where in self._reasons(place, case):
                _refuse(codes, word, where)
                if where is True:
                    break
        self._rank(by_offer)
        return by_offer.T

    def _reasons(self, place: int, case: "_Case") -> Iterator[tuple[str, Where]]:
        """Give what one offer by itself is refused for and where, in the order of `REFUSALS`."""
        offer, policy, standing = self._offers[place], self.catalogue.policy, case.standing
        yield "not_asked", not case.asks(self.offer_ids[place])
        if offer is None or offer.offer_id in policy.excluded_offers:
            yield "excluded", True
            return
        yield "validity", not (case.running and offer.valid_from <= case.now < offer.valid_until)
        yield "channel", policy.channels is not None and offer.channel not in policy.channels
        yield "price", _dear(offer)
        if rule := self._rules[place]:
            yield "rule", ~rule.holds(case.facts)
        if case.caps is not None:
            yield "cost_cap", case.cost[:, place] > case.caps
        yield "apart", case.apart and self.limits(offer, budget=case.affordable is not None)
        if offer.min_days_between_contacts:
            yield "offer_contacts", standing.since_offer[:, place] < offer.min_days_between_contacts
        if policy.min_days_between_contacts:
            yield "contacts", standing.since_any < policy.min_days_between_contacts
        if policy.contacts_per_period is not None:
            yield "contacts_per_period", standing.in_period >= policy.contacts_per_period
        yield "stock", bool(case.sold_out[place])
        if case.affordable is not None:
            yield "budget", ~case.affordable[:, place]

    def _caps(self, stages: NDArray[Any]) -> NDArray[np.float64] | None:
        """Give what an offer may cost for each member, `(n_members,)` minor units; None: as much as it likes."""
        shares, whole = self.catalogue.policy.cost_caps, self.catalogue.acquisition_cost
        if not shares or whole is None:
            return None
        caps = np.full(len(stages), np.inf)
        for stage, share in shares.items():
            caps[stages == stage] = share * whole
        return caps

    def _rank(self, by_offer: NDArray[np.uint8]) -> None:
        """Refuse what another possible offer takes precedence over, then what is not mandatory where something is.

        An offer that is itself refused for another's sake takes precedence over nothing.
        """
        for place in self._order:
            for over in self._over[place]:
                _refuse(by_offer[over], "precedence", by_offer[place] == 0)
        if not self.mandatory.any():
            return
        bound = (by_offer[self.mandatory] == 0).any(axis=0)
        for place in np.flatnonzero(~self.mandatory).tolist():
            _refuse(by_offer[place], "mandatory", bound)


@dataclass(frozen=True)
class _Case:
    """Hold what one call was given; see `Constraints.refusals`."""

    facts: Facts
    standing: Standing
    cost: Floats
    caps: NDArray[np.float64] | None
    now: datetime
    campaign: Campaign | None
    offers: Sequence[str] | None
    sold_out: Flags
    affordable: Flags | None
    apart: bool

    @property
    def running(self) -> bool:
        """Whether the campaign, if there is one, has begun and not ended."""
        starts, ends = (self.campaign.starts, self.campaign.ends) if self.campaign else (None, None)
        return (starts is None or starts <= self.now) and (ends is None or self.now < ends)

    def asks(self, offer_id: str) -> bool:
        """Whether request and campaign are about an offer."""
        lists = (self.offers, self.campaign.offers if self.campaign else None)
        return all(named is None or offer_id in named for named in lists)


def _refuse(codes: NDArray[np.uint8], word: str, where: Where) -> None:
    """Note a reason for one offer, `(n_members,)`, where there is none yet."""
    if where is not False:
        codes += ((codes == 0) & where) * np.uint8(_CODES[word])


def _dear(offer: Offer) -> bool:
    return offer.price is not None and offer.public_price is not None and offer.price > offer.public_price


def _rule(offer: Offer | None) -> Rule | None:
    return parse_rule(offer.eligible, known_facts()) if offer and offer.eligible else None
