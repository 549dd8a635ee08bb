"""The canary: nobody, who is scored by the very path that members take, to see whether it holds."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from features.decisions import Log
from features.errors import HoldfastError
from serving.clerk import Ask
from serving.contract import ScoresRequest
from serving.decide import Decider
from serving.problems import ProblemError
from serving.room import Stored

if TYPE_CHECKING:
    from training.artifacts import Scores

NOBODY: Final = ScoresRequest(members=("holdfast-canary",), offers=None)
FRESH_SECONDS: Final = 1.0
PATIENCE: Final = 1.0  # seconds until what does not answer is down
OK: Final = "ok"
DOWN: Final = "unavailable"
WRONG: Final = "scores otherwise than when it was loaded"


@dataclass(frozen=True)
class Health:
    """Say how it is with what decisions stand on."""

    checks: Mapping[str, str]

    @property
    def ready(self) -> bool:
        """Whether decisions can be taken: without the store a fallback takes them."""
        return self.checks["log"] == self.checks["release"] == OK

    @property
    def status(self) -> str:
        """All of it in a word."""
        if not self.ready:
            return "not_ready"
        return "ready" if self.checks["store"] == OK else "degraded"


class Canary:
    """Look whether the path holds, once a second at most, however many ask; only the event loop may ask."""

    def __init__(
        self,
        serve: Callable[[Ask], Awaitable[Stored]],
        log: Log,
        decider: Callable[[], Decider],
        clock: Callable[[], datetime],
    ) -> None:
        self._serve, self._log, self._decider, self._clock = serve, log, decider, clock
        self._looking: asyncio.Task[Health] | None = None
        self._looked = -FRESH_SECONDS
        self._golden: tuple[str, Scores] | None = None

    async def look(self) -> Health:
        """Say how it is."""
        if self._looking is None or (self._looking.done() and time.monotonic() - self._looked > FRESH_SECONDS):
            self._looking = asyncio.create_task(self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> Health:
        store, log = await asyncio.gather(self._store(), self._entry())
        self._looked = time.monotonic()
        return Health({"store": store, "log": log, "release": self._release()})

    async def _store(self) -> str:
        try:
            async with asyncio.timeout(PATIENCE):
                stored = await self._serve(Ask(NOBODY))
        except (TimeoutError, ProblemError):
            return DOWN
        (score,) = msgspec.json.decode(stored.decided.text)["scores"]
        return OK if score["fallback_reason"] == "unknown_member" else DOWN

    async def _entry(self) -> str:
        """Hand in what the log has already: its writer commits it all the same."""
        catalogue = self._decider().catalogue
        try:
            kept = self._log.keep_catalogue(catalogue.catalogue_id, catalogue.to_json(), now=self._clock())
            async with asyncio.timeout(PATIENCE):
                await asyncio.wrap_future(kept)
        except (TimeoutError, HoldfastError):
            return DOWN
        return OK

    def _release(self) -> str:
        """Score a row that is no member's as at first, when the release had just scored its golden rows right."""
        release = self._decider().release
        came = release.score(np.zeros((1, len(release.feature_names)), dtype=np.float32))
        if self._golden is None or self._golden[0] != release.release_id:
            self._golden = release.release_id, came
        same = all(np.array_equal(value, vars(self._golden[1])[name]) for name, value in vars(came).items())
        return OK if same else WRONG
