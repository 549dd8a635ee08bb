"""One Ibis expression per feature; what each table holds is said in `features.snapshots`.

Every table is already cut at `as_of`; `days_ago` counts whole local days back from it. Sums are of integers, and floats
appear only in a last division, so that DuckDB and Spark agree to the bit.
"""

import ibis
import ibis.expr.types as ir

from features.catalogue import CATALOGUE, feature
from features.sheet import Sheet

_SCORES = 5  # RFM scores are fifths of the membership
_HIGH, _LOW = 4, 2
_NEVER = 100_000  # days: a member without a purchase ranks behind every other


# Recency, frequency, monetary value


@feature("visits", "days")
def recency_days(visits: ir.Table) -> ir.Value:
    """Days since the last visit."""
    return visits.days_ago.min()


@feature("visits", "visits")
def visits_7d(visits: ir.Table) -> ir.Value:
    """Visits in the last 7 days."""
    return visits.count(where=visits.days_ago <= 7)


@feature("visits", "visits")
def visits_28d(visits: ir.Table) -> ir.Value:
    """Visits in the last 28 days."""
    return visits.count(where=visits.days_ago <= 28)


@feature("visits", "visits")
def visits_56d(visits: ir.Table) -> ir.Value:
    """Visits in the last 8 weeks."""
    return visits.count(where=visits.days_ago <= 56)


@feature("visits", "visits")
def visits_84d(visits: ir.Table) -> ir.Value:
    """Visits in the last 12 weeks."""
    return visits.count(where=visits.days_ago <= 84)


@feature("visits", "visits", ageing=True)
def visits_total(visits: ir.Table) -> ir.Value:
    """Visits since joining."""
    return visits.count()


@feature("visits", "money", minimum=None)
def spend_28d(visits: ir.Table) -> ir.Value:
    """Spend in the last 28 days."""
    return visits.amount.sum(where=visits.days_ago <= 28).fill_null(0)


@feature("visits", "money", minimum=None)
def spend_56d(visits: ir.Table) -> ir.Value:
    """Spend in the last 8 weeks."""
    return visits.amount.sum(where=visits.days_ago <= 56).fill_null(0)


@feature("visits", "money", minimum=None)
def spend_84d(visits: ir.Table) -> ir.Value:
    """Spend in the last 12 weeks."""
    return visits.amount.sum(where=visits.days_ago <= 84).fill_null(0)


@feature("visits", "money", minimum=None, ageing=True)
def spend_total(visits: ir.Table) -> ir.Value:
    """Spend since joining."""
    return visits.amount.sum()


@feature("member", "money", minimum=None)
def basket_mean_84d(member: ir.Table) -> ir.Value:
    """Spend per visit in the last 12 weeks."""
    return member.spend_84d / member.visits_84d.nullif(0)


@feature("visits", "money", minimum=None, ageing=True)
def basket_max(visits: ir.Table) -> ir.Value:
    """Spend in the largest visit so far."""
    return visits.amount.max()


@feature("member", "money", minimum=None)
def spend_per_28d(member: ir.Table) -> ir.Value:
    """Spend per 28 days since joining (ARPU)."""
    return member.spend_total * 28 / ibis.greatest(member.joined_days_ago, 28)


# Trends


@feature("member", "ratio", minimum=-1, maximum=1)
def visits_trend_28d(member: ir.Table) -> ir.Value:
    """Change of visits, the last 28 days against the 28 before."""
    return (2 * member.visits_28d - member.visits_56d) / member.visits_56d.nullif(0)


@feature("member", "ratio", minimum=None)
def spend_trend_28d(member: ir.Table) -> ir.Value:
    """Change of spend, the last 28 days against the 28 before."""
    return (2 * member.spend_28d - member.spend_56d) / member.spend_56d.nullif(0)


@feature("member", "ratio")
def visits_pace_84d(member: ir.Table) -> ir.Value:
    """Visits of the last 28 days, as a share of the last 12 weeks."""
    return member.visits_28d / member.visits_84d.nullif(0)


# Rhythm


@feature("purchase_days", "days")
def gap_mean_days(days: ir.Table) -> ir.Value:
    """Usual days between purchases."""
    return days.gap.sum() / days.gap.count().nullif(0)


@feature("purchase_days", "days")
def gap_sd_days(days: ir.Table) -> ir.Value:
    """Spread of the days between purchases."""
    n, total, squares = days.gap.count(), days.gap.sum(), (days.gap * days.gap).sum()
    return ((n * squares - total * total) / (n * (n - 1)).nullif(0)).sqrt()


@feature("purchase_days", "days", ageing=True)
def gap_max_days(days: ir.Table) -> ir.Value:
    """Longest time between two purchases."""
    return days.gap.max()


@feature("purchase_days", "days")
def gap_recent_max_days(days: ir.Table) -> ir.Value:
    """Longest time between two purchases that ended in the last 8 weeks."""
    return days.gap.max(where=days.days_ago <= 56)


@feature("member", "ratio")
def overdue_ratio(member: ir.Table) -> ir.Value:
    """Days since the last visit, in usual gaps."""
    return member.recency_days / member.gap_mean_days.nullif(0)


@feature("purchase_days", "weeks", maximum=12)
def active_weeks_84d(days: ir.Table) -> ir.Value:
    """Weeks with a purchase among the last 12."""
    return ((days.days_ago - 1) // 7).nunique(where=days.days_ago.between(1, 84))


@feature("visits", "share", maximum=1)
def weekend_share_84d(visits: ir.Table) -> ir.Value:
    """Share of visits on a weekend, in the last 12 weeks."""
    recent = visits.days_ago <= 84
    return visits.count(where=recent & (visits.weekday >= 5)) / visits.count(where=recent).nullif(0)


@feature("visits", "share", maximum=1)
def evening_share_84d(visits: ir.Table) -> ir.Value:
    """Share of visits after 17:00, in the last 12 weeks."""
    recent = visits.days_ago <= 84
    return visits.count(where=recent & (visits.hour >= 17)) / visits.count(where=recent).nullif(0)


@feature("member", "days", ageing=True)
def tenure_days(member: ir.Table) -> ir.Value:
    """Days since joining."""
    return member.joined_days_ago


# Discounts, baskets, categories


@feature("visits", "share", minimum=None)  # refunds push a share of spend out of 0 to 1
def discount_share_84d(visits: ir.Table) -> ir.Value:
    """Discount as a share of the full price, in the last 12 weeks."""
    recent = visits.days_ago <= 84
    discount, paid = visits.discount.sum(where=recent), visits.amount.sum(where=recent)
    return discount / (discount + paid).nullif(0)


@feature("visits", "share", maximum=1)
def discounted_visits_share_84d(visits: ir.Table) -> ir.Value:
    """Share of visits with a discount, in the last 12 weeks."""
    recent = visits.days_ago <= 84
    return visits.count(where=recent & (visits.discount > 0)) / visits.count(where=recent).nullif(0)


@feature("visits", "lines")
def lines_per_visit_84d(visits: ir.Table) -> ir.Value:
    """Receipt lines per visit, in the last 12 weeks."""
    recent = visits.days_ago <= 84
    return visits.lines.sum(where=recent) / visits.count(where=recent).nullif(0)


@feature("categories", "categories")
def category_count_84d(categories: ir.Table) -> ir.Value:
    """Categories bought in the last 12 weeks."""
    return categories.count()


@feature("categories", "share", minimum=None)
def category_top_share_84d(categories: ir.Table) -> ir.Value:
    """Share of the largest category in the spend of the last 12 weeks."""
    return categories.amount.max() / categories.amount.sum().nullif(0)


@feature("categories", "share")
def category_concentration_84d(categories: ir.Table) -> ir.Value:
    """Concentration of spend on few categories (Herfindahl index), in the last 12 weeks."""
    total = categories.amount.sum()
    return (categories.amount * categories.amount).sum() / (total * total).nullif(0)


# Contact history


@feature("contacts", "contacts")
def contacts_84d(contacts: ir.Table) -> ir.Value:
    """Campaigns that contacted the member in the last 12 weeks."""
    return contacts.count(where=contacts.days_ago <= 84)


@feature("contacts", "contacts", ageing=True)
def contacts_total(contacts: ir.Table) -> ir.Value:
    """Campaigns that contacted the member so far."""
    return contacts.count()


@feature("contacts", "days")
def contact_recency_days(contacts: ir.Table) -> ir.Value:
    """Days since the last contact."""
    return contacts.days_ago.min()


@feature("redemptions", "redemptions")
def redemptions_84d(redemptions: ir.Table) -> ir.Value:
    """Redemptions in the last 12 weeks."""
    return redemptions.count(where=redemptions.days_ago <= 84)


@feature("redemptions", "redemptions", ageing=True)
def redemptions_total(redemptions: ir.Table) -> ir.Value:
    """Redemptions so far."""
    return redemptions.count()


@feature("redemptions", "contacts", ageing=True)
def responses_total(redemptions: ir.Table) -> ir.Value:
    """Contacts with a redemption so far."""
    return redemptions.contact_id.nunique()


@feature("member", "share")
def response_rate(member: ir.Table) -> ir.Value:
    """Share of contacts that led to a redemption."""
    return member.responses_total / member.contacts_total.nullif(0)


# Recency, frequency and monetary scores: the fifth of the membership one stands in, 5 is best; ties share a score


def _fifth(worst_first: ir.Value) -> ir.Value:
    rank = ibis.percent_rank().over(ibis.window(order_by=worst_first))
    return ibis.least((rank * _SCORES).floor() + 1, _SCORES).cast("int64")


@feature("audience", "score", minimum=1, maximum=5)
def recency_score(audience: ir.Table) -> ir.Value:
    """Recency score: the fifth of the membership, 5 for the most recent."""
    return _fifth(-audience.recency_days.fill_null(_NEVER))


@feature("audience", "score", minimum=1, maximum=5)
def frequency_score(audience: ir.Table) -> ir.Value:
    """Frequency score: the fifth of the membership by visits in 12 weeks, 5 for the most."""
    return _fifth(audience.visits_84d)


@feature("audience", "score", minimum=1, maximum=5)
def monetary_score(audience: ir.Table) -> ir.Value:
    """Monetary score: the fifth of the membership by spend in 12 weeks, 5 for the most."""
    return _fifth(audience.spend_84d)


# Words: not read by the models, shown to people and used by fallbacks and rules


@feature("audience", "word", minimum=None)
def segment(audience: ir.Table) -> ir.Value:
    """RFM segment."""
    recency, frequency, monetary = audience.recency_score, audience.frequency_score, audience.monetary_score
    return ibis.cases(
        ((recency >= _HIGH) & (frequency >= _HIGH) & (monetary >= _HIGH), "best"),
        (frequency >= _HIGH, "loyal"),
        (monetary >= _HIGH, "big_basket"),
        ((recency >= _HIGH) & (frequency <= _LOW), "promising"),
        ((recency <= _LOW) & (frequency > _LOW), "slipping"),
        ((recency <= _LOW) & (frequency <= _LOW), "hibernating"),
        else_="regular",
    )


@feature("audience", "word", minimum=None)
def lifecycle_stage(audience: ir.Table) -> ir.Value:
    """Life cycle stage: new, active, dormant, lapsed or returned."""
    silent = audience.recency_days.fill_null(audience.joined_days_ago)  # who never bought is silent since joining
    return ibis.cases(
        (silent > audience.lapsed_after, "lapsed"),
        (silent > audience.dormant_after, "dormant"),
        (audience.joined_days_ago <= audience.new_until, "new"),
        (audience.gap_recent_max_days > audience.lapsed_after, "returned"),
        else_="active",
    )


def catalogue_sheet() -> Sheet:
    """Show every feature with its meaning, unit and range."""
    rows = [
        (name, f.meaning, f.unit, "" if f.is_text else f"{_bound(f.minimum)} to {_bound(f.maximum)}")
        for name, f in CATALOGUE.items()
    ]
    return Sheet(f"{len(rows)} features", ("feature", "meaning", "unit", "range"), tuple(rows))


def _bound(value: float | None) -> str:
    return "any" if value is None else f"{value:g}"
