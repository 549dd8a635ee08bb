"""The catalogue as people read it: each offer with what it costs, who may get it, and what limits it."""

from collections.abc import Iterator, Sequence

from features.offers import Catalogue, Offer
from features.programme import Campaign, Policy, Programme
from features.sheet import Sheet

HEADER = ("offer", "channel", "a contact", "a redemption", "valid", "for whom", "limits")


def offers_sheet(catalogue: Catalogue, programme: Programme, faults: Sequence[str]) -> Sheet:
    """Show every offer, then what the policy and the campaigns limit, and what is wrong."""
    rows = tuple(
        (
            offer.offer_id,
            offer.channel,
            programme.money(offer.contact_cost),
            programme.money(offer.redemption_cost),
            f"{offer.valid_from:%Y-%m-%d} to {offer.valid_until:%Y-%m-%d}",
            offer.eligible or "everybody",
            ", ".join(_limits(offer, catalogue.policy, programme)),
        )
        for offer in catalogue.offers
    )
    notes = [f"policy: {', '.join(_terms(catalogue.policy, programme))}"]
    notes += [
        f"campaign {name}: {', '.join(_campaign(campaign, programme)) or 'no limits'}"
        for name, campaign in catalogue.campaigns.items()
    ]
    return Sheet(
        f"Catalogue {catalogue.catalogue_id}", HEADER, rows, (*notes, *(f"wrong: {fault}" for fault in faults))
    )


def _limits(offer: Offer, policy: Policy, programme: Programme) -> Iterator[str]:
    closed = policy.channels is not None and offer.channel not in policy.channels
    if closed or offer.offer_id in policy.excluded_offers:
        yield "not sent for now"
    if offer.mandatory:
        yield "mandatory"
    if offer.stock is not None:
        yield f"{offer.stock:,} in stock"
    if offer.min_days_between_contacts:
        yield f"every {offer.min_days_between_contacts} days"
    if offer.excludes:
        yield f"before {' and '.join(offer.excludes)}"
    if offer.points:
        yield f"{offer.points:,} points"
    if offer.price is not None:
        yield f"for {programme.money(offer.price)}"


def _terms(policy: Policy, programme: Programme) -> Iterator[str]:
    yield f"the most {policy.objective.replace('_', ' ')}"
    yield f"{policy.fallback} where nothing is known"
    if policy.channels is not None:
        yield f"open channels {' and '.join(policy.channels) or 'none'}"
    if policy.min_days_between_contacts:
        yield f"a contact every {policy.min_days_between_contacts} days at most"
    if policy.contacts_per_period is not None:
        yield f"{policy.contacts_per_period} contacts in {policy.period_days} days"
    for stage, share in policy.cost_caps.items():
        yield f"{stage} members at no more than {programme.money(share * (programme.economics.acquisition_cost or 0))}"


def _campaign(campaign: Campaign, programme: Programme) -> Iterator[str]:
    if campaign.budget is not None:
        yield f"budget {programme.money(campaign.budget)}"
    for word, time in (("from", campaign.starts), ("until", campaign.ends)):
        if time is not None:
            yield f"{word} {time:%Y-%m-%d %H:%M}"
    if campaign.offers is not None:
        yield f"only {' and '.join(campaign.offers)}"
    if campaign.objective is not None:
        yield f"the most {campaign.objective.replace('_', ' ')}"
