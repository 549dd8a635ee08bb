"""RFM scores and segment, and the life cycle stage: the words that people, rules and fallbacks speak.

A score is the fifth of the membership one stands in, 5 is best; ties share a score.
"""

import ibis
import ibis.expr.types as ir

from features.catalogue.entries import feature, programme_feature
from features.programme import Programme

_SCORES = 5
_HIGH, _LOW = 4, 2
_NEVER = 100_000  # days: a member without a purchase ranks behind every other


@feature("audience", "score", "rules", minimum=1, maximum=5)
def recency_score(audience: ir.Table) -> ir.Value:
    """Recency score: the fifth of the membership, 5 for the most recent."""
    return _fifth(-audience.recency_days.fill_null(_NEVER))


@feature("audience", "score", "rules", minimum=1, maximum=5)
def frequency_score(audience: ir.Table) -> ir.Value:
    """Frequency score: the fifth of the membership by visits in 12 weeks, 5 for the most."""
    return _fifth(audience.visits_84d)


@feature("audience", "score", "rules", minimum=1, maximum=5)
def monetary_score(audience: ir.Table) -> ir.Value:
    """Monetary score: the fifth of the membership by spend in 12 weeks, 5 for the most."""
    return _fifth(audience.spend_84d)


@feature("audience", "word", "rules", minimum=None)
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


@programme_feature("member", "word", "rules", minimum=None)
def lifecycle_stage(member: ir.Table, programme: Programme) -> ir.Value:
    """Life cycle stage: new, active, dormant, lapsed or returned."""
    stages = programme.stages
    silent = member.recency_days.fill_null(member.joined_days_ago)  # who never bought is silent since joining
    return ibis.cases(
        (silent > stages.lapsed, "lapsed"),
        (silent > stages.dormant, "dormant"),
        (member.joined_days_ago <= stages.new, "new"),
        (member.gap_recent_max_days > stages.lapsed, "returned"),
        else_="active",
    )


def _fifth(worst_first: ir.Value) -> ir.Value:
    rank = ibis.percent_rank().over(ibis.window(order_by=worst_first))
    return ibis.least((rank * _SCORES).floor() + 1, _SCORES).cast("int64")
