"""Shadow prices: what one more unit of the budget, and one more of each offer's stock, would earn.

They solve the dual of the linear program that shares out both at once, the multiple-choice knapsack (Sinha and
Zoltners, "The multiple-choice knapsack problem", Operations Research 1979) with a stock for each offer. Prices and
limits are vectors `(1 + n_offers,)`: of the budget, then of each offer's stock; a limit that is infinite is none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from training.policy import Reals, net_values

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Chosen = NDArray[np.int16]  # (n_members,) an offer's index, or NOTHING

NOTHING: Final = -1
SAMPLE: Final = 65_536  # members whose prices are the first guess at everybody's
BLOCK: Final = 32_768  # members whose matrices stay in the processor's cache
CLOSE: Final = 1e-3  # of a limit: so near is near enough before the last step
BOX: Final = 0.05  # how far around the sample's prices everybody's are looked for first
MANY: Final = 8 * SAMPLE  # members whom one place has room for
NEARER: Final = 8.0  # times nearer, where more than that are near the prices
FINEST: Final = 1e-7  # of a price: a crowd that is alike to that is no smaller any nearer
ROUNDS: Final = 16  # that each price is set by itself, before all are raised together
SMOOTHING: Final = 0.25 ** np.arange(12.0)  # of the scale of net values: ever less smooth


@dataclass(frozen=True)
class Audience:
    """Know what members want at given prices; every matrix is `(n_members, n_offers)`."""

    benefit: Reals
    cost: Reals
    eligible: Flags
    bar: Reals

    def __len__(self) -> int:
        return len(self.benefit)

    def take(self, rows: slice | NDArray[np.intp] | Flags) -> Self:
        """Give some of the members."""
        return type(self)(self.benefit[rows], self.cost[rows], self.eligible[rows], self.bar[rows])

    def sample(self) -> "Audience":
        """Give evenly spaced members, all of them where they are few."""
        return self.take(sampled_places(len(self)))

    def blocks(self) -> Iterator[tuple[slice, Self]]:
        """Give all members, some at a time, and where they stand."""
        for start in range(0, len(self), BLOCK):
            rows = slice(start, start + BLOCK)
            yield rows, self.take(rows)

    def values(self, prices: Floats) -> Floats:
        """Give net values of the offers that are eligible, -inf of others, `(n, n_offers)`."""
        value = net_values(self.benefit, self.cost, price=float(prices[0]), stock_price=prices[1:])
        return np.where(self.eligible & np.isfinite(value), value, -np.inf)

    def worth(self, prices: Floats) -> Floats:
        """Give net values of the offers that may be sent: eligible and above the bar."""
        value = self.values(prices)
        return np.where(value > self.bar, value, -np.inf)

    def choices(self, prices: Floats) -> Chosen:
        """Say what each member wants: the offer of the highest net value, or nothing."""
        chosen = np.empty(len(self), dtype=np.int16)
        for rows, part in self.blocks():
            worth = part.worth(prices)
            best = worth.argmax(axis=1)
            chosen[rows] = np.where(worth[np.arange(len(best)), best] > 0, best, NOTHING)
        return chosen

    def of_chosen(self, matrix: Reals, chosen: Chosen) -> Floats:
        """Pick the chosen offer's entry in each row, 0 for nothing, `(n,)`."""
        picked = matrix[np.arange(len(chosen)), chosen]
        return np.where(chosen == NOTHING, 0.0, picked).astype(np.float64)

    def use(self, chosen: Chosen) -> Floats:
        """Add up what is spent, and the contacts with each offer, `(1 + n_offers,)`."""
        spend = sum(part.of_chosen(part.cost, chosen[rows]).sum() for rows, part in self.blocks())
        contacts = np.bincount(chosen + 1, minlength=1 + self.cost.shape[1])[1:]
        return np.concatenate([[spend], contacts.astype(np.float64)])

    def over(self, prices: Floats, limits: Floats) -> Flags:
        """Say of what more is wanted than there is, `(1 + n_offers,)`."""
        return np.asarray(self.use(self.choices(prices)) > limits)

    def settled(self, low: Floats, high: Floats) -> tuple[Chosen, Flags]:
        """Say what members want at prices from low to high, and whose wish that is at all of them."""
        chosen, sure = np.empty(len(self), dtype=np.int16), np.empty(len(self), dtype=np.bool_)
        for rows, part in self.blocks():
            cheap, dear, each = part.worth(low), part.worth(high), np.arange(len(part))
            best = dear.argmax(axis=1)
            surely = dear[each, best]
            cheap[each, best] = np.where(surely > 0, -np.inf, cheap[each, best])
            rival = cheap.max(axis=1)
            chosen[rows] = np.where(surely > 0, best, NOTHING)
            sure[rows] = (surely > rival) | np.isneginf(rival)
        return chosen, sure

    def near(self, low: Floats, high: Floats) -> tuple[Floats, Self]:
        """Give what is used by those whose wish is the same at all prices from low to high, and all others."""
        chosen, sure = self.settled(low, high)
        return self.take(sure).use(chosen[sure]), self.take(~sure)

    def here(self) -> "Audience":
        """Give everybody."""
        return self


class Demand(Protocol):
    """Answer what prices follow from, of members in one place or in many."""

    def __len__(self) -> int:
        """Count the members."""
        ...

    def sample(self) -> Audience:
        """Give evenly spaced members, all of them where they are few."""
        ...

    def near(self, low: Floats, high: Floats) -> "tuple[Floats, Demand]":
        """Give what is used by those whose wish is the same at all prices from low to high, and all others."""
        ...

    def here(self) -> Audience:
        """Bring everybody into one place."""
        ...


def sampled_places(members: int) -> NDArray[np.intp]:
    """Say which of so many members a sample is."""
    most = min(SAMPLE, members)
    return np.arange(most) * members // max(most, 1)


def shadow_prices(demand: Demand, limits: Floats) -> Floats:
    """Find the prices `(1 + n_offers,)`: on a sample, then for all whose wish may differ near those of the sample."""
    sample = demand.sample()
    if len(sample) == len(demand):
        none = np.isinf(limits[1:]).all()
        return _clear(sample, limits, np.zeros(len(limits)) if none else _smooth_prices(sample, limits))
    guess = shadow_prices(sample, limits * len(sample) / len(demand))
    return _around(demand, limits, guess, BOX * np.concatenate([[1.0 + guess[0]], guess[1:] + _scale(sample)]))


def _around(demand: Demand, limits: Floats, guess: Floats, width: Floats) -> Floats:
    """Find the prices by those whose wish may differ within a width of a guess; wider where that was too near."""
    while True:
        low, high = np.where(np.isinf(limits), 0.0, [np.maximum(guess - width, 0.0), guess + width])
        used, others = demand.near(low, high)
        left = limits - used
        if (left >= 0).all():
            prices = _among(others, left, guess, width)
            outside = (prices < low) | (prices > high)
            if not outside.any():
                return prices
            width = np.where(outside, 4.0 * width, width)
        else:
            width = 4.0 * width


def _among(others: Demand, left: Floats, guess: Floats, width: Floats) -> Floats:
    """Find the prices for members who are near them: where they are many, by a sample and nearer still."""
    if len(others) <= MANY or width[0] < FINEST * (1.0 + guess[0]):
        return _clear(others.here(), left, guess)
    sample = others.sample()
    nearer = _clear(sample, left * len(sample) / len(others), guess)
    return _around(others, left, nearer, width / NEARER)


def _clear(audience: Audience, limits: Floats, start: Floats) -> Floats:
    """Move prices until the demand fits: those of all stocks together, each by itself, then what is left over.

    A price that moves alone sends members to other offers; where all move together they come from, or go to, no offer
    at all. Without the one, offers that are nearly alike would only move by their small difference at a time.
    """
    prices, stocks = start.copy(), np.flatnonzero(np.isfinite(limits[1:]))
    for _ in range(ROUNDS):
        for group in (np.flatnonzero(prices[1:] > 0), *stocks[:, None]):
            if len(group):
                shift = _shift(_most_paid(audience, group, prices), int(limits[1 + group].sum()))
                prices[1 + group] = np.maximum(prices[1 + group] + shift, 0.0)
        prices[0] = _budget_price(audience, prices, float(limits[0]))
        if not audience.over(prices, limits * (1.0 + CLOSE)).any():
            break
    return _raised(audience, limits, prices) if audience.over(prices, limits).any() else prices


def _raised(audience: Audience, limits: Floats, prices: Floats) -> Floats:
    """Raise the prices of all stocks that are short by as much as makes the demand fit, or by a tenth of it more."""
    short = np.append(False, prices[1:] > 0)

    def over(rise: float) -> Flags:
        tried[:] = prices + rise * short
        tried[0] = _budget_price(audience, tried, float(limits[0]))
        return audience.over(tried, limits)

    low, high, tried = 0.0, float(np.finfo(audience.benefit.dtype).eps) * _scale(audience), prices.copy()
    while (too_many := over(high)).any():
        low, high, short = high, 8.0 * high, short | too_many
    found = tried.copy()
    while high - low > high / 10.0:
        middle = (low + high) / 2
        if over(middle).any():
            low = middle
        else:
            high, found = middle, tried.copy()
    return found


def _most_paid(audience: Audience, group: NDArray[np.intp], prices: Floats) -> Floats:
    """Say what each member would pay beyond the prices for an offer of a group, rather than none, `(n_members,)`."""
    most = np.empty(len(audience), dtype=audience.benefit.dtype)
    for rows, part in audience.blocks():
        value = part.values(prices)
        others = np.where(value > part.bar, value, -np.inf)
        others[:, group] = -np.inf
        most[rows] = (value - np.maximum(part.bar, others.max(axis=1, keepdims=True)))[:, group].max(axis=1)
    return most


def _shift(most: Floats, stock: int) -> float:
    """Give the smallest rise of a price, or the greatest fall, at which as many want an offer as there are."""
    if stock >= len(most):
        return -np.inf
    next_one = float(np.partition(most, len(most) - stock - 1)[len(most) - stock - 1])
    if np.isneginf(next_one):
        return next_one
    return next_one + 4.0 * float(np.finfo(most.dtype).eps) * abs(next_one)


def _budget_price(audience: Audience, prices: Floats, budget: float) -> float:
    """Give the smallest price of money at which the spending fits, all other prices as they are.

    From around the price as it is, then by bisection; who wants the same at both ends wants it in between and is looked
    at no more, so that all its rounds together take little longer than the first.
    """

    def choices(price: float) -> Chosen:
        return audience.choices(np.concatenate([[price], prices[1:]]))

    low = high = float(prices[0])
    dear = cheap = choices(low)
    step = 0.001 * (1.0 + low)
    while low > 0 and audience.use(dear)[0] <= budget:
        low, high, cheap, step = max(low - step, 0.0), low, dear, 4.0 * step
        dear = choices(low)
    if audience.use(dear)[0] <= budget:
        return low
    while audience.use(cheap)[0] > budget:
        low, high, dear, step = high, high + step, cheap, 4.0 * step
        cheap = choices(high)
    high = _bisected(audience, prices, budget, _Ends(low, high, dear, cheap))
    step = float(np.spacing(1.0 + high))
    while audience.use(choices(high))[0] > budget:  # sums of parts may round otherwise than the sum of all
        high, step = high + step, 2.0 * step
    return high


@dataclass(frozen=True)
class _Ends:
    """Hold two prices of money, the first too low, and what is wanted at either."""

    low: float
    high: float
    dear: Chosen
    cheap: Chosen


def _bisected(audience: Audience, prices: Floats, budget: float, ends: _Ends) -> float:
    low, high, dear, cheap = ends.low, ends.high, ends.dear, ends.cheap
    while 1.0 + low < 1.0 + (middle := (low + high) / 2) < 1.0 + high:
        if 2 * np.count_nonzero(differ := dear != cheap) < len(differ):
            budget -= audience.take(~differ).use(dear[~differ])[0]
            audience, dear, cheap = audience.take(differ), dear[differ], cheap[differ]
        chosen = audience.choices(np.concatenate([[middle], prices[1:]]))
        if audience.use(chosen)[0] <= budget:
            high, cheap = middle, chosen
        else:
            low, dear = middle, chosen
    return high


def _smooth_prices(audience: Audience, limits: Floats) -> Floats:
    """Minimise the dual with choices made smooth (a logit), by Newton's method, ever less smooth.

    It moves all prices at once: one at a time, those of offers that are nearly alike would only rise by their small
    difference.
    """
    worth = audience.worth(np.zeros(len(limits))).astype(np.float64)
    few = np.append(False, limits[1:] < 1)  # in a sample: no price is high enough for smooth choices to leave it alone
    worth[:, few[1:]], limits = -np.inf, np.where(few, np.inf, limits)
    cost = np.where(np.isneginf(worth), 0.0, audience.cost)
    prices = np.zeros(len(limits))
    for width in _scale(audience) * SMOOTHING:
        prices = _newton(_Dual(worth, cost, limits, float(width)), prices)
    return prices


@dataclass(frozen=True)
class _Dual:
    """Hold g(y) = limits · y + s Σ_i log(1 + Σ_j exp((worth_ij - y_0 cost_ij - y_j) / s)), of prices y, smoothing s."""

    worth: Floats
    cost: Floats
    limits: Floats
    smoothing: float

    def value(self, prices: Floats) -> tuple[float, Floats]:
        """Give g, and the probabilities of each member's offers, `(n, n_offers)`."""
        scaled = (self.worth - prices[0] * self.cost - prices[1:]) / self.smoothing
        top = scaled.max(axis=1, initial=0.0, keepdims=True)
        odds = np.exp(scaled - top)
        total = odds.sum(axis=1, keepdims=True) + np.exp(-top)
        bounded = np.where(np.isfinite(self.limits), self.limits, 0.0)
        return float(bounded @ prices + self.smoothing * (top + np.log(total)).sum()), odds / total

    def slopes(self, probabilities: Floats) -> tuple[Floats, Floats]:
        """Give the gradient, infinite where nothing is limited, and the matrix of second derivatives."""
        spend = probabilities * self.cost
        use = np.column_stack([spend.sum(axis=1), probabilities])
        second = np.diag(np.concatenate([[(spend * self.cost).sum()], probabilities.sum(axis=0)]))
        second[0, 1:] = second[1:, 0] = spend.sum(axis=0)
        return self.limits - use.sum(axis=0), (second - use.T @ use) / self.smoothing


def _newton(dual: _Dual, prices: Floats, *, rounds: int = 30) -> Floats:
    """Minimise a dual over prices of at least 0, by projected Newton steps, halved until they descend enough."""
    value, probabilities = dual.value(prices)
    for _ in range(rounds):
        gradient, second = dual.slopes(probabilities)
        free = np.isfinite(gradient) & ((prices > 0) | (gradient < 0))
        if (np.abs(gradient[free]) <= CLOSE * (1.0 + dual.limits[free])).all():
            break
        step = np.zeros(len(prices))
        step[free] = np.linalg.lstsq(second[np.ix_(free, free)], -gradient[free], rcond=None)[0]
        for length in 0.5 ** np.arange(20):
            tried = np.maximum(prices + length * step, 0.0)
            lower, moved = dual.value(tried)
            if lower <= value + 1e-4 * gradient[free] @ (tried - prices)[free]:
                break
        else:
            break
        prices, value, probabilities = tried, lower, moved
    return prices


def _scale(audience: Audience) -> float:
    """Give the median net value of what may be sent, minor units."""
    worth = audience.worth(np.zeros(1 + audience.cost.shape[1]))
    sent = worth[np.isfinite(worth)]
    return float(np.median(sent)) if len(sent) else 1.0
