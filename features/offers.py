"""The catalogue: what may be sent, and everything that limits it, from the table of offers and `holdfast.toml`.

It is data: read as a whole, checked as a whole, with every fault at once, and known by an id of its content.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import ContractError
from features.files import fingerprint
from features.programme import Campaign, Policy, Programme
from features.rules import known_facts, parse_rule
from features.schema import CONTROL, TABLES
from features.warehouse import Warehouse

OFFERS: Final = "offers"
_AMOUNTS: Final = ("contact_cost", "redemption_cost", "min_days_between_contacts", "points", "stock")
_TIMES: Final = ("valid_from", "valid_until")


@dataclass(frozen=True)
class Offer:
    """Hold one offer; money in minor units, times in UTC."""

    offer_id: str
    name: str
    channel: str
    contact_cost: int
    redemption_cost: int
    valid_from: datetime
    valid_until: datetime
    eligible: str = ""  # a rule of `features.rules`; "": everybody
    category: str | None = None
    min_days_between_contacts: int = 0  # of this offer with one member
    points: int = 0  # granted by a redemption
    stock: int | None = None  # how many contacts there are in all; None: no end of them
    mandatory: bool = False  # whoever may get it gets it, or another mandatory one
    excludes: tuple[str, ...] = ()  # offers that it takes precedence over: where it is possible, those are not
    price: int | None = None  # what the member would pay
    public_price: int | None = None  # what anybody pays
    currency: str | None = None  # None: the programme's


@dataclass(frozen=True)
class Catalogue:
    """Hold the offers, by id, and the policy and campaigns under which they are sent."""

    offers: tuple[Offer, ...]
    policy: Policy
    campaigns: Mapping[str, Campaign]
    acquisition_cost: int | None  # what winning a member costs, minor units: what caps are a share of

    @cached_property
    def catalogue_id(self) -> str:
        """Twelve hexadecimal digits of its content."""
        return fingerprint(self.to_json())[:12]

    def to_json(self) -> dict[str, Any]:
        """Give plain values, from which `catalogue_from_json` makes an equal catalogue."""
        return {
            "offers": [_plain(offer) for offer in self.offers],
            "policy": self.policy.model_dump(mode="json"),
            "campaigns": {name: campaign.model_dump(mode="json") for name, campaign in sorted(self.campaigns.items())},
            "acquisition_cost": self.acquisition_cost,
        }


def catalogue_of(offers: Sequence[Offer], programme: Programme) -> Catalogue:
    """Put offers under a programme's policy."""
    ordered = tuple(sorted(offers, key=lambda offer: offer.offer_id))
    return Catalogue(ordered, programme.policy, programme.campaigns, programme.economics.acquisition_cost)


def read_catalogue(warehouse: Warehouse, programme: Programme) -> Catalogue:
    """Read the warehouse's offers, none where a company brings no such table, under the policy of the moment."""
    rows = pq.read_table(warehouse.path(OFFERS)) if OFFERS in warehouse.tables else pa.table({})
    return catalogue_of(offers_of(rows), programme)


def catalogue_from_json(value: Mapping[str, Any]) -> Catalogue:
    """Make a catalogue from what `to_json` gave."""
    return Catalogue(
        tuple(_offer(offer) for offer in value["offers"]),
        Policy.model_validate(value["policy"]),
        {name: Campaign.model_validate(campaign) for name, campaign in value["campaigns"].items()},
        value["acquisition_cost"],
    )


def offers_of(rows: pa.Table) -> tuple[Offer, ...]:
    """Make offers of the rows of a checked table; a column that is not there, or a value, is its default."""
    names = [name for name in TABLES[OFFERS].known if name in rows.column_names]
    return tuple(
        _offer({name: value for name, value in row.items() if value is not None})
        for row in rows.select(names).to_pylist()
    )


def check_catalogue(
    offers: Sequence[Offer], programme: Programme, now: datetime | None = None, *, others: Collection[str] = ()
) -> list[str]:
    """Say everything that is wrong with offers, by themselves, among each other, and with the policy.

    Parameters
    ----------
    now : an offer whose time is over by then is a fault; None: that is none
    others : ids of offers that are known beside these
    """
    faults = [f"offer {offer.offer_id}: {fault}" for offer in offers for fault in _faults(offer, programme)]
    faults += _crowd_faults(offers, others) + _policy_faults(offers, programme, {*others, *_ids(offers)})
    return faults + (expired(offers, now) if now else [])


def expired(offers: Sequence[Offer], now: datetime) -> list[str]:
    """Say which offers' time is over."""
    return [
        f"offer {offer.offer_id}: expired, it was valid until {offer.valid_until:%Y-%m-%d %H:%M} UTC"
        for offer in offers
        if offer.valid_until <= now
    ]


def precedence(offers: Sequence[Offer]) -> list[str]:
    """Order offers so that each comes after those that exclude it.

    Raises
    ------
    ContractError
        If that can't be, because offers exclude each other in a circle.
    """
    known = _ids(offers)
    order = TopologicalSorter[str](dict.fromkeys(sorted(known), ()))
    for offer in offers:
        for name in known.intersection(offer.excludes):
            order.add(name, offer.offer_id)
    try:
        return list(order.static_order())
    except CycleError as error:
        circle = " excludes ".join(error.args[1])
        raise ContractError(f"offers exclude each other in a circle: {circle}; take one of them out") from None


def _faults(offer: Offer, programme: Programme) -> Iterator[str]:
    for name in _AMOUNTS:
        if (getattr(offer, name) or 0) < 0:
            yield f"{name} is {getattr(offer, name)}, 0 or more was wanted"
    if offer.offer_id == CONTROL:
        yield f"{CONTROL!r} is what it is called to send nothing; name the offer otherwise"
    if offer.valid_until <= offer.valid_from:
        yield f"valid_until {offer.valid_until:%Y-%m-%d %H:%M} has to be after {offer.valid_from:%Y-%m-%d %H:%M}"
    if offer.currency and offer.currency.strip().upper() != programme.currency:
        yield f"currency is {offer.currency}, the programme's is {programme.currency}"
    if offer.price is not None and offer.public_price is not None and offer.price > offer.public_price:
        yield f"price {programme.money(offer.price)} is above the public one, {programme.money(offer.public_price)}"
    if offer.mandatory and offer.offer_id in programme.policy.excluded_offers:
        yield "mandatory, and excluded in policy.excluded_offers"
    if offer.eligible:
        try:
            parse_rule(offer.eligible, known_facts())
        except ContractError as error:
            yield str(error)


def _crowd_faults(offers: Sequence[Offer], others: Collection[str]) -> list[str]:
    """Check ids, and who excludes whom."""
    counts, known = Counter(offer.offer_id for offer in offers), {*others, *_ids(offers)}
    faults = [f"offer {name}: came {count} times" for name, count in counts.items() if count > 1]
    faults += [
        f"offer {offer.offer_id}: excludes {name}, which is no offer"
        for offer in offers
        for name in offer.excludes
        if name not in known
    ]
    must = {offer.offer_id for offer in offers if offer.mandatory}
    faults += [
        f"offer {name}: mandatory, and excluded by {offer.offer_id}, which is not"
        for offer in offers
        if not offer.mandatory
        for name in sorted(must.intersection(offer.excludes))
    ]
    try:
        precedence(offers)
    except ContractError as error:
        faults.append(str(error))
    return faults


def _policy_faults(offers: Sequence[Offer], programme: Programme, known: Collection[str]) -> list[str]:
    """Check what the settings say of offers."""
    policy = programme.policy
    named = {"policy.excluded_offers": policy.excluded_offers} | {
        f"campaigns.{name}.offers": campaign.offers or () for name, campaign in programme.campaigns.items()
    }
    faults = [
        f"{place} in holdfast.toml names {name}, which is no offer"
        for place, names in named.items()
        for name in names
        if name not in known
    ]
    if policy.fallback == CONTROL:
        return faults
    if policy.fallback not in known:
        return [*faults, f"policy.fallback in holdfast.toml is {policy.fallback}, which is no offer; wanted control"]
    bound = [name for offer in offers if offer.offer_id == policy.fallback for name in _bounds(offer, policy)]
    return faults + ([f"offer {policy.fallback}: the fallback, and bound by {', '.join(bound)}"] if bound else [])


def _bounds(offer: Offer, policy: Policy) -> list[str]:
    """Name what can keep an offer from being sent."""
    bounds = {
        "eligible": bool(offer.eligible),
        "min_days_between_contacts": offer.min_days_between_contacts > 0,
        "stock": offer.stock is not None,
        "policy.excluded_offers": offer.offer_id in policy.excluded_offers,
        "policy.channels": policy.channels is not None and offer.channel not in policy.channels,
    }
    return [name for name, holds in bounds.items() if holds]


def _ids(offers: Sequence[Offer]) -> set[str]:
    return {offer.offer_id for offer in offers}


def _offer(value: Mapping[str, Any]) -> Offer:
    times = {name: _utc(value[name]) for name in _TIMES}
    excludes = value.get("excludes", ())
    names = excludes.replace(",", " ").split() if isinstance(excludes, str) else excludes
    return Offer(**{**value, **times, "excludes": tuple(names)})


def _utc(time: str | datetime) -> datetime:
    return (datetime.fromisoformat(time) if isinstance(time, str) else time).astimezone(UTC)


def _plain(offer: Offer) -> dict[str, Any]:
    times = {name: getattr(offer, name).isoformat() for name in _TIMES}
    return asdict(offer) | times | {"excludes": list(offer.excludes)}
