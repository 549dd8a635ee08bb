"""How recently, how often and for how much a member buys, how that changes, and what it is worth."""

import ibis
import ibis.expr.types as ir

from features.catalogue.entries import EVER, feature, programme_feature
from features.programme import Programme


@feature("visits", "days", "lapse")
def recency_days(visits: ir.Table) -> ir.Value:
    """Days since the last visit."""
    return visits.days_ago.min()


@feature("visits", "visits", "lapse")
def visits_7d(visits: ir.Table) -> ir.Value:
    """Visits in the last 7 days."""
    return visits.count(where=visits.days_ago <= 7)


@feature("visits", "visits", "lapse")
def visits_28d(visits: ir.Table) -> ir.Value:
    """Visits in the last 28 days."""
    return visits.count(where=visits.days_ago <= 28)


@feature("visits", "visits", "lapse")
def visits_56d(visits: ir.Table) -> ir.Value:
    """Visits in the last 8 weeks."""
    return visits.count(where=visits.days_ago <= 56)


@feature("visits", "visits", "lapse")
def visits_84d(visits: ir.Table) -> ir.Value:
    """Visits in the last 12 weeks."""
    return visits.count(where=visits.days_ago <= 84)


@feature("visits", "visits", "lapse")
def visits_364d(visits: ir.Table) -> ir.Value:
    """Visits in the last 52 weeks."""
    return visits.count(where=visits.days_ago <= 364)


@feature("visits", "visits", "lapse", window=EVER)
def visits_total(visits: ir.Table) -> ir.Value:
    """Visits since joining."""
    return visits.count()


@feature("visits", "money", "value", minimum=None)
def spend_7d(visits: ir.Table) -> ir.Value:
    """Spend in the last 7 days."""
    return _spend(visits, 7)


@feature("visits", "money", "value", minimum=None)
def spend_28d(visits: ir.Table) -> ir.Value:
    """Spend in the last 28 days."""
    return _spend(visits, 28)


@feature("visits", "money", "value", minimum=None)
def spend_56d(visits: ir.Table) -> ir.Value:
    """Spend in the last 8 weeks."""
    return _spend(visits, 56)


@feature("visits", "money", "value", minimum=None)
def spend_84d(visits: ir.Table) -> ir.Value:
    """Spend in the last 12 weeks."""
    return _spend(visits, 84)


@feature("visits", "money", "value", minimum=None)
def spend_364d(visits: ir.Table) -> ir.Value:
    """Spend in the last 52 weeks."""
    return _spend(visits, 364)


@feature("visits", "money", "value", minimum=None, window=EVER)
def spend_total(visits: ir.Table) -> ir.Value:
    """Spend since joining."""
    return visits.amount.sum()


@feature("member", "money", "value", minimum=None)
def spend_per_28d(member: ir.Table) -> ir.Value:
    """Spend per 28 days since joining (ARPU)."""
    return member.spend_total * 28 / ibis.greatest(member.joined_days_ago, 28)


@programme_feature("visits", "money", "value", minimum=None, window=EVER)
def historic_value(visits: ir.Table, programme: Programme) -> ir.Value:
    """Margin since joining; where transactions bring no margin, the programme's share of the spend."""
    if "margin" in visits.columns:
        return visits.margin.sum().fill_null(0)
    # as float64, or DuckDB takes the share for a decimal, and the product for one as well, whatever Ibis says of it
    return visits.amount.sum().cast("float64") * programme.margin_rate


@feature("member", "ratio", "lapse", minimum=-1, maximum=1, window=56)
def visits_trend_28d(member: ir.Table) -> ir.Value:
    """Change of visits, the last 28 days against the 28 before."""
    return (2 * member.visits_28d - member.visits_56d) / member.visits_56d.nullif(0)


@feature("member", "ratio", "lapse", minimum=None, window=56)
def spend_trend_28d(member: ir.Table) -> ir.Value:
    """Change of spend, the last 28 days against the 28 before."""
    return (2 * member.spend_28d - member.spend_56d) / member.spend_56d.nullif(0)


@feature("member", "ratio", "lapse", maximum=1)
def visits_pace_28d(member: ir.Table) -> ir.Value:
    """Visits of the last 7 days, as a share of the last 28."""
    return member.visits_7d / member.visits_28d.nullif(0)


@feature("member", "ratio", "lapse", maximum=1)
def visits_pace_84d(member: ir.Table) -> ir.Value:
    """Visits of the last 28 days, as a share of the last 12 weeks."""
    return member.visits_28d / member.visits_84d.nullif(0)


@feature("member", "ratio", "lapse", maximum=1)
def visits_pace_364d(member: ir.Table) -> ir.Value:
    """Visits of the last 12 weeks, as a share of the last 52."""
    return member.visits_84d / member.visits_364d.nullif(0)


@feature("member", "ratio", "lapse", minimum=None)
def spend_pace_28d(member: ir.Table) -> ir.Value:
    """Spend of the last 7 days, as a share of the last 28."""
    return member.spend_7d / member.spend_28d.nullif(0)


@feature("member", "ratio", "lapse", minimum=None)
def spend_pace_84d(member: ir.Table) -> ir.Value:
    """Spend of the last 28 days, as a share of the last 12 weeks."""
    return member.spend_28d / member.spend_84d.nullif(0)


@feature("member", "ratio", "lapse", minimum=None)
def spend_pace_364d(member: ir.Table) -> ir.Value:
    """Spend of the last 12 weeks, as a share of the last 52."""
    return member.spend_84d / member.spend_364d.nullif(0)


@feature("member", "days", "lapse", window=EVER)
def tenure_days(member: ir.Table) -> ir.Value:
    """Days since joining."""
    return member.joined_days_ago


def _spend(visits: ir.Table, days: int) -> ir.Value:
    return visits.amount.sum(where=visits.days_ago <= days).fill_null(0)
