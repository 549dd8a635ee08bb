"""No decision breaks a constraint: what is possible is worked out again, member by member, in plain Python."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ContractError
from features.log.standing import Standing
from features.offers import Catalogue, Offer
from features.programme import Campaign, Policy
from training.constraints import REFUSALS, Constraints

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)
IDS = ("A", "B", "C", "D")
STAGES = ("new", "active", "dormant", "lapsed", "returned")
TIMES = st.sampled_from([NOW - 2 * DAY, NOW - timedelta(microseconds=1), NOW, NOW + timedelta(microseconds=1)])
RULES = {  # a rule, and whether it holds for a member
    "": lambda _: True,
    "recency_days > 28": lambda member: member["recency_days"] > 28,  # NaN is above nothing
    "not tier == 'gold'": lambda member: member["tier"] not in {None, "gold"},
    "region in ('north', 'south') or recency_days <= 28": lambda member: (
        member["region"] in {"north", "south"} or member["recency_days"] <= 28
    ),
}
AGO = st.sampled_from([0.0, 1.0, 6.999, 7.0, 7.001, 28.0, np.inf])


def _offers(data):
    """Draw offers, of which each may take precedence over later ones, so that there is no circle."""
    ids = data.draw(st.permutations(IDS).map(lambda ids: ids[: data.draw(st.integers(0, 4))]))
    return tuple(
        Offer(
            offer_id,
            "An offer",
            data.draw(st.sampled_from(["mail", "app"])),
            40,
            300,
            data.draw(TIMES),
            data.draw(TIMES | st.just(NOW + DAY)),
            eligible=data.draw(st.sampled_from(sorted(RULES))),
            min_days_between_contacts=data.draw(st.sampled_from([0, 0, 7, 28])),
            mandatory=data.draw(st.booleans()),
            excludes=tuple(data.draw(st.sets(st.sampled_from(ids[place + 1 :])))) if ids[place + 1 :] else (),
            price=data.draw(st.sampled_from([None, 100, 200])),
            public_price=data.draw(st.sampled_from([None, 150, 200])),
        )
        for place, offer_id in enumerate(ids)
    )


POLICIES = st.builds(
    Policy,
    channels=st.none() | st.sampled_from([("mail",), ("app", "mail"), ()]),
    excluded_offers=st.sampled_from([(), (), ("A",), ("B", "C")]),
    min_days_between_contacts=st.sampled_from([0, 7]),
    contacts_per_period=st.none() | st.integers(1, 3),
    cost_caps=st.dictionaries(st.sampled_from(STAGES), st.sampled_from([0.0, 0.5, 1.0])),
)
CAMPAIGNS = st.builds(
    Campaign,
    starts=st.none() | st.sampled_from([NOW - DAY, NOW, NOW + DAY]),
    ends=st.none() | st.just(NOW + 2 * DAY),
    offers=st.none() | st.sampled_from([("A", "B"), IDS]),
)


@st.composite
def _member(draw, offers):
    return {
        "scored": draw(st.booleans() | st.just(True)),
        "personalisation": draw(st.sampled_from(["yes", "yes", "no", None])),
        "lifecycle_stage": draw(st.none() | st.sampled_from(STAGES)),
        "recency_days": draw(st.sampled_from([np.nan, 3.0, 28.0, 29.0])),
        "tier": draw(st.sampled_from([None, "gold", "silver"])),
        "region": draw(st.sampled_from([None, "north", "west"])),
        "since_offer": [draw(AGO) for _ in range(offers)],
        "since_any": draw(AGO),
        "in_period": draw(st.integers(0, 3)),
        "cost": [draw(st.sampled_from([0.0, 2_500.0, 2_500.5, 5_001.0])) for _ in range(offers)],
        "affordable": [draw(st.booleans()) for _ in range(offers)],
    }


def _columns(members, offers):
    def column(name, dtype, *shape):
        return np.array([member[name] for member in members], dtype=dtype).reshape(len(members), *shape)

    words = {name: column(name, object) for name in ("personalisation", "lifecycle_stage", "tier", "region")}
    return {
        "facts": words | {"recency_days": column("recency_days", float)},
        "standing": Standing(
            column("since_offer", float, offers), column("since_any", float), column("in_period", np.int64)
        ),
        "cost": column("cost", float, offers),
        "scored": column("scored", bool),
        "affordable": column("affordable", bool, offers),
    }


def _own_refusal(offer_id, place, member, *, catalogue, campaign, asked, sold_out):
    """Say the first thing that speaks against one offer for one member by itself."""
    policy, offer = catalogue.policy, {offer.offer_id: offer for offer in catalogue.offers}.get(offer_id)
    if not member["scored"]:
        return "not_scored"
    if member["personalisation"] == "no":
        return "opt_out"
    if (asked is not None and offer_id not in asked) or (campaign.offers and offer_id not in campaign.offers):
        return "not_asked"
    if offer is None or offer_id in policy.excluded_offers:
        return "excluded"
    if not offer.valid_from <= NOW < offer.valid_until or (campaign.starts and campaign.starts > NOW):
        return "validity"
    cap = policy.cost_caps.get(member["lifecycle_stage"])
    least, policy_least, most = (
        offer.min_days_between_contacts,
        policy.min_days_between_contacts,
        policy.contacts_per_period,
    )
    against = {
        "channel": policy.channels is not None and offer.channel not in policy.channels,
        "price": offer.price is not None and offer.public_price is not None and offer.price > offer.public_price,
        "rule": not RULES[offer.eligible](member),
        "cost_cap": cap is not None and member["cost"][place] > cap * catalogue.acquisition_cost,
        "offer_contacts": member["since_offer"][place] < least,
        "contacts": member["since_any"] < policy_least,
        "contacts_per_period": most is not None and member["in_period"] >= most,
        "stock": sold_out[place],
        "budget": not member["affordable"][place],
    }
    return next((word for word, holds in against.items() if holds), "")


def _refusals(offer_ids, member, *, catalogue, **how):
    """Give the words for one member: each offer's own, then who takes precedence, then what is mandatory."""
    words = {
        offer_id: _own_refusal(offer_id, place, member, catalogue=catalogue, **how)
        for place, offer_id in enumerate(offer_ids)
    }
    for offer in catalogue.offers:  # drawn so that those that exclude come first
        if words.get(offer.offer_id) == "":
            words |= {name: "precedence" for name in offer.excludes if words.get(name) == ""}
    must = {offer.offer_id for offer in catalogue.offers if offer.mandatory and words.get(offer.offer_id) == ""}
    if must:
        words |= {name: "mandatory" for name, word in words.items() if word == "" and name not in must}
    return list(words.values())


@given(st.data())
def test_what_is_possible_is_what_no_constraint_speaks_against(data):
    campaign = data.draw(CAMPAIGNS)
    catalogue = Catalogue(_offers(data), data.draw(POLICIES), {"may": campaign}, 5_000)
    offer_ids = data.draw(st.permutations(IDS).map(lambda ids: ids[: data.draw(st.integers(1, 4))]))
    members = data.draw(st.lists(_member(len(offer_ids)), max_size=5))
    asked = data.draw(st.none() | st.lists(st.sampled_from(IDS), unique=True))
    named = data.draw(st.sampled_from(["may", "another", None]))
    sold_out = np.array([data.draw(st.booleans()) for _ in offer_ids])
    constraints = Constraints(catalogue, offer_ids)
    codes = constraints.refusals(
        **_columns(members, len(offer_ids)), now=NOW, campaign_id=named, offers=asked, sold_out=sold_out
    )
    how = {"campaign": campaign if named == "may" else Campaign(), "asked": asked, "sold_out": sold_out}
    assert codes.dtype == np.uint8
    assert codes.shape == (len(members), len(offer_ids))
    assert [[REFUSALS[code] for code in row] for row in codes] == [
        _refusals(offer_ids, member, catalogue=catalogue, **how) for member in members
    ]


# What the others read of a catalogue

PLAIN = Offer("A", "An offer", "mail", 40, 300, NOW - DAY, NOW + DAY)


def _catalogue(*offers, **policy):
    return Catalogue(offers, Policy(**policy), {}, None)


def _assess(catalogue, offer_ids, n=1, **changed):
    k = len(offer_ids)
    facts = {
        name: np.array(["yes" if name == "personalisation" else None] * n, dtype=object)
        for name in ("personalisation", "lifecycle_stage")
    }
    never = Standing(np.full((n, k), np.inf), np.full(n, np.inf), np.zeros(n, dtype=np.int64))
    given_ = {"now": NOW, "campaign_id": None, "offers": None, "scored": np.ones(n, dtype=bool)}
    given_ |= {"sold_out": np.zeros(k, dtype=bool), "affordable": None}
    codes = Constraints(catalogue, offer_ids).refusals(facts, never, np.zeros((n, k)), **(given_ | changed))
    return [[REFUSALS[code] for code in row] for row in codes]


def test_what_is_sold_out_takes_precedence_over_nothing():
    catalogue = _catalogue(replace(PLAIN, excludes=("B",)), replace(PLAIN, offer_id="B"))
    assert _assess(catalogue, ("B", "A")) == [["precedence", ""]]
    assert _assess(catalogue, ("B", "A"), sold_out=np.array([False, True])) == [["", "stock"]]


def test_precedence_is_followed_through():
    """A keeps B from being sent, so that B keeps nothing: C is possible beside A."""
    offers = [replace(PLAIN, offer_id=name, excludes=over) for name, over in (("A", ("B",)), ("B", ("C",)), ("C", ()))]
    assert _assess(_catalogue(*offers), ("C", "B", "A")) == [["", "precedence", ""]]
    assert _assess(_catalogue(*offers), ("C", "B")) == [["precedence", ""]]  # A is not of the release


def test_nobody_and_nothing_are_no_special_case():
    assert _assess(_catalogue(PLAIN), ("A",), n=0) == []
    assert _assess(_catalogue(PLAIN), (), n=2) == [[], []]
    assert _assess(_catalogue(), ("A",)) == [["excluded"]]


def test_what_has_to_be_known_is_named():
    offers = replace(PLAIN, eligible="tier == 'gold' and visits_28d > 2"), replace(PLAIN, offer_id="B", stock=9)
    own = Constraints(_catalogue(*offers), ("B", "A", "Z"))
    assert own.facts == ("lifecycle_stage", "personalisation", "tier", "visits_28d")
    assert own.stock == {"B": 9}
    assert own.mandatory.tolist() == [False, False, False]
    assert Constraints(_catalogue(*offers), ("B",)).facts == ("lifecycle_stage", "personalisation")


@pytest.mark.parametrize(
    ("offer_days", "policy", "longest"),
    [
        (0, {}, 0),
        (9, {}, 9),
        (9, {"min_days_between_contacts": 10}, 10),
        (0, {"period_days": 40}, 0),
        (0, {"period_days": 40, "contacts_per_period": 2}, 40),
    ],
)
def test_contacts_are_looked_up_as_far_back_as_they_matter(offer_days, policy, longest):
    catalogue = _catalogue(replace(PLAIN, min_days_between_contacts=offer_days), **policy)
    assert Constraints(catalogue, ("A",)).longest_days == longest


def test_a_rule_that_cannot_be_read_is_refused():
    with pytest.raises(ContractError, match="at character 1, stage is no feature"):
        Constraints(_catalogue(replace(PLAIN, eligible="stage == 'new'")), ("A",))
