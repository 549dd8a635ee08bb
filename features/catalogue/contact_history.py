"""Who was contacted how often, how recently, with which offer, and what followed."""

import ibis
import ibis.expr.types as ir

from features.catalogue.entries import EVER, feature, programme_feature
from features.programme import Programme


@feature("contacts", "contacts", "fatigue")
def contacts_84d(contacts: ir.Table) -> ir.Value:
    """Campaigns that contacted the member in the last 12 weeks."""
    return contacts.count(where=contacts.days_ago <= 84)


@feature("contacts", "contacts", "fatigue", window=EVER)
def contacts_total(contacts: ir.Table) -> ir.Value:
    """Campaigns that contacted the member so far."""
    return contacts.count()


@feature("contacts", "days", "fatigue")
def contact_recency_days(contacts: ir.Table) -> ir.Value:
    """Days since the last contact."""
    return contacts.days_ago.min()


@feature("redemptions", "redemptions", "response")
def redemptions_84d(redemptions: ir.Table) -> ir.Value:
    """Redemptions in the last 12 weeks."""
    return redemptions.count(where=redemptions.days_ago <= 84)


@feature("redemptions", "redemptions", "response", window=EVER)
def redemptions_total(redemptions: ir.Table) -> ir.Value:
    """Redemptions so far."""
    return redemptions.count()


@feature("redemptions", "contacts", "response", window=EVER)
def responses_total(redemptions: ir.Table) -> ir.Value:
    """Contacts with a redemption so far."""
    return redemptions.contact_id.nunique()


@feature("member", "share", "response")
def response_rate(member: ir.Table) -> ir.Value:
    """Share of contacts that led to a redemption."""
    return member.responses_total / member.contacts_total.nullif(0)


@feature("contacts", "contacts", "fatigue")
def contacts_28d(contacts: ir.Table) -> ir.Value:
    """Campaigns that contacted the member in the last 28 days."""
    return contacts.count(where=contacts.days_ago <= 28)


@feature("contacts", "contacts", "fatigue")
def contacts_unanswered_28d(contacts: ir.Table) -> ir.Value:
    """Contacts in the last 28 days that no redemption followed."""
    return contacts.count(where=(contacts.days_ago <= 28) & ~contacts.answered)


@feature("contacts", "share", "response", maximum=1)
def response_rate_84d(contacts: ir.Table) -> ir.Value:
    """Share of the contacts of the last 12 weeks that a redemption followed."""
    recent = contacts.days_ago <= 84
    return contacts.count(where=recent & contacts.answered) / contacts.count(where=recent).nullif(0)


@feature("contacts", "days", "response")
def answered_recency_days(contacts: ir.Table) -> ir.Value:
    """Days since the last contact that a redemption followed."""
    return contacts.days_ago.min(where=contacts.answered)


@feature("redemptions", "days", "response")
def redemption_recency_days(redemptions: ir.Table) -> ir.Value:
    """Days since the last redemption."""
    return redemptions.days_ago.min()


@feature("contacts", "word", "rules", minimum=None, window=EVER)
def last_offer(contacts: ir.Table) -> ir.Value:
    """Offer of the last contact."""
    return contacts.treatment.argmax(contacts.place)


@programme_feature("contacts", "days", "fatigue")
def offer_1_recency_days(contacts: ir.Table, programme: Programme) -> ir.Value:
    """Days since the last contact with the first tracked offer."""
    return _offer_recency(contacts, programme, 1)


@programme_feature("contacts", "days", "fatigue")
def offer_2_recency_days(contacts: ir.Table, programme: Programme) -> ir.Value:
    """Days since the last contact with the second tracked offer."""
    return _offer_recency(contacts, programme, 2)


@programme_feature("contacts", "days", "fatigue")
def offer_3_recency_days(contacts: ir.Table, programme: Programme) -> ir.Value:
    """Days since the last contact with the third tracked offer."""
    return _offer_recency(contacts, programme, 3)


def _offer_recency(contacts: ir.Table, programme: Programme, place: int) -> ir.Value:
    """Give a tracked offer's recency; there may be none of that place."""
    if len(programme.tracked_offers) < place:
        return ibis.null("int64")
    return contacts.days_ago.min(where=contacts.treatment == programme.tracked_offers[place - 1])
