"""The budget: the prices at which what members would be sent costs no more than there is, and what one more unit earns.

A campaign's money and the stock of its offers are shared among members by prices: each member gets the offer of highest
net value after them, so that batch and service decide alike, one member at a time (see `training.policy.net_values`).
"""

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Allocation:
    """Hold the smallest prices at which the demand fits, and that demand; money in minor units."""

    price: float  # what one more unit of budget would earn beyond itself
    stock_prices: Floats  # (n_offers,) what one more of each offer would earn
    spend: float
    earned: float  # benefit - cost
    contacts: NDArray[np.int64]  # (n_offers,)


@dataclass(frozen=True)
class Curve:
    """Hold what budgets earn; money in minor units."""

    budget: Floats  # (n_points,) rising
    earned: Floats  # (n_points,) benefit - cost
    marginal: Floats  # (n_points,) what one more unit of it earns beyond itself


def allocate(
    benefit: Floats,
    cost: Floats,
    eligible: Flags,
    *,
    budget: float | None = None,
    stock: Floats | None = None,
    bar: Floats | float = 0.0,
) -> Allocation:
    """Find the smallest prices at which what members would be sent fits the budget and the stock."""
    raise NotImplementedError


def marginal_curve(
    benefit: Floats, cost: Floats, eligible: Flags, *, bar: Floats | float = 0.0, points: int = 101
) -> Curve:
    """Say what budgets from 0 to all that would be spent earn, and what one more unit of each earns beyond itself."""
    raise NotImplementedError


def campaign_price(
    base: float, *, spent: float, budget: float, starts: datetime | None, ends: datetime | None, now: datetime
) -> float:
    """Give the price at which a campaign decides now: its base price, moved by how far spending is off an even plan."""
    if starts is None or ends is None:
        return base
    passed = min(max((now - starts) / (ends - starts), 0.0), 1.0)
    return float(max((1.0 + base) * np.exp(10.0 * (spent / budget - passed)) - 1.0, 0.0))
