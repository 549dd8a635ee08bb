"""Who was contacted how often, how recently, with which offer, and what followed."""

import ibis.expr.types as ir

from features.catalogue import EVER, feature


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
