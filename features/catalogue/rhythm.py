"""When a member buys: the usual gap between purchases, weekdays, hours, and the season."""

import ibis
import ibis.expr.types as ir

from features.catalogue.entries import EVER, feature

_MONTHS = 13  # of four weeks, in 52 weeks
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


@feature("purchase_days", "days", "lapse")
def gap_mean_days(days: ir.Table) -> ir.Value:
    """Usual days between purchases."""
    return days.gap.sum() / days.gap.count().nullif(0)


@feature("purchase_days", "days", "lapse")
def gap_sd_days(days: ir.Table) -> ir.Value:
    """Spread of the days between purchases."""
    n, total, squares = days.gap.count(), days.gap.sum(), (days.gap * days.gap).sum()
    return ((n * squares - total * total) / (n * (n - 1)).nullif(0)).sqrt()


@feature("purchase_days", "days", "lapse", window=EVER)
def gap_max_days(days: ir.Table) -> ir.Value:
    """Longest time between two purchases."""
    return days.gap.max()


@feature("purchase_days", "days", "lapse")
def gap_recent_max_days(days: ir.Table) -> ir.Value:
    """Longest time between two purchases that ended in the last 8 weeks."""
    return days.gap.max(where=days.days_ago <= 56)


@feature("member", "ratio", "lapse")
def overdue_ratio(member: ir.Table) -> ir.Value:
    """Days since the last visit, in usual gaps."""
    return member.recency_days / member.gap_mean_days.nullif(0)


@feature("member", "days", "lapse", minimum=None)
def next_purchase_days(member: ir.Table) -> ir.Value:
    """Days until the next purchase is due by the usual gap, below 0 when it is overdue."""
    return member.gap_mean_days - member.recency_days


@feature("purchase_days", "weeks", "lapse", maximum=12)
def active_weeks_84d(days: ir.Table) -> ir.Value:
    """Weeks with a purchase among the last 12."""
    week, week_before = (days.days_ago - 1) // 7, (days.before - 1) // 7
    return days.count(where=days.days_ago.between(1, 84) & ~week.identical_to(week_before))


@feature("visits", "share", "response", maximum=1)
def weekend_share_84d(visits: ir.Table) -> ir.Value:
    """Share of visits on a weekend, in the last 12 weeks."""
    recent = visits.days_ago <= 84
    return visits.count(where=recent & (visits.weekday >= 5)) / visits.count(where=recent).nullif(0)


@feature("visits", "share", "response", maximum=1)
def evening_share_84d(visits: ir.Table) -> ir.Value:
    """Share of visits after 17:00, in the last 12 weeks."""
    recent = visits.days_ago <= 84
    return visits.count(where=recent & (visits.hour >= 17)) / visits.count(where=recent).nullif(0)


@feature("visits", "share", "lapse", maximum=1)
def weekday_top_share_84d(visits: ir.Table) -> ir.Value:
    """Share of visits on the usual weekday, in the last 12 weeks."""
    counts = _by_weekday(visits)
    return ibis.greatest(*counts) / visits.count(where=visits.days_ago <= 84).nullif(0)


@feature("visits", "word", "rules", minimum=None, window=84)
def usual_weekday(visits: ir.Table) -> ir.Value:
    """Weekday with the most visits in the last 12 weeks; of several, the first of the week."""
    counts = _by_weekday(visits)
    most = ibis.greatest(*counts).nullif(0)
    return ibis.cases(*[(count == most, name) for count, name in zip(counts, _WEEKDAYS, strict=True)])


@feature("visits", "money", "value", minimum=None)
def season_spend_364d(visits: ir.Table) -> ir.Value:
    """Spend a year ago in the four weeks that now come."""
    return visits.amount.sum(where=visits.days_ago.between(337, 364)).fill_null(0)


@feature("member", "ratio", "value", minimum=None)
def season_ratio_364d(member: ir.Table) -> ir.Value:
    """Spend a year ago in the four weeks that now come, against the mean four weeks of that year."""
    return _MONTHS * member.season_spend_364d / member.spend_364d.nullif(0)


def _by_weekday(visits: ir.Table) -> list[ir.Value]:
    recent = visits.days_ago <= 84
    return [visits.count(where=recent & (visits.weekday == day)) for day in range(len(_WEEKDAYS))]
