"""What a member buys: the size and shape of baskets, discounts, categories and channels."""

import ibis
import ibis.expr.types as ir

from features.catalogue.entries import EVER, feature, programme_feature
from features.programme import Programme


@feature("member", "money", "value", minimum=None)
def basket_mean_84d(member: ir.Table) -> ir.Value:
    """Spend per visit in the last 12 weeks."""
    return member.spend_84d / member.visits_84d.nullif(0)


@feature("visits", "money", "value", zero=False)
def basket_sd_84d(visits: ir.Table) -> ir.Value:
    """Spread of the spend per visit, in the last 12 weeks."""
    recent, squares = visits.days_ago <= 84, visits.amount * visits.amount
    n, total, square = visits.count(where=recent), visits.amount.sum(where=recent), squares.sum(where=recent)
    return ((n * square - total * total) / (n * (n - 1)).nullif(0)).sqrt()


@feature("visits", "money", "value", minimum=None, window=EVER)
def basket_max(visits: ir.Table) -> ir.Value:
    """Spend in the largest visit so far."""
    return visits.amount.max()


@feature("visits", "lines", "value")
def lines_per_visit_84d(visits: ir.Table) -> ir.Value:
    """Receipt lines per visit, in the last 12 weeks."""
    recent = visits.days_ago <= 84
    return visits.lines.sum(where=recent) / visits.count(where=recent).nullif(0)


@feature("visits", "items", "value")
def items_per_visit_84d(visits: ir.Table) -> ir.Value:
    """Items per visit, in the last 12 weeks."""
    recent = (visits.days_ago <= 84) & visits.quantity.notnull()
    return visits.quantity.sum(where=recent) / visits.count(where=recent).nullif(0)


@feature("visits", "share", "response", minimum=None)  # refunds push a share of spend out of 0 to 1
def discount_share_84d(visits: ir.Table) -> ir.Value:
    """Discount as a share of the full price, in the last 12 weeks."""
    recent = visits.days_ago <= 84
    discount, paid = visits.discount.sum(where=recent), visits.amount.sum(where=recent)
    return discount / (discount + paid).nullif(0)


@feature("visits", "share", "response", maximum=1)
def discounted_visits_share_84d(visits: ir.Table) -> ir.Value:
    """Share of visits with a discount, in the last 12 weeks."""
    recent = visits.days_ago <= 84
    return visits.count(where=recent & (visits.discount > 0)) / visits.count(where=recent).nullif(0)


@feature("categories", "categories", "value")
def category_count_84d(categories: ir.Table) -> ir.Value:
    """Categories bought in the last 12 weeks."""
    return categories.count()


@feature("categories", "share", "value", minimum=None)
def category_top_share_84d(categories: ir.Table) -> ir.Value:
    """Share of the largest category in the spend of the last 12 weeks."""
    return categories.amount.max() / categories.amount.sum().nullif(0)


@feature("categories", "share", "value")
def category_concentration_84d(categories: ir.Table) -> ir.Value:
    """Concentration of spend on few categories (Herfindahl index), in the last 12 weeks."""
    total = categories.amount.sum()
    return (categories.amount * categories.amount).sum() / (total * total).nullif(0)


@programme_feature("categories", "share", "value", minimum=None)
def category_1_share_84d(categories: ir.Table, programme: Programme) -> ir.Value:
    """Share of the first tracked category in the spend of the last 12 weeks."""
    return _share(categories, programme, 1)


@programme_feature("categories", "share", "value", minimum=None)
def category_2_share_84d(categories: ir.Table, programme: Programme) -> ir.Value:
    """Share of the second tracked category in the spend of the last 12 weeks."""
    return _share(categories, programme, 2)


@programme_feature("categories", "share", "value", minimum=None)
def category_3_share_84d(categories: ir.Table, programme: Programme) -> ir.Value:
    """Share of the third tracked category in the spend of the last 12 weeks."""
    return _share(categories, programme, 3)


@feature("channels", "channels", "value")
def channel_count_84d(channels: ir.Table) -> ir.Value:
    """Channels bought through in the last 12 weeks."""
    return channels.count()


@feature("channels", "share", "value", maximum=1)
def channel_top_share_84d(channels: ir.Table) -> ir.Value:
    """Share of visits through the usual channel, in the last 12 weeks."""
    return channels.visits.max() / channels.visits.sum()


@programme_feature("channels", "share", "response", maximum=1)
def online_share_84d(channels: ir.Table, programme: Programme) -> ir.Value:
    """Share of visits through the programme's online channels, in the last 12 weeks."""
    online = channels.channel.isin(programme.online_channels)
    return channels.visits.sum(where=online).fill_null(0) / channels.visits.sum()


@feature("channels", "word", "rules", minimum=None, window=84)
def usual_channel(channels: ir.Table) -> ir.Value:
    """Channel with the most visits in the last 12 weeks; of several, the first by name."""
    return channels.channel.argmin(ibis.struct({"visits": -channels.visits, "channel": channels.channel}))


def _share(categories: ir.Table, programme: Programme, place: int) -> ir.Value:
    """Give a tracked category's share; there may be none of that place."""
    if len(programme.tracked_categories) < place:
        return ibis.null("float64")
    bought = categories.category == programme.tracked_categories[place - 1]
    return categories.amount.sum(where=bought).fill_null(0) / categories.amount.sum().nullif(0)
