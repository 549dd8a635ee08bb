"""The state of a member's subscription, where there are contracts.

A row of `subscriptions` is one term; a renewal begins another. The current term is the one that began last. What was
decided at or after `as_of` (a cancellation, a renewal) is not seen. Days are of 24 hours.
"""

import ibis.expr.types as ir

from features.catalogue.entries import EVER, feature


@feature("terms", "days", "lapse", minimum=None)
def subscription_days_to_end(terms: ir.Table) -> ir.Value:
    """Days until the current term ends, below 0 once it has ended."""
    return terms.days_to_end.max(where=terms.newest)


@feature("terms", "days", "lapse")
def subscription_term_days(terms: ir.Table) -> ir.Value:
    """Days since the current term began."""
    return terms.days_ago.max(where=terms.newest)


@feature("terms", "renewals", "lapse", window=EVER)
def subscription_renewals(terms: ir.Table) -> ir.Value:
    """Terms begun after the first."""
    return terms.count() - 1


@feature("terms", "flag", "lapse", maximum=1)
def subscription_renewed(terms: ir.Table) -> ir.Value:
    """Whether the current term is already renewed."""
    return terms.renewed.max(where=terms.newest)


@feature("terms", "flag", "lapse", maximum=1)
def subscription_cancelled(terms: ir.Table) -> ir.Value:
    """Whether the current term is cancelled."""
    return terms.cancelled.max(where=terms.newest)


@feature("terms", "flag", "lapse", maximum=1)
def subscription_auto_renew(terms: ir.Table) -> ir.Value:
    """Whether the current term renews itself."""
    return terms.auto_renews.max(where=terms.newest)


@feature("terms", "cancellations", "lapse", window=EVER)
def subscription_past_cancels(terms: ir.Table) -> ir.Value:
    """Terms before the current one that were cancelled."""
    return terms.count(where=(terms.cancelled == 1) & ~terms.newest)


@feature("terms", "money", "value", zero=False)
def subscription_price(terms: ir.Table) -> ir.Value:
    """Price of the current term."""
    return terms.price.max(where=terms.newest)


@feature("terms", "word", "rules", minimum=None)
def subscription_plan(terms: ir.Table) -> ir.Value:
    """Plan of the current term."""
    return terms.plan.max(where=terms.newest)
