"""Everything that one home keeps, moved from one profile to the other: refused, or copied and counted."""

from collections.abc import Callable
from datetime import datetime
from typing import Final

from features.files import alone
from features.migration.decisions import DECISIONS
from features.migration.move import Move, Part, refuse_servers, refuse_strangers
from features.migration.online import ONLINE
from features.migration.registry import REGISTRY
from features.migration.tally import Compared
from features.sheet import Progress
from training.migration.releases import OBJECTS
from training.migration.studies import STUDIES
from training.migration.tracking import TRACKING

PARTS: Final[tuple[Part, ...]] = (REGISTRY, ONLINE, OBJECTS, TRACKING, STUDIES, DECISIONS)


def migrate(move: Move, *, clock: Callable[[], datetime], progress: Progress) -> list[Compared]:
    """Copy what every part that moves holds, and hold what stands there against what stands here.

    Nothing is copied before every server answers and every target is empty, or holds a part of the same. What a
    migration that was killed had copied is not undone: the next one goes on from there.

    Raises
    ------
    UnavailableError
        If a server does not answer, or takes no writes.
    ContractError
        If a target holds something else, or a service still decides.
    """
    parts = [part for part in PARTS if move.moves(part.name)]
    with alone(move.home.root):
        refuse_servers(move, parts, clock)
        refuse_strangers(move, parts)
        for part in parts:
            part.copy(move, progress)
        return [one for part in parts for one in part.compare(move)]
