"""Which figures act by themselves, where each stands, and what it did last."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from features.home import Home
from features.programme import Length, Programme
from monitoring.kpis import LAYERS, Unit, View
from monitoring.overview.missing import Missing
from monitoring.triggers import read_acted, stand


@dataclass(frozen=True)
class Standing:
    """Hold where one trigger stands; figures in the metric's own unit."""

    name: str
    metric: str
    unit: Unit
    period: Length
    window: int  # periods whose mean counts
    value: float | None
    threshold: float
    side: str  # of the threshold, on which it acts
    beyond: int  # periods in a row
    place: int  # of the level that is due, 0 for none
    levels: tuple[str, ...]
    acted_at: datetime | None  # when the level that is due acted last


def gather_triggers(home: Home, programme: Programme, views: Sequence[View] | Missing) -> tuple[Standing, ...]:
    """Say of every trigger where it stands by the figures of the tree."""
    by_length = {} if isinstance(views, Missing) else {view.length: view for view in views}
    acted, found = read_acted(home), list[Standing]()
    for name, trigger in programme.triggers.items():
        pulled = stand(name, trigger, by_length.get(trigger.period))
        last = acted.get(name)
        found.append(
            Standing(
                name=name,
                metric=trigger.metric,
                unit=LAYERS[trigger.metric][1],
                period=trigger.period,
                window=trigger.window,
                value=pulled.value,
                threshold=trigger.threshold,
                side=trigger.side,
                beyond=pulled.beyond,
                place=trigger.levels.index(pulled.level) + 1 if pulled.level else 0,
                levels=tuple(level.name for level in trigger.levels),
                acted_at=last.at if last and pulled.level and last.level == pulled.level.name else None,
            )
        )
    return tuple(found)
