"""The tier a member has reached, whether that went up or down, and how far the next one is.

A member has the highest tier whose `spend` was reached within the programme's `tier_days`; tiers are `[[tiers]]` in
holdfast.toml, in order. Level 0 is below the first.
"""

import ibis
import ibis.expr.types as ir

from features.catalogue.entries import programme_feature
from features.programme import Programme

CHANGE_DAYS = 28  # up and down are told against so many days ago


def _now(programme: Programme) -> int:
    return programme.tier_days


def _before(programme: Programme) -> int:
    return programme.tier_days + CHANGE_DAYS


@programme_feature("visits", "money", "rules", minimum=None, window=_now)
def tier_spend(visits: ir.Table, programme: Programme) -> ir.Value:
    """Spend that counts for the tier."""
    return visits.amount.sum(where=visits.days_ago <= programme.tier_days).fill_null(0)


@programme_feature("visits", "money", "rules", minimum=None, window=_before)
def tier_spend_before(visits: ir.Table, programme: Programme) -> ir.Value:
    """Spend that counted for the tier four weeks ago."""
    first, last = CHANGE_DAYS + 1, CHANGE_DAYS + programme.tier_days
    return visits.amount.sum(where=visits.days_ago.between(first, last)).fill_null(0)


@programme_feature("member", "level", "value", window=_now)
def tier_level(member: ir.Table, programme: Programme) -> ir.Value:
    """Tier as a number: how many tiers are reached."""
    return _level(member.tier_spend, programme)


@programme_feature("member", "level", "lapse", minimum=None, window=_before)
def tier_change(member: ir.Table, programme: Programme) -> ir.Value:
    """Tiers gained (upgrade) or lost (downgrade, below 0) in the last four weeks."""
    return _level(member.tier_spend, programme) - _level(member.tier_spend_before, programme)


@programme_feature("member", "money", "response", window=_now)
def tier_distance(member: ir.Table, programme: Programme) -> ir.Value:
    """Spend that is lacking for the next tier; missing at the highest."""
    steps = [(member.tier_spend < tier.spend, tier.spend - member.tier_spend) for tier in programme.tiers]
    return ibis.cases(*steps) if steps else ibis.null("int64")


@programme_feature("member", "word", "rules", minimum=None, window=_now)
def tier(member: ir.Table, programme: Programme) -> ir.Value:
    """Tier by name; missing below the first."""
    names = [(member.tier_spend >= tier.spend, tier.name) for tier in reversed(programme.tiers)]
    return ibis.cases(*names) if names else ibis.null("string")


def _level(spend: ir.Value, programme: Programme) -> ir.Value:
    return sum(((spend >= tier.spend).cast("int64") for tier in programme.tiers), ibis.literal(0))
