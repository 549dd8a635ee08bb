"""The champion, followed while the service runs: verified, tried in a process of its own, loaded, then handed over.

All of it happens beside the desk, which takes the new release up between two groups of requests, so that no decision
is of two. A release that is refused is tried again once the ledger changes; until then the one before it serves on.
"""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from features.errors import CorruptError, HoldfastError, NotFoundError
from features.files import stamp
from features.home import Home
from serving.follower import Follower
from serving.meters import Meters
from serving.offering import Offering
from serving.patience import FeatureSource
from serving.sources import check_features
from training.artifacts import Release, check_bytes, open_release
from training.releases.ledger import champion_id, champions, ledger_path
from training.releases.shelf import bring
from training.releases.trial import try_release

logger: Final = logging.getLogger("holdfast")

INTERVAL: Final = 0.5  # seconds between two looks at the ledger
AGAIN: Final = 30.0  # until a release that could not be fetched is fetched again
REASON: Final = 300  # characters


@dataclass(frozen=True)
class Refused:
    """Hold a champion that does not serve, and why."""

    release_id: str
    reason: str


def open_champion(home: Home) -> tuple[Release, Refused | None]:
    """Load the champion, or the last one before it that is whole, and say which was refused.

    Raises
    ------
    NotFoundError
        If nothing was promoted yet.
    CorruptError
        If the champion is not what was promoted, and none before it is.
    """
    refused: Refused | None = None
    for release_id in dict.fromkeys(reversed(champions(home))):
        try:
            release = tried(home, release_id)
        except HoldfastError as error:
            refused = refused or Refused(release_id, reason_of(error))
            continue
        if refused:
            logger.error("release %s is refused, %s serves: %s", refused.release_id, release_id, refused.reason)
        return release, refused
    if refused:
        raise CorruptError(f"no champion is whole: {refused.reason}")
    raise NotFoundError(
        f"nothing to serve: {home.releases} has no champion; `holdfast promote` lets the gate judge what was trained, "
        "`holdfast demo` runs the whole loop"
    )


def tried(home: Home, release_id: str) -> Release:
    """Load a release that a process of its own was able to load.

    Raises
    ------
    NotFoundError, CorruptError
        As `open_release`; and if that process crashed, or took too long.
    UnavailableError
        If it is not here, and the object storage where it is does not answer.
    """
    bring(home, release_id)
    check_bytes(home.releases, release_id)  # cheap, and most of what is wrong
    try_release(home.releases / release_id)
    return open_release(home.releases, release_id)


class Watch:
    """Follow the ledger on a thread of its own.

    Parameters
    ----------
    refused : the champion, if another serves to begin with; it is tried once more
    follower : hears of what other homes promote, where they share object storage
    """

    def __init__(
        self,
        home: Home,
        offering: Offering,
        source: FeatureSource,
        *,
        clock: Callable[[], datetime],
        refused: Refused | None = None,
        follower: Follower | None = None,
        interval: float = INTERVAL,
    ) -> None:
        self._home, self._offering, self._source, self._clock = home, offering, source, clock
        self._serving = offering.decider.release.release_id
        self._seen: tuple[int, ...] = ()
        self._follower, self._tried = follower, 0.0
        self._interval, self._stopping = interval, threading.Event()
        self._thread = threading.Thread(target=self._work, name="champion", daemon=True)
        self._meters: Meters | None = None
        self.refused = refused

    def start(self, meters: Meters) -> None:
        """Begin to look."""
        self._meters = meters
        self._tell()
        self._thread.start()
        if self._follower:
            self._follower.start(meters)

    def stop(self) -> None:
        """Look no more."""
        self._stopping.set()
        if self._follower:
            self._follower.stop()
        if self._thread.ident:
            self._thread.join()

    def look(self) -> None:
        """Take up what the ledger says, if it has changed."""
        if (seen := stamp(ledger_path(self._home))) == self._seen and not self._again():
            return
        self._seen, self._tried = seen, time.monotonic()
        try:
            champion = champion_id(self._home)
        except (HoldfastError, OSError) as error:
            logger.error("the ledger can't be read, release %s serves on: %s", self._serving, error)  # noqa: TRY400 (the words say it)
            return
        if champion is None:
            logger.error("the ledger is gone, release %s serves on", self._serving)
        elif champion == self._serving:
            self.refused = None
        else:
            self._take_up(champion)
        self._tell()

    def _take_up(self, champion: str) -> None:
        before = self._serving
        try:
            found = self._offering.read(tried(self._home, champion), self._clock())
            check_features(self._source, found.decider)
        except Exception as error:  # noqa: BLE001 (however a release is bad, the one that serves goes on)
            self.refused = Refused(champion, reason_of(error))
            logger.error("release %s is refused, %s serves on: %s", champion, before, self.refused.reason)  # noqa: TRY400 (the words say it)
            return
        self._offering.succeed(found)
        self._serving, self.refused = champion, None
        logger.info("release %s serves, in place of %s", champion, before)

    def _again(self) -> bool:
        """Tell whether to try again to fetch a champion that could not be had whole."""
        if self._follower is None or self.refused is None or time.monotonic() - self._tried < AGAIN:
            return False
        return not (self._home.releases / self.refused.release_id).exists()

    def _tell(self) -> None:
        if self._meters:
            self._meters.release(self._serving, self.refused.release_id if self.refused else None)

    def _work(self) -> None:
        while not self._stopping.wait(self._interval):
            self.look()


def reason_of(error: Exception) -> str:
    """Say in one short line why a release is refused; no release holds anything of a member."""
    words = " ".join(str(error).split())[:REASON]
    return words if isinstance(error, HoldfastError) else f"{type(error).__name__}: {words}"
