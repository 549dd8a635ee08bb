"""The budget: the prices at which what members would be sent fits it, what one more unit earns, and how it is paced.

A campaign's money and the stock of its offers are shared by prices: every member gets the offer of the highest net
value after them, so that batch and service decide alike, one member at a time (see `training.policy.net_values`).

Prices do not tell apart who is exactly alike: a crowd on the margin would get nothing, which is less than there is. So
who decides at a price gives `told_apart` benefits, to this module and to the policy alike.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features.errors import ContractError
from training.policy import Reals
from training.shadow_prices import Audience, Chosen, Demand, shadow_prices

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

TIE: Final = 1e-3  # the share of its benefit by which an offer is told apart from one exactly as good
NOTHING: Final = 1e-9  # the share of all that would be spent which stands for no budget
PACE: Final = 10.0  # a tenth of the budget ahead of the plan makes money 2.7 times as dear


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
    benefit: Reals,
    cost: Reals,
    eligible: Flags,
    *,
    budget: float | None = None,
    stock: NDArray[np.int64] | Floats | None = None,
    bar: Reals | float = 0.0,
) -> Allocation:
    """Find the smallest prices at which what members would be sent fits the budget and the stock.

    The demand is that of the policy without exploration: every member's eligible offer of the highest net value, if it
    is above its bar. With a budget alone and no bar, this is the linear program's optimum but for one member; with
    stock it is within 1 % of it, where no large crowd is exactly alike.

    Parameters
    ----------
    benefit, cost, eligible : (n_members, n_offers); numbers may be float32
    budget : minor units, above 0; None for as much as it takes
    stock : (n_offers,) contacts, at least 0; infinite where there is no end of them
    bar : (n_members, n_offers) or one for all, as in `training.policy.treatment_probabilities`

    Raises
    ------
    ContractError
        For a budget, a stock or costs that are none.

    >>> sent = allocate(np.array([[90.0], [40.0], [30.0]]), np.full((3, 1), 10.0), np.ones((3, 1), bool), budget=20.0)
    >>> round(sent.price, 6), sent.spend, sent.earned  # the third would earn 2 beyond each unit it costs
    (2.0, 20.0, 110.0)
    """
    audience = demand(benefit, cost, eligible, stock=stock, bar=bar)
    prices = fitting_prices(audience, benefit.shape[1], budget=budget, stock=stock)
    gone = _gone(benefit.shape[1], stock)
    prices[1:][gone] = benefit[:, gone].max(initial=0.0)  # nobody would pay it
    chosen = audience.choices(prices)
    use = audience.use(chosen)
    return Allocation(
        price=float(prices[0]),
        stock_prices=prices[1:],
        spend=float(use[0]),
        earned=_benefit(audience, chosen) - float(use[0]),
        contacts=use[1:].astype(np.int64),
    )


def demand(
    benefit: Reals,
    cost: Reals,
    eligible: Flags,
    *,
    stock: NDArray[np.int64] | Floats | None = None,
    bar: Reals | float = 0.0,
) -> Audience:
    """Say what members would want of what is not gone; arguments as in `allocate`."""
    return _audience(benefit, cost, eligible & ~_gone(benefit.shape[1], stock), bar)


def fitting_prices(
    members: Demand, n_offers: int, *, budget: float | None = None, stock: NDArray[np.int64] | Floats | None = None
) -> Floats:
    """Find the smallest prices at which what members want fits, `(1 + n_offers,)`, 0 of what is gone; see `allocate`.

    Parameters
    ----------
    members : in one place or in many
    """
    limits = _limits(n_offers, budget, stock)
    gone = np.append(False, _gone(n_offers, stock))
    if np.isinf(limits[~gone]).all():
        return np.zeros(len(limits))
    return np.where(gone, 0.0, shadow_prices(members, np.where(gone, np.inf, limits)))


def told_apart(benefit: Floats, number: Floats) -> Floats:
    """Raise benefits by up to a thousandth, otherwise for every member and offer, so that a price can part any crowd.

    Parameters
    ----------
    benefit : (n_members, n_offers)
    number : (n_members,) the members' own, as `training.policy.member_numbers` gives them
    """
    # 4,096: numbers decide the arm as well, but their later digits have nothing to do with it
    own = number[:, None] * (4096.0 * (1 + np.arange(benefit.shape[1]))) % 1.0
    return np.asarray(benefit * (1.0 + TIE * own).astype(benefit.dtype))


def marginal_curve(
    benefit: Reals,
    cost: Reals,
    eligible: Flags,
    *,
    stock: NDArray[np.int64] | Floats | None = None,
    bar: Reals | float = 0.0,
    points: int = 101,
) -> Curve:
    """Say what budgets from 0 to all that would be spent earn, and what one more unit of each earns beyond itself.

    Every member's offers that are worth their price at some budget lie on the upper hull of what each earns over what
    it costs. The steps along all hulls, the steepest first, are the optimum of every budget at once (Sinha and Zoltners
    1979); a step is bought in part where the budget ends within it. Where stock is limited every point is an allocation
    of its own, and what one more unit earns is its price. Arguments as in `allocate`.
    """
    if stock is not None and np.isfinite(stock).any():
        return _curve_of_allocations(partial(allocate, benefit, cost, eligible, stock=stock, bar=bar), points)
    audience = _audience(benefit, cost, eligible, bar)
    free, steps = 0.0, [np.empty((2, 0))]
    for _, part in audience.blocks():
        worth = part.worth(np.zeros(1 + benefit.shape[1]))
        start = np.where(part.cost == 0, worth, 0.0).max(axis=1, initial=0.0)
        free += float(start.sum(dtype=np.float64))
        steps.extend(_hull_steps(worth, part.cost, start))
    dearer, better = np.concatenate(steps, axis=1)
    order = np.argsort(-better / dearer)
    spent = np.concatenate([[0.0], np.cumsum(dearer[order], dtype=np.float64)])
    earned = free + np.concatenate([[0.0], np.cumsum(better[order], dtype=np.float64)])
    slope = np.append((better / dearer)[order], 0.0)
    budgets = np.linspace(0.0, spent[-1], points)
    next_step = np.minimum(np.searchsorted(spent, budgets, side="right") - 1, len(order))
    return Curve(budgets, np.interp(budgets, spent, earned), slope[next_step])


def _curve_of_allocations(allocated: Callable[..., Allocation], points: int) -> Curve:
    every = allocated()
    budgets = np.linspace(0.0, every.spend, points)
    least = max(budgets[-1], 1.0) * NOTHING  # a budget is above 0
    found = [*(allocated(budget=max(budget, least)) for budget in budgets[:-1]), every]
    return Curve(budgets, np.array([one.earned for one in found]), np.array([one.price for one in found]))


def campaign_price(
    base: float, *, spent: float, budget: float, starts: datetime | None, ends: datetime | None, now: datetime
) -> float:
    """Give the price at which a campaign decides now: its base price, moved by how far spending is off an even plan.

    It depends on nothing but what was spent and what time it is, so that any instance, and a restart, gives the same:
    price = (1 + base) exp(10 (spent - planned) / budget) - 1, at least 0. Without two dates there is no plan.

    >>> day = [datetime(2025, 6, d) for d in (1, 6, 11)]
    >>> price = campaign_price(0.5, spent=600.0, budget=1000.0, starts=day[0], ends=day[2], now=day[1])
    >>> round(price, 6)  # 1.5 e - 1
    3.077423
    """
    _check_budget(budget)
    if starts is None or ends is None:
        return base
    passed = min(max((now - starts) / (ends - starts), 0.0), 1.0)
    return float(max((1.0 + base) * np.exp(PACE * (spent / budget - passed)) - 1.0, 0.0))


def _audience(benefit: Reals, cost: Reals, eligible: Flags, bar: Reals | float) -> Audience:
    if cost.shape != benefit.shape or eligible.shape != benefit.shape:
        raise ContractError(
            f"benefit {benefit.shape}, cost {cost.shape} and eligible {eligible.shape} came; "
            "(n_members, n_offers) was wanted of each"
        )
    audience = Audience(benefit, cost, eligible, np.broadcast_to(np.asarray(bar, dtype=benefit.dtype), benefit.shape))
    if any((part.cost < 0).any() for _, part in audience.blocks()):
        raise ContractError("a cost below 0 came, at least 0 was wanted; look at the offers table")
    return audience


def _benefit(audience: Audience, chosen: Chosen) -> float:
    return float(sum(part.of_chosen(part.benefit, chosen[rows]).sum() for rows, part in audience.blocks()))


def _hull_steps(worth: Reals, cost: Reals, start: Reals) -> Iterator[Floats]:
    """Walk along each member's upper hull from its start at no cost; steps of all `(2, n)`: how much dearer, better."""
    at_cost: Reals = np.zeros_like(start)
    at_worth = start
    while len(worth):
        further = (cost > at_cost[:, None]) & (worth > at_worth[:, None])
        slope = np.divide(worth - at_worth[:, None], cost - at_cost[:, None], out=np.zeros_like(worth), where=further)
        best, each = slope.argmax(axis=1), np.arange(len(worth))
        on = slope[each, best] > 0
        best, each = best[on], each[on]
        yield np.stack([cost[each, best] - at_cost[on], worth[each, best] - at_worth[on]])
        at_cost, at_worth = cost[each, best], worth[each, best]
        worth, cost = worth[on], cost[on]


def _limits(n_offers: int, budget: float | None, stock: NDArray[np.int64] | Floats | None) -> Floats:
    limits = np.full(1 + n_offers, np.inf)
    if budget is not None:
        _check_budget(budget)
        limits[0] = budget
    if stock is not None:
        if np.shape(stock) != (n_offers,) or not (np.asarray(stock) >= 0).all():
            raise ContractError(f"a stock of {stock} came, {n_offers} numbers of at least 0 were wanted; one per offer")
        limits[1:] = stock
    return limits


def _gone(n_offers: int, stock: NDArray[np.int64] | Floats | None) -> Flags:
    return np.asarray(_limits(n_offers, None, stock)[1:] < 1)


def _check_budget(budget: float) -> None:
    if not 0 < budget < np.inf:
        raise ContractError(f"a budget of {budget} came, an amount above 0 was wanted; set it below [campaigns.ID]")
