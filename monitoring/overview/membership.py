"""Members by life cycle stage and tier, and who moved between them in four weeks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import pandas as pd

from features.home import Home
from features.programme import Programme
from features.snapshots import built, on_grid
from monitoring.overview.missing import Missing, counted

STAGES: Final = ("new", "active", "returned", "dormant", "lapsed")
NO_TIER: Final = "none"  # below the first
WEEKS: Final = 26  # snapshots that are drawn
MOVED_DAYS: Final = 28
COLUMNS: Final = ("member_id", "lifecycle_stage", "tier", "tier_change")


@dataclass(frozen=True)
class Snapshot:
    """Hold how many members were in each stage at one moment, in the order of `STAGES`."""

    as_of: datetime
    members: tuple[int | None, ...]


@dataclass(frozen=True)
class Moves:
    """Hold how many members went from one stage, the row, to another, the column."""

    since: datetime
    members: tuple[tuple[int | None, ...], ...]
    upgraded: int | None
    downgraded: int | None


@dataclass(frozen=True)
class Membership:
    """Hold the membership as of the newest snapshot; None counts fewer members than may be told."""

    as_of: datetime
    members: int
    tiers: tuple[str, ...]
    by_tier: tuple[tuple[int | None, ...], ...]  # a row per stage
    weeks: tuple[Snapshot, ...]
    moves: Moves | Missing

    @property
    def stages(self) -> dict[str, int | None]:
        """How many are in each stage now."""
        return dict(zip(STAGES, self.weeks[-1].members, strict=True))


def gather_membership(home: Home, programme: Programme) -> Membership:
    """Count members.

    Raises
    ------
    NotFoundError
        If there is no snapshot.
    """
    dates = grid(home, programme)
    newest = read(home, dates[-1], COLUMNS)
    tiers = (*(tier.name for tier in programme.tiers), NO_TIER)
    return Membership(
        as_of=dates[-1],
        members=len(newest),
        tiers=tiers,
        by_tier=_crossed(newest["lifecycle_stage"], newest["tier"].fillna(NO_TIER), tiers),
        weeks=tuple(_stages(home, date) for date in dates[-WEEKS:]),
        moves=_moves(home, dates, newest),
    )


def grid(home: Home, programme: Programme) -> list[datetime]:
    """Give the snapshots that are one interval apart, oldest first; where none is on that grid, the newest.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    dates = built(home)
    apart = [date for date in dates if on_grid(date, programme)]
    return apart or dates[-1:]


def read(home: Home, as_of: datetime, columns: Sequence[str]) -> pd.DataFrame:
    """Read columns of one snapshot."""
    return pd.read_parquet(home.snapshot(as_of), columns=list(columns))


def _stages(home: Home, as_of: datetime) -> Snapshot:
    came = read(home, as_of, ("lifecycle_stage",))["lifecycle_stage"].value_counts()
    return Snapshot(as_of, tuple(counted(int(came.get(stage, 0))) for stage in STAGES))


def _moves(home: Home, dates: Sequence[datetime], newest: pd.DataFrame) -> Moves | Missing:
    """Compare with the snapshot that is nearest to four weeks before."""
    wanted = dates[-1] - timedelta(days=MOVED_DAYS)
    since = min(dates[:-1], key=lambda date: abs(date - wanted), default=None)
    if since is None:
        return Missing("one_snapshot", "holdfast features build")
    before = read(home, since, ("member_id", "lifecycle_stage"))
    both = before.merge(newest, on="member_id", suffixes=("_before", ""))
    change = newest["tier_change"].to_numpy(dtype=np.float64)
    return Moves(
        since=since,
        members=_crossed(both["lifecycle_stage_before"], both["lifecycle_stage"], STAGES),
        upgraded=counted(int((change > 0).sum())),
        downgraded=counted(int((change < 0).sum())),
    )


def _crossed(stages: pd.Series, columns: pd.Series, names: Sequence[str]) -> tuple[tuple[int | None, ...], ...]:
    came = pd.crosstab(stages, columns).reindex(index=list(STAGES), columns=list(names), fill_value=0)
    return tuple(tuple(counted(int(count)) for count in row) for row in came.to_numpy())
