"""Who is likely to leave, and the margin that would go with them.

At risk is the margin that members brought lately, as much of it as falls into one horizon, times their chance to leave.
The interval is that of chance alone: members leave one by one, each with the probability that the model gives it.
"""

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.errors import NotFoundError
from features.home import Home
from features.programme import Programme
from features.rules import known_facts, parse_rule
from features.snapshots import read_snapshots
from monitoring.overview.membership import STAGES, grid
from monitoring.overview.missing import counted
from monitoring.windows import floats
from serving.batch.audience import active_rule
from training.artifacts import open_release
from training.metrics import Estimate
from training.releases.ledger import champion_id

Floats = NDArray[np.float64]

EDGES: Final = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SURE: Final = 1.96  # standard errors, 95 %
LATELY: Final = 84  # days of recent spend


@dataclass(frozen=True)
class Group:
    """Hold members who are alike in something; None where they are too few to tell."""

    name: str
    members: int | None
    leaving: float | None  # how many are expected to leave
    at_risk: float | None  # minor units


@dataclass(frozen=True)
class Risk:
    """Hold what the champion says of active members."""

    as_of: datetime
    horizon_days: int
    churn: str  # lapse or contract
    members: int
    leaving: Estimate
    at_risk: Estimate  # minor units
    bands: tuple[Group, ...]  # by tenths of the probability
    by_stage: tuple[Group, ...]
    by_tier: tuple[Group, ...]
    auc: dict[str, Estimate]  # of the model and its rivals, out of time


def gather_risk(home: Home, programme: Programme) -> Risk:
    """Score the active members of the newest snapshot.

    Raises
    ------
    NotFoundError
        If nothing was promoted, or there is no snapshot.
    """
    from monitoring.watch import scored

    if (champion := champion_id(home)) is None:
        raise NotFoundError("nothing serves yet; `holdfast promote` first")
    release = open_release(home.releases, champion)
    as_of = grid(home, programme)[-1]
    rows = read_snapshots(home, [as_of])
    rule = parse_rule(active_rule(programme), known_facts())
    active = scored(release, rows[rule.holds({name: floats(rows[name]) for name in rule.names})])
    chance = floats(active["churn probability"])
    margin = recent_margin(floats(active["spend_84d"]), programme)
    band = np.clip(np.searchsorted(EDGES, chance, side="right"), 1, len(EDGES) - 1) - 1
    names = [f"{100 * low:.0f}–{high:.0%}" for low, high in pairwise(EDGES)]
    judged = release.manifest.evidence["churn"]["rows"]
    tiers = [tier.name for tier in programme.tiers]
    return Risk(
        as_of=as_of,
        horizon_days=programme.horizon_days,
        churn=programme.churn,
        members=len(active),
        leaving=expected(chance, np.ones(len(chance))),
        at_risk=expected(chance, margin),
        bands=_groups(np.array(names, dtype=object)[band], names, chance, margin),
        by_stage=_groups(active["lifecycle_stage"].to_numpy(), STAGES, chance, margin),
        by_tier=_groups(active["tier"].to_numpy(), tiers, chance, margin),
        auc={name: Estimate(**row["auc"]) for name, row in judged.items()},
    )


def recent_margin(spend: Floats, programme: Programme) -> Floats:
    """Give the margin of an average horizon of the last 12 weeks; returns may not make it less than nothing.

    >>> recent_margin(np.array([12_000.0]), Programme())  # a quarter of it, and 28 of 84 days
    array([1000.])
    """
    return np.maximum(spend, 0.0) * programme.margin_rate * programme.horizon_days / LATELY


def expected(chance: Floats, worth: Floats) -> Estimate:
    """Expect what goes where each goes with its own chance, one by one: a sum of independent coins.

    >>> found = expected(np.array([0.5, 0.5]), np.array([10.0, 10.0]))  # variance 2 x 25, so 7.07 x 1.96 around 10
    >>> found.value, round(found.lower, 1), round(found.upper, 1)
    (10.0, 0.0, 20.0)
    """
    value = float(chance @ worth)
    reach = SURE * float(np.sqrt(np.sum(chance * (1 - chance) * worth**2)))
    return Estimate(value, max(value - reach, 0.0), min(value + reach, float(worth.sum())), len(chance))


def _groups(words: NDArray[Any], names: Any, chance: Floats, margin: Floats) -> tuple[Group, ...]:  # noqa: ANN401 (any words)
    words = np.where(pd.isna(words), "", words)
    return tuple(_group(name, words == name, chance, margin) for name in names)


def _group(name: str, there: NDArray[np.bool_], chance: Floats, margin: Floats) -> Group:
    if (members := counted(int(there.sum()))) is None:
        return Group(name, None, None, None)
    return Group(name, members, float(chance[there].sum()), float(chance[there] @ margin[there]))
