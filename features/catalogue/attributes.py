"""What `members` says of a member: words that rules and fallbacks speak of.

They carry no time: a snapshot has them as they stood when it was built, so that no model reads them.
"""

import ibis
import ibis.expr.types as ir

from features.catalogue.entries import feature


@feature("member", "word", "rules", minimum=None)
def personalisation(member: ir.Table) -> ir.Value:
    """Whether the member wants personalised offers: yes, or no."""
    return ibis.ifelse(member.personalisation.fill_null(True), "yes", "no")


@feature("member", "word", "rules", minimum=None)
def region(member: ir.Table) -> ir.Value:
    """Region where the member lives."""
    return member.region


@feature("member", "word", "rules", minimum=None)
def gender(member: ir.Table) -> ir.Value:
    """Gender, as the member gave it."""
    return member.gender
