"""RFM scores and segment, and the life cycle stage: the words that people, rules and fallbacks speak.

A score is the fifth of the membership one stands in, 5 is best; ties share a score. What it takes of all members are
the `BOUNDS`: the least value that reaches each score.
"""

from collections.abc import Callable
from functools import reduce
from operator import add
from typing import Final

import ibis
import ibis.expr.types as ir

from features.catalogue.entries import feature, programme_feature
from features.programme import Programme

_SCORES: Final = 5
_HIGH, _LOW = 4, 2
_NEVER: Final = 100_000  # days: a member without a purchase ranks behind every other
# what a score is of, worst first
_MEASURES: Final[dict[str, Callable[[ir.Table], ir.Value]]] = {
    "recency_score": lambda member: -member.recency_days.fill_null(_NEVER),
    "frequency_score": lambda member: member.visits_84d,
    "monetary_score": lambda member: member.spend_84d,
}
_BOUNDS: Final = {(name, score): f"{name}_{score}" for name in _MEASURES for score in range(2, _SCORES + 1)}
BOUNDS: Final = tuple(_BOUNDS.values())


def bounds_of(members: ir.Table) -> ir.Table:
    """Find the bounds among all members: one row; one that nobody reaches is missing.

    A member reaches score k when at least k - 1 fifths of the others are worse (SQL's `percent_rank`).
    """
    (first, *others) = (_bounds_of(members, name) for name in _MEASURES)
    return reduce(ir.Table.cross_join, others, first)


@feature("audience", "score", "rules", minimum=1, maximum=5)
def recency_score(audience: ir.Table) -> ir.Value:
    """Recency score: the fifth of the membership, 5 for the most recent."""
    return _score(audience, "recency_score")


@feature("audience", "score", "rules", minimum=1, maximum=5)
def frequency_score(audience: ir.Table) -> ir.Value:
    """Frequency score: the fifth of the membership by visits in 12 weeks, 5 for the most."""
    return _score(audience, "frequency_score")


@feature("audience", "score", "rules", minimum=1, maximum=5)
def monetary_score(audience: ir.Table) -> ir.Value:
    """Monetary score: the fifth of the membership by spend in 12 weeks, 5 for the most."""
    return _score(audience, "monetary_score")


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


def _score(audience: ir.Table, name: str) -> ir.Value:
    value = _MEASURES[name](audience)
    bounds = [audience[column] for (score_of, _), column in _BOUNDS.items() if score_of == name]
    return reduce(add, ((value >= bound).fill_null(False).cast("int64") for bound in bounds), ibis.literal(1))


def _bounds_of(members: ir.Table, name: str) -> ir.Table:
    counted = members.group_by(value=_MEASURES[name](members)).aggregate(members=members.count())
    # of values, which are few, and not of members: an engine may order them in one place
    so_far = counted.members.sum().over(ibis.cumulative_window(order_by=counted.value))
    ranked = counted.mutate(worse=so_far - counted.members, others=counted.members.sum().over() - 1)
    reached = {
        column: ranked.value.min(where=(ranked.worse > 0) & (ranked.worse * _SCORES >= ranked.others * (score - 1)))
        for (score_of, score), column in _BOUNDS.items()
        if score_of == name
    }
    return ranked.aggregate(**reached)
