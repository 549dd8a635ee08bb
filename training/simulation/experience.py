"""What a company has lived through: its decisions with their propensities, what was known then, and what followed."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from features.world.company import Company, joined
from features.world.law import WAVE_DAYS, World
from features.world.members import Members
from features.world.tables import member_ids
from training.judging.estimators import Log

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Ints = NDArray[np.intp]
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Experience:
    """Hold logged decisions as arrays of one length; money in minor units."""

    member: Ints  # (n,) the member's place in the world
    wave: Ints
    X: Matrix  # (n, n_features) as the wave started
    treatment: Ints  # 0 is control
    propensity: Floats
    outcome: Floats  # margin less redemption costs within the wave, before contact costs
    redeemed: Flags
    bought: Flags

    def __len__(self) -> int:
        return len(self.member)

    def take(self, rows: Flags) -> Self:
        """Give some of the decisions."""
        return type(self)(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def plus(self, later: Self) -> Self:
        """Give these decisions and later ones."""
        return type(self)(
            **{f.name: np.concatenate([getattr(self, f.name), getattr(later, f.name)]) for f in fields(self)}
        )

    def drawn(self) -> Self:
        """Give the decisions that could have been others: of the rest nothing can be learned."""
        return self.take((self.propensity > 0) & (self.propensity < 1))

    def log(self, contact_cost: Floats) -> Log:
        """Give the log that estimators read; `contact_cost` is that of control first, `(1 + n_offers,)`."""
        return Log(self.treatment, self.propensity, self.outcome, contact_cost, self.member)


def experience_of(
    world: World, members: Members, tables: dict[str, pa.Table], X: pd.DataFrame, wave: int
) -> Experience:
    """Read a wave's decisions and what followed from a company's tables.

    Parameters
    ----------
    tables : contacts, transactions and redemptions; those of other waves among them are left alone
    X : by member_id, as the wave started
    """
    index = pd.Index(member_ids(members).to_pandas())
    contacts = _of_wave(world, tables["contacts"], "contacted_at", wave)
    bought = _of_wave(world, tables["transactions"], "occurred_at", wave)
    redeemed = _of_wave(world, tables["redemptions"], "occurred_at", wave)
    place, buyers, takers = (index.get_indexer(pd.Index(rows["member_id"])) for rows in (contacts, bought, redeemed))

    def summed(who: Ints, values: NDArray[np.int64] | None = None) -> Floats:
        return np.bincount(who, weights=values, minlength=len(members)).astype(np.float64)

    outcome = summed(buyers, bought["margin"].to_numpy()) - summed(takers, redeemed["amount"].to_numpy())
    return Experience(
        member=place,
        wave=np.full(len(place), wave),
        X=X.loc[contacts["member_id"]].to_numpy(dtype=np.float32),
        treatment=pd.Index(world.treatments).get_indexer(pd.Index(contacts["treatment"])),
        propensity=contacts["propensity"].to_numpy(dtype=np.float64),
        outcome=outcome[place],
        redeemed=summed(takers)[place] > 0,
        bought=summed(buyers)[place] > 0,
    )


def history_of(world: World, members: Members, company: Company) -> Experience:
    """Read every campaign of a world's history, with the features of its time."""
    waves = range(world.first_campaign, world.waves)
    first, *others = (experience_of(world, members, company.tables, company.features(w), w) for w in waves)
    for other in others:
        first = first.plus(other)
    return first


def askable(members: Members, wave: int) -> Ints:
    """Give the places of those who are decided on: who had joined and has not opted out, left or not: nobody knows."""
    places = joined(members, wave)
    return places[members.personalisation[places]]


def _of_wave(world: World, table: pa.Table, time: str, wave: int) -> pd.DataFrame:
    start = pd.Timestamp(world.start) + pd.Timedelta(days=wave * WAVE_DAYS)
    times = table[time].to_numpy()
    low, high = (t.tz_convert(None).to_datetime64() for t in (start, start + pd.Timedelta(days=WAVE_DAYS)))
    rows: pd.DataFrame = table.filter(pa.array((times >= low) & (times < high))).to_pandas()
    return rows
