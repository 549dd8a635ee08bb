"""What decisions rest on, told so that the log can say whether it is still so.

Budget and stock enter a decision only by what they are enough for, member by member. So decisions stand for every total
for which they would be the same, and what is stored is what would have been decided had nobody else been at it.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from features.decisions import Seen
from features.log.book import Range
from serving.decide import Choice, Decider, Occasion, Worth

Floats = NDArray[np.float64]


def grounds_of(
    decider: Decider, occasion: Occasion, choice: Choice, worth: Worth, *, member_ids: Sequence[str], moment: int | None
) -> Seen | None:
    """Say what decisions rest on; nothing where nothing limits them.

    Parameters
    ----------
    moment : of the log before contacts were read; none if they do not matter
    """
    campaign_id, purse = occasion.campaign_id, occasion.purse
    spent, campaign = dict[str, Range](), decider.campaign(campaign_id)
    if campaign_id is not None and campaign and campaign.budget is not None:
        needs = np.column_stack([np.full(len(worth.cost), decider.fallback_cost), worth.cost])
        spent[campaign_id] = totals(campaign.budget, purse.budget, choice.budget[:, None], needs)
    contacted = {
        offer_id: totals(limit, purse.stock[place], choice.stock[:, place : place + 1], np.ones((len(worth.cost), 1)))
        for place, offer_id in enumerate(decider.release.offer_ids)
        if math.isfinite(limit := decider.stock[place])
    }
    if moment is None and not spent and not contacted:
        return None
    return Seen(moment, member_ids if moment is not None else (), spent, contacted)


def totals(limit: float, left: float, at_turn: Floats, needs: Floats) -> Range:
    """Give the totals, of all the limit, for which the same would have been enough for everybody.

    Parameters
    ----------
    limit : all there ever was
    left : of it, before the first member's turn
    at_turn : (n_members, 1) what was left at each one's turn
    needs : (n_members, n) what it has to be enough for

    >>> totals(100, 40, np.array([[40.0], [30.0]]), np.array([[10.0], [10.0]]))
    (None, 80)
    >>> totals(100, 15, np.array([[15.0], [5.0]]), np.array([[10.0], [10.0]]))
    (81, 90)
    """
    enough = needs <= at_turn
    wanted = left - at_turn + needs  # what would have had to be left at first
    least_left = wanted[enough].max(initial=-math.inf)
    below = wanted[~enough].min(initial=math.inf)
    return (
        None if math.isinf(below) else math.floor(limit - below) + 1,
        None if math.isinf(least_left) else math.floor(limit - least_left),
    )
