"""The follower: hears from object storage which release other homes made champion or shadow, while the service runs.

It writes down what it hears in this home's own ledger, and that alone is heeded: a storage that is away, slow or full
of nonsense changes nothing of what serves.
"""

import logging
import threading
from typing import Final

from features.errors import HoldfastError
from features.home import Home
from serving.meters import Meters
from training.releases.ledger import follow
from training.releases.shadow import follow_shadow

logger: Final = logging.getLogger("holdfast")

INTERVAL: Final = 2.0  # seconds between two questions: each is two small requests, or three
STOP_SECONDS: Final = 1.0


class Follower:
    """Ask on a thread of its own, and say what keeps it from hearing, once."""

    def __init__(self, home: Home, *, interval: float = INTERVAL) -> None:
        self._home, self._interval = home, interval
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="follower", daemon=True)
        self._meters: Meters | None = None
        self._said = ""

    def start(self, meters: Meters) -> None:
        """Begin to ask."""
        self._meters = meters
        self._thread.start()

    def stop(self) -> None:
        """Ask no more; a question that hangs is left to itself."""
        self._stopping.set()
        if self._thread.ident:
            self._thread.join(STOP_SECONDS)

    def ask(self) -> None:
        """Write down what other homes changed."""
        said = ""
        try:
            follow(self._home)
            follow_shadow(self._home)
        except (HoldfastError, OSError) as error:
            said = str(error) if isinstance(error, HoldfastError) else type(error).__name__
        if said != self._said:
            self._said = said
            logger.warning("promotions elsewhere are %s", f"not heard of: {said}" if said else "heard of again")
        if self._meters:
            self._meters.heard(well=not said)

    def _work(self) -> None:
        while not self._stopping.wait(self._interval):
            self.ask()
