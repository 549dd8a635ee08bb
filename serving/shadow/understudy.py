"""The understudy: reads on in the log, has the shadow decide about the same, and keeps it beside the log.

The log is its queue. What it has no time for waits there, and beyond a number it is left out and counted: the newest
decisions are those that say how the shadow fares.
"""

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from itertools import groupby
from typing import Final

from features.decisions import read_catalogue_body
from features.errors import ContractError
from features.home import Home
from features.log.trail import Trail
from features.offers import catalogue_from_json
from features.shadow import ShadowFile, ShadowRow
from serving.replay import Row
from serving.shadow.child import Told
from serving.shadow.pair import Pair, decide_beside, pair_of
from training.artifacts import Release, open_release

logger: Final = logging.getLogger("holdfast")

BLOCK: Final = 256  # decisions scored at once
BEHIND: Final = 50_000  # decisions that may wait
PAIRS: Final = 4  # in memory: champions and catalogues follow each other


class Understudy:
    """Follow the log of a home; one thread at a time may ask.

    Parameters
    ----------
    missed_since : where another stood that did not end well; what came since is left out

    Raises
    ------
    NotFoundError, CorruptError
        If there is no log, or what it writes to holds something else.
    """

    def __init__(
        self, home: Home, shadow: Release, *, missed_since: int | None = None, block: int = BLOCK, behind: int = BEHIND
    ) -> None:
        self._home, self._shadow = home, shadow
        self._block, self._behind = block, behind
        self._trail, self._file = Trail(home.decisions), ShadowFile(home.shadow)
        self._place, self._counts, self._seconds = self._trail.end(), Counter[str](), 0.0
        if missed_since is not None:
            self._counts["dropped"] += max(self._place - missed_since, 0)
        self._pair: Callable[[str, str], Pair] = lru_cache(PAIRS)(self._open_pair)

    def close(self) -> None:
        """Let go of the files."""
        self._trail.close()
        self._file.close()

    def step(self) -> bool:
        """Take the next block; False if there was nothing to take.

        Raises
        ------
        ContractError
            If it can't stand beside the champion.
        """
        left_out = self._trail.end() - self._behind - self._place
        if left_out > 0:
            self._counts["dropped"] += left_out
            self._place += left_out
        block = self._trail.after(self._place, self._block)
        advanced, self._place = block.until > self._place, block.until
        for (release_id, catalogue_id), alike in groupby(block.rows, key=_source):
            if release_id != self._shadow.release_id:
                self._take(release_id, catalogue_id, [*alike])
        return advanced

    def told(self) -> Told:
        """Say what it came to since this was asked last."""
        told = Told(self._place, max(self._trail.end() - self._place, 0), dict(self._counts), self._seconds)
        self._counts, self._seconds = Counter(), 0.0
        return told

    def _take(self, release_id: str, catalogue_id: str, rows: Sequence[Row]) -> None:
        try:
            self._keep(decide_beside(self._pair(release_id, catalogue_id), rows))
        except ContractError:
            raise
        except Exception as error:  # noqa: BLE001 (whatever fails here, nobody waits for it)
            logger.warning("the shadow failed: %s", type(error).__name__)  # its message may hold ids
            self._counts["failed"] += len(rows)

    def _keep(self, rows: Sequence[ShadowRow]) -> None:
        """Write rows, but for those of who opted out or was erased since: an erasure waits for this, or comes first."""
        with self._file.writing():
            gone = self._trail.gone([row.member_id for row in rows])
            kept = [row for row, out in zip(rows, gone, strict=True) if not out]
            self._file.add(kept)
        same = sum(row.treatment == row.shadow_treatment for row in kept)
        self._counts.update({"same": same, "another": len(kept) - same})
        self._seconds += sum(row.shadow_seconds for row in kept)

    def _open_pair(self, release_id: str, catalogue_id: str) -> Pair:
        catalogue = catalogue_from_json(read_catalogue_body(self._home.decisions, catalogue_id))
        return pair_of(open_release(self._home.releases, release_id), self._shadow, catalogue)


def _source(row: Row) -> tuple[str, str]:
    return row["release_id"], row["catalogue_id"]
