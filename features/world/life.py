"""One wave of a world as it is lived: who leaves, who buys, who redeems, what else they do.

Every purpose has its own stream, and a draw is made whether or not it comes to count. So two runs from the same stream
differ only by what their treatments, or their drift, changed: policies can be compared on common random numbers.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features.world.law import MARGIN_RATE, WAVE_DAYS, World
from features.world.members import CATEGORIES, Flags, Floats, Ints, Members, responses

AMOUNT_SPREAD: Final = 0.5  # of the logarithm of what a visit costs
LARGEST_DISCOUNT: Final = 0.4
FAVOURITE_SHARE: Final = 0.5
ONLINE_SHARE: Final = 0.3
SUBSCRIPTION: Final = len(CATEGORIES)  # the category of payments
KINDS: Final = ("login", "view", "support", "survey", "points_earned", "points_burnt")
LOGIN, VIEW, SUPPORT, SURVEY, EARNED, BURNT = range(len(KINDS))


@dataclass(frozen=True)
class Purchases:
    """Hold purchases as arrays; `who` is a member's place, `day` the moment in days."""

    who: Ints
    day: Floats
    amount: Ints
    margin: Ints
    discount: Ints
    quantity: Ints
    category: Ints
    online: Flags


@dataclass(frozen=True)
class Happenings:
    """Hold redemptions (`what` is the treatment) or events (`what` is the kind) as arrays; `value` may be missing."""

    who: Ints
    day: Floats
    what: Ints
    value: Floats


@dataclass(frozen=True)
class Lived:
    """Hold what one wave brought, and the members as they are after it."""

    members: Members
    purchases: tuple[Purchases, ...]
    redemptions: Happenings
    events: Happenings


def live(world: World, members: Members, treatment: NDArray[np.intp], *, wave: int, rng: np.random.Generator) -> Lived:
    """Live one wave under given treatments `(n_members,)`, by their number."""
    leaving, visiting, added, redeeming, buying_more, happening = rng.spawn(6)
    after = _leave(world, members, treatment, wave, leaving)
    redemptions, extra = _redeem(world, after, treatment, wave, redeeming)
    visits = world.factor("visits", wave)
    return Lived(
        after,
        (
            _visit(world, after, wave, visiting, (1.0, min(visits, 1.0))),
            _visit(world, after, wave, added, (max(visits - 1.0, 0.0), 1.0)),
            _receipts(world, after, wave, (redemptions.who, redemptions.day, extra), buying_more),
            _pay(after, wave),
        ),
        _counted(redemptions, redemptions.day < after.left[redemptions.who]),
        _happen(after, wave, happening),
    )


def _leave(world: World, members: Members, treatment: NDArray[np.intp], wave: int, rng: np.random.Generator) -> Members:
    start, end = wave * WAVE_DAYS, (wave + 1) * WAVE_DAYS
    ratio = responses(world, members, wave).hazard_ratio[np.arange(len(members)), treatment]
    hazard = members.hazard * world.factor("hazard", wave) * ratio
    leave = np.maximum(members.joined, start) + rng.standard_exponential(len(members)) / hazard
    now = (members.left > start) & (members.joined < end) & (leave < end)
    return replace(members, left=np.where(now, leave, members.left))


def _moments(rate: Floats, weights: Floats, first_day: int, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Draw a Poisson process per member whose rate is `rate` times the day's weight; give (who, day)."""
    passed = np.concatenate([[0.0], np.cumsum(weights)])
    who = np.repeat(np.arange(len(rate)), rng.poisson(rate * passed[-1]))
    return who, first_day + np.interp(rng.random(len(who)) * passed[-1], passed, np.arange(len(passed)))


def _present(members: Members, who: Ints, day: Floats) -> Flags:
    return (day >= members.joined[who]) & (day < members.left[who])


def _visit(
    world: World, members: Members, wave: int, rng: np.random.Generator, rate_and_kept: tuple[float, float]
) -> Purchases:
    """Draw visits at a multiple of the usual rate, of which a share is kept: so drift leaves every other draw alone."""
    moving, thinning, buying = rng.spawn(3)
    start, (rate, kept) = wave * WAVE_DAYS, rate_and_kept
    who, day = _moments(members.visit_rate * rate, world.day_weights(start, WAVE_DAYS), start, moving)
    counted = _present(members, who, day) & (thinning.random(len(who)) < kept)
    return _receipts(world, members, wave, (who, day, counted), buying)


def _receipts(
    world: World, members: Members, wave: int, visits: tuple[Ints, Floats, Flags], rng: np.random.Generator
) -> Purchases:
    """Fill the baskets of visits (who, day, whether it counts)."""
    who, day, counted = visits
    n = len(who)
    noise = np.exp(AMOUNT_SPREAD * rng.standard_normal(n) - AMOUNT_SPREAD**2 / 2)[counted]  # its mean is 1
    saved, liked, online = (rng.random(n)[counted] for _ in range(3))
    other, quantity = rng.integers(0, len(CATEGORIES), n)[counted], rng.integers(1, 8, n)[counted]
    who, day = who[counted], day[counted]
    amount = np.rint(members.basket[who] * world.factor("amount", wave) * noise)
    return Purchases(
        who,
        day,
        amount.astype(np.int64),
        np.rint(amount * MARGIN_RATE).astype(np.int64),
        np.rint(amount * LARGEST_DISCOUNT * members.thrift[who] * saved).astype(np.int64),
        quantity,
        np.where(liked < FAVOURITE_SHARE, members.favourite[who], other),
        online < ONLINE_SHARE,
    )


def _pay(members: Members, wave: int) -> Purchases:
    due = members.due(wave)
    who = np.flatnonzero((due < np.inf) & (due < members.left))
    nothing, price = np.zeros(len(who), dtype=np.int64), members.price[who]
    margin = np.rint(price * MARGIN_RATE).astype(np.int64)
    return Purchases(who, due[who], price, margin, nothing, nothing + 1, nothing + SUBSCRIPTION, nothing == 0)


def _redeem(
    world: World, members: Members, treatment: NDArray[np.intp], wave: int, rng: np.random.Generator
) -> tuple[Happenings, Flags]:
    """Draw everybody's redemption, used or not, and whether it is a visit more."""
    n, rows = len(members), np.arange(len(members))
    response = responses(world, members, wave)
    day = wave * WAVE_DAYS + rng.random(n) * WAVE_DAYS
    redeemed = rng.random(n) < response.redeems[rows, treatment]
    more = rng.random(n) < response.extra[rows, treatment]
    cost = np.array([0.0, *[offer.redemption_cost for offer in world.offers]])[treatment]
    day = np.where(redeemed, day, np.inf)  # never
    return Happenings(rows, day, treatment, cost), more & (day < members.left)


def _happen(members: Members, wave: int, rng: np.random.Generator) -> Happenings:
    """Draw events; the restless call support more often and score lower, so that tables tell of the hazard."""
    start, moving, kinds, values = wave * WAVE_DAYS, *rng.spawn(3)
    who, day = _moments(0.06 * np.exp(0.4 * members.activity), np.ones(WAVE_DAYS), start, moving)
    unrest = members.unrest[who]
    support = 0.15 / (1 + np.exp(1 - unrest))
    steps = np.cumsum([support, np.full(len(who), 0.08), np.full(len(who), 0.2), np.full(len(who), 0.3)], axis=0)
    what = np.array([SUPPORT, SURVEY, EARNED, VIEW, LOGIN])[(kinds.random(len(who)) >= steps).sum(axis=0)]
    score = np.clip(np.rint(7.5 - 1.5 * unrest + values.standard_normal(len(who))), 0, 10)
    points = 10.0 * values.integers(1, 21, len(who))
    value = np.select([what == SURVEY, what == EARNED], [score, points], np.nan)
    spent, when = values.random((2, len(who)))
    burns = _present(members, who, day) & (what == EARNED) & (spent < 0.3)  # noqa: PLR2004 (3 in 10 are burnt, later, and never more than was earned)
    later = day + when * (start + WAVE_DAYS - day)
    found = Happenings(
        np.concatenate([who, who[burns]]),
        np.concatenate([day, later[burns]]),
        np.concatenate([what, np.full(burns.sum(), BURNT)]),
        np.concatenate([value, points[burns]]),
    )
    return _counted(found, _present(members, found.who, found.day))


def _counted(found: Happenings, counted: Flags) -> Happenings:
    return Happenings(found.who[counted], found.day[counted], found.what[counted], found.value[counted])
