"""The RFM map: how recently and how often members bought, and what they spent."""

from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from features.home import Home
from features.programme import Programme
from monitoring.overview.membership import grid, read
from monitoring.overview.missing import counted

FIFTHS = (5, 4, 3, 2, 1)  # the best first


@dataclass(frozen=True)
class Cell:
    """Hold members alike in two scores, and their mean spend in 12 weeks; None where they are too few to tell."""

    recency: int
    frequency: int
    members: int | None
    spend: float | None  # minor units


@dataclass(frozen=True)
class Segment:
    """Hold one RFM segment."""

    name: str
    members: int | None
    share: float | None
    spend: float | None  # all of it, minor units


@dataclass(frozen=True)
class RfmMap:
    """Hold the map as rows of recency, the most recent first, and columns of frequency, rising."""

    as_of: datetime
    cells: tuple[tuple[Cell, ...], ...]
    segments: tuple[Segment, ...]


def gather_segments(home: Home, programme: Programme) -> RfmMap:
    """Lay members out by their scores."""
    as_of = grid(home, programme)[-1]
    rows = read(home, as_of, ("recency_score", "frequency_score", "segment", "spend_84d"))
    scored = dict(list(rows.groupby(["recency_score", "frequency_score"])["spend_84d"]))
    nobody = rows["spend_84d"].iloc[:0]
    cells = tuple(
        tuple(_cell(recency, often, scored.get((recency, often), nobody)) for often in FIFTHS[::-1])
        for recency in FIFTHS
    )
    spends = rows.groupby("segment")["spend_84d"]
    segments = (_segment(str(name), spend, len(rows)) for name, spend in spends)
    return RfmMap(as_of, cells, tuple(sorted(segments, key=lambda one: -(one.spend or 0.0))))


def _cell(recency: int, frequency: int, spend: pd.Series) -> Cell:
    members = counted(len(spend))
    return Cell(recency, frequency, members, float(spend.mean()) if members else None)


def _segment(name: str, spend: pd.Series, everybody: int) -> Segment:
    members = counted(len(spend))
    told = members is not None
    return Segment(name, members, len(spend) / everybody if told else None, float(spend.sum()) if told else None)
