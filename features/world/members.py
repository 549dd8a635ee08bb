"""The members of a world: what a company sees of them, and the traits behind it that by default no table shows."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from features.world.law import WAVE_DAYS, YEAR_DAYS, Appeal, World

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

REGIONS: Final = ("north", "south", "east", "west")
GENDERS: Final = ("f", "m", "x")
CATEGORIES: Final = ("grocery", "fresh", "household", "beauty", "leisure", "garden")
REGION_FACTOR: Final = np.array([0.85, 0.95, 1.05, 1.15])  # baskets differ by region: it is no noise
EARLIER_SHARE: Final = 0.7  # of members who joined before the world starts, up to two years
TRAITS: Final = ("activity", "unrest", "thrift")
SUBSCRIBER_SHARE: Final = {"retail": 0.0, "subscription": 1.0, "both": 0.5}
PLANS: Final = {WAVE_DAYS: ("monthly", 1200), YEAR_DAYS: ("annual", 12000)}  # days of a term -> plan, price


@dataclass(frozen=True)
class Members:
    """Hold members as arrays `(n_members,)`; rates and hazards are per day, money in minor units, times in days."""

    number: Ints
    joined: Ints  # negative: before the world started
    region: Ints
    gender: Ints
    birth_year: Ints
    personalisation: Flags
    favourite: Ints  # the category bought most
    activity: Floats  # standard normal: how much they do
    unrest: Floats  # standard normal: how ready they are to leave
    thrift: Floats  # 0 to 1: how much they look for discounts
    visit_rate: Floats
    hazard: Floats
    basket: Floats
    term: Ints  # days of a subscription's term; 0 without one
    price: Ints
    left: Floats  # infinity as long as they stay

    def __len__(self) -> int:
        return len(self.number)

    def there(self, wave: int) -> Flags:
        """Say who has joined and not left when a wave starts: whom a treatment can reach."""
        return (self.joined < wave * WAVE_DAYS) & (self.left > wave * WAVE_DAYS)

    def due(self, wave: int) -> Floats:
        """Give the moment in a wave at which a subscriber pays, or infinity; a term is never shorter than a wave."""
        start = wave * WAVE_DAYS
        term = np.maximum(self.term, 1)
        paid_terms = np.maximum(-((self.joined - start) // term), 0)
        due = self.joined + paid_terms * term
        return np.where((self.term > 0) & (due < start + WAVE_DAYS), due, np.inf)


class Response(NamedTuple):
    """State how members respond to each treatment, `(n_members, 1 + n_offers)`; control comes first."""

    redeems: Floats  # probability, if they stay
    extra: Floats  # probability that a redemption is a visit more
    hazard_ratio: Floats


def draw_members(world: World, first: int, n: int, rng: np.random.Generator) -> Members:
    """Draw members number `first` to `first + n - 1`; each trait has its own stream."""
    names = ("joined", "seen", "activity", "unrest", "thrift", "basket", "plan")
    stream = dict(zip(names, rng.spawn(len(names)), strict=True))
    seen = stream["seen"]
    region, gender = seen.integers(0, len(REGIONS), n), seen.choice(len(GENDERS), n, p=[0.49, 0.48, 0.03])
    activity, unrest = stream["activity"].standard_normal(n), stream["unrest"].standard_normal(n)
    subscribes = stream["plan"].random(n) < SUBSCRIBER_SHARE[world.shape]
    term = np.where(stream["plan"].random(n) < 0.75, WAVE_DAYS, YEAR_DAYS) * subscribes  # noqa: PLR2004 (3 in 4 monthly)
    return Members(
        number=np.arange(first, first + n),
        joined=_joined(world, n, stream["joined"]),
        region=region,
        gender=gender,
        birth_year=seen.integers(1940, 2005, n),
        personalisation=seen.random(n) < 0.97,  # noqa: PLR2004 (3 in 100 opt out)
        favourite=seen.integers(0, len(CATEGORIES), n),
        activity=activity,
        unrest=unrest,
        thrift=stream["thrift"].random(n),
        visit_rate=0.8 / 7 * np.exp(0.6 * activity) * (world.shape != "subscription"),
        hazard=0.012 / 7 * np.exp(0.7 * unrest - 0.3 * activity),
        basket=4500 * np.exp(0.35 * stream["basket"].standard_normal(n)) * REGION_FACTOR[region],
        term=term,
        price=np.select([term == days for days in PLANS], [price for _, price in PLANS.values()], 0),
        left=np.full(n, np.inf),
    )


def _joined(world: World, n: int, rng: np.random.Generator) -> Ints:
    earlier = rng.random(n) < EARLIER_SHARE
    return np.where(earlier, -rng.integers(1, 2 * YEAR_DAYS, n), rng.integers(0, world.days, n))


def responses(world: World, members: Members, wave: int) -> Response:
    """State how members respond to the treatments of a wave."""
    zero, one = np.zeros(len(members)), np.ones(len(members))
    laws = [(zero, zero, one), *[_appeal(offer.appeal, members) for offer in world.offers]]
    redeems, extra, ratio = (np.column_stack(law) for law in zip(*laws, strict=True))
    return Response(np.minimum(redeems * world.factor("response", wave), 1), extra, ratio)


def _appeal(appeal: Appeal, members: Members) -> tuple[Floats, Floats, Floats]:
    """Give redemption, extra visit and hazard ratio: the restless are won back, the calm reminded that they may go."""
    if appeal == "win_back":
        restless = _sigmoid(2 * members.unrest - 1)
        return 0.05 + 0.25 * restless, 0.9 * restless, np.exp(0.15 - 0.9 * restless)
    if appeal == "anyone":  # responses don't differ: who is contacted can't matter but for what baskets cost
        return np.full(len(members), 0.3), np.full(len(members), 0.5), np.ones(len(members))
    loyal = _sigmoid(1.5 * members.activity)
    if appeal == "discount":  # the loyal take it for what they buy anyway
        return 0.08 + 0.5 * members.thrift, 0.9 * (1 - loyal), np.ones(len(members))
    return 0.1 + 0.3 * loyal, np.full(len(members), 0.2), np.exp(-0.25 * loyal)


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(1 / (1 + np.exp(-x)))


def together(parts: Sequence[Members]) -> Members:
    """Join groups of members to one, in order."""
    return Members(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Members)})
