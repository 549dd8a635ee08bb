"""The laws of a world: its shape, its season, its offers and how members respond to them, its drift."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from features.errors import ContractError
from features.schema import CONTROL

Floats = NDArray[np.float64]
Shape = Literal["retail", "subscription", "both"]
Moved = Literal["amount", "visits", "hazard", "response"]
Appeal = Literal["win_back", "discount", "points", "anyone"]

WAVE_DAYS: Final = 28
YEAR_DAYS: Final = 364  # 52 weeks, so that a year holds every weekday equally often
FEWEST, MOST = 1_000, 10_000_000  # members: fewer show nothing, more were never tried
WEEKDAYS: Final = np.array([0.85, 0.8, 0.85, 0.95, 1.2, 1.4, 0.95])  # Monday first; their mean is 1
PEAK_DAY: Final = 350  # of the year: the middle of December, if it starts in January
MARGIN_RATE: Final = 0.25


@dataclass(frozen=True)
class Offer:
    """State an offer, its costs in minor units, and to what in a member it appeals."""

    offer_id: str
    name: str
    channel: str
    contact_cost: int
    redemption_cost: int
    appeal: Appeal


OFFERS: Final = (
    Offer("win_back", "Come back: a tenth off the next purchase", "email", 5, 200, "win_back"),
    Offer("discount", "Coupons of the category bought most", "post", 40, 250, "discount"),
    Offer("points", "Double points for a week", "app", 2, 150, "points"),
)


@dataclass(frozen=True)
class Drift:
    """Multiply one law by a factor from the first day of a wave on; nothing else moves, to the last draw.

    `amount` is what a visit costs, `visits` how often members come, `hazard` how fast they leave, and `response` the
    probability that an offer is redeemed.
    """

    what: Moved
    factor: float
    from_wave: int

    def __post_init__(self) -> None:
        if not 0 < self.factor <= 10 or self.from_wave < 0:  # noqa: PLR2004 (beyond it is another world, not a drift)
            raise ContractError(f"{self} came; wanted a factor above 0, to 10, and a wave from 0 on")


@dataclass(frozen=True)
class World:
    """State the laws of one world; the rest follows from them and a generator of random numbers.

    Parameters
    ----------
    waves : of four weeks each; the history ends with the last
    first_campaign : the wave in which contacts begin, so that there is a past to learn features from
    audience : the share of members who are in a wave's campaign; there, control and all offers are equally likely
    season : how far the rate of visits swings over the year, as a share of its mean
    observable : whether the table of members shows the traits that responses follow from, as a survey would
    """

    members: int
    shape: Shape = "retail"
    waves: int = 13
    first_campaign: int = 3
    audience: float = 0.4
    season: float = 0.3
    offers: tuple[Offer, ...] = OFFERS
    drift: tuple[Drift, ...] = ()
    start: datetime = datetime(2023, 1, 2, tzinfo=UTC)
    observable: bool = False

    def __post_init__(self) -> None:
        ids = [offer.offer_id for offer in self.offers]
        wrong = {
            f"{self.members:,} members came; members from {FEWEST:,} to {MOST:,}": not FEWEST <= self.members <= MOST,
            f"shape {self.shape!r} came; shape retail, subscription or both": self.shape not in get_args(Shape),
            f"{self.waves} waves came, campaigns from wave {self.first_campaign} on; at least one wave, and campaigns "
            "from one of them on": not 0 <= self.first_campaign < self.waves,
            f"an audience of {self.audience} came; an audience between 0 and 1": not 0 < self.audience <= 1,
            f"a season of {self.season} came; a season from 0 to less than 1": not 0 <= self.season < 1,
            f"{ids} came; offers with distinct ids other than {CONTROL!r}": not ids or len({*ids, CONTROL}) <= len(ids),
            f"{self.start} came; a start at midnight UTC on a Monday": self.start != _monday(self.start),
        }
        if any(wrong.values()):
            raise ContractError(f"{'; '.join(rule for rule, broken in wrong.items() if broken)} was wanted")

    @property
    def days(self) -> int:
        """How long the history is."""
        return self.waves * WAVE_DAYS

    @property
    def treatments(self) -> tuple[str, ...]:
        """Control, then the offers: a treatment's place here is its number everywhere in this package."""
        return (CONTROL, *[offer.offer_id for offer in self.offers])

    def as_of(self, wave: int) -> datetime:
        """Give the moment at which a wave starts.

        >>> f"{World(1_000).as_of(1):%Y-%m-%d}"
        '2023-01-30'
        """
        return self.start + timedelta(days=wave * WAVE_DAYS)

    def factor(self, what: Moved, wave: int) -> float:
        """Give what drift has made of a law by a wave; 1 is no drift.

        >>> world = World(1_000, drift=(Drift("visits", 0.5, 4), Drift("visits", 1.2, 6)))
        >>> [world.factor("visits", wave) for wave in (3, 4, 6)]
        [1.0, 0.5, 0.6]
        """
        return float(np.prod([d.factor for d in self.drift if d.what == what and wave >= d.from_wave]))

    def day_weights(self, first_day: int, days: int) -> Floats:
        """Give the rate of visits of each day in units of its yearly mean, `(days,)`.

        >>> float(World(1_000, season=0.4).day_weights(0, YEAR_DAYS).sum().round(6))
        364.0
        >>> World(1_000, season=0.0).day_weights(0, 3).tolist()
        [0.85, 0.8, 0.85]
        """
        day = np.arange(first_day, first_day + days)
        yearly = 1 + self.season * np.cos(2 * np.pi * (day - PEAK_DAY) / YEAR_DAYS)
        return np.asarray(WEEKDAYS[day % 7] * yearly)


def _monday(start: datetime) -> datetime | None:
    if start.utcoffset() is None or start.astimezone(UTC).weekday():
        return None
    return start.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
