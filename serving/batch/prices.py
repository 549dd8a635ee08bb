"""What money and stock are worth when a whole audience competes for them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from serving.decide import Decider, Members, Purse, Worth
from training.budget import Curve, demand, fitting_prices, marginal_curve, told_apart
from training.policy import MODEL, net_values
from training.shadow_prices import Audience, Demand

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

SAMPLE: Final = 100_000  # members by whom it is told what is spent, chance included
STEPS: Final = 16  # halvings of the interval that the price lies in
DEAREST: Final = 2.0**30


@dataclass(frozen=True)
class Claims:
    """Hold what members of one part, or of all, would be worth and cost, and what is possible, `(n, n_offers)`."""

    benefit: NDArray[Any]
    cost: NDArray[Any]
    bar: NDArray[Any]
    error: NDArray[Any]
    possible: Flags
    arm: NDArray[np.int8]  # (n,)

    @property
    def best(self) -> Flags:
        """What is sent for its worth, and not by chance."""
        return np.asarray(self.possible & (self.arm == MODEL)[:, None])

    def __len__(self) -> int:
        return len(self.arm)

    def every(self, step: int) -> "Claims":
        """Give one member of every so many."""
        return self.rows(slice(None, None, step))

    def rows(self, part: slice) -> "Claims":
        """Give those of some members."""
        return Claims(*(column[part] for column in vars(self).values()))

    def demand(self, stock: Floats | None) -> Audience:
        """Say what members would want for its worth, of what is not gone."""
        return demand(self.benefit, self.cost, self.best, stock=stock, bar=self.bar)


@dataclass(frozen=True)
class Priced:
    """Hold a purse with its prices, and what chance alone would spend, in minor units, where there is less."""

    purse: Purse
    by_chance: float | None = None


class EveryClaim(Protocol):
    """Answer what prices follow from, of an audience in one place or in many."""

    def __len__(self) -> int:
        """Count the members."""
        ...

    def every(self, step: int) -> Claims:
        """Give one member of every so many."""
        ...

    def demand(self, stock: Floats | None) -> Demand:
        """Say what members would want for its worth, of what is not gone."""
        ...


def claims_of(members: Members, worth: Worth, possible: Flags) -> Claims:
    """Keep of a part what prices follow from; in single precision, as there may be millions."""
    apart = told_apart(worth.benefit, members.number)
    benefit, cost, bar, error = (money.astype(np.float32) for money in (apart, worth.cost, worth.bar, worth.error))
    return Claims(benefit, cost, bar, error, possible, members.arm)


def together(parts: Sequence[Claims]) -> Claims:
    """Put the parts of an audience together."""
    return Claims(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})


def price(decider: Decider, claims: EveryClaim, left: Purse) -> Priced:
    """Put prices on what is left of money and stock.

    The prices are those at which what is best for members fits. Chance sends more than that (exploration, the random
    arm): so the budget's price is raised until what is expected to be spent fits, told by a sample. Where chance alone
    spends more, no price mends that, and none is raised: the budget ends before the audience does.
    """
    stock = left.stock if np.isfinite(left.stock).any() else None
    budget = left.budget if np.isfinite(left.budget) else None
    found = fitting_prices(claims.demand(stock), len(left.stock), budget=budget, stock=stock)
    purse = Purse(left.budget, left.stock, float(found[0]), found[1:])
    if budget is None:
        return Priced(purse)
    sample = claims.every(-(-len(claims) // SAMPLE))
    share = len(sample) / len(claims)
    by_chance = expected_spend(decider, sample, _at(purse, DEAREST))
    if by_chance > budget * share:
        return Priced(purse, by_chance / share)
    return Priced(_raised(decider, sample, purse, budget * share))


def expected_spend(decider: Decider, claims: Claims, purse: Purse) -> float:
    """Expect what members cost, chance included, as long as nothing runs out."""
    priced = net_values(claims.benefit, claims.cost, price=purse.price, stock_price=purse.stock_prices)
    probabilities = decider.probabilities(priced, claims.possible, claims.arm, bar=claims.bar, error=claims.error)
    return float((probabilities[:, 1:] * claims.cost).sum())


def curve(claims: Claims, left: Purse, points: int) -> Curve:
    """Say what budgets would earn with the stock that is left, and one more unit of each."""
    return marginal_curve(claims.benefit, claims.cost, claims.best, stock=left.stock, bar=claims.bar, points=points)


def _raised(decider: Decider, sample: Claims, purse: Purse, budget: float) -> Purse:
    """Raise the price of money until the sample's expected spending fits its budget, as it does at the dearest."""

    def fits(price: float) -> bool:
        return expected_spend(decider, sample, _at(purse, price)) <= budget

    low = high = purse.price
    while not fits(high):
        low, high = high, min(2 * high + 1, DEAREST)
    for _ in range(STEPS if high > low else 0):
        middle = (low + high) / 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return _at(purse, high)


def _at(purse: Purse, price: float) -> Purse:
    return replace(purse, price=price)
