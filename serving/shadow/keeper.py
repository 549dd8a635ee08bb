"""The shadow as the service knows it: the name of a release, and a process that decides beside the champion.

Nothing is handed to that process: it reads the log, in which all that was decided by stands, so that deciding costs the
champion nothing, whatever the shadow does. What it says of itself is counted here. One that ends or is silent for too
long is begun again, one that can't be a shadow is refused with its reason. Of several workers one has the process, and
the others read how it stands in the file whose lock says which.
"""

import fcntl
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TextIO

from features.errors import HoldfastError
from features.files import stamp
from features.home import Home
from serving.backoff import Backoff
from serving.champion import REASON, Refused, reason_of
from serving.meters import Meters
from serving.shadow.child import Child, Told
from serving.shadow.erasures import Erasures
from training.releases.ledger import ledger_path
from training.releases.shadow import shadow_id, shadow_path

logger: Final = logging.getLogger("holdfast")

TICK: Final = 0.5  # seconds between two looks
LOADING: Final = 900.0  # seconds: it runs only on what the champion leaves
SILENT: Final = 300.0
LONGEST_WAIT: Final = 30.0  # seconds until one that ended is begun again
YOUNG: Final = 60.0
STOP_SECONDS: Final = 5.0

Command = Callable[[Home, str, int | None], Sequence[str]]


def command_of(home: Home, release_id: str, missed_since: int | None) -> list[str]:
    """Say how the process is begun."""
    told = [] if missed_since is None else [str(missed_since)]
    return [sys.executable, "-m", "serving.shadow.process", str(home.root.absolute()), release_id, *told]


class Shadow:
    """Keep the shadow's process, if there is to be one, and its file without who is erased elsewhere.

    Parameters
    ----------
    erasures : where other instances erase, too
    silent : seconds for which the shadow may say nothing
    loading : likewise, until it is the shadow
    """

    def __init__(
        self,
        home: Home,
        *,
        erasures: Erasures | None = None,
        command: Command = command_of,
        tick: float = TICK,
        silent: float = SILENT,
        loading: float = LOADING,
    ) -> None:
        self._home, self._erasures, self._command, self._tick = home, erasures, command, tick
        self._silent, self._loading = silent, loading
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._meters: Meters | None = None
        self._child: Child | None = None
        self._alone: TextIO | None = None  # the lock: held by the process too, so that there are never two
        self._seen: tuple[int, ...] = ()
        self._told: tuple[int, ...] = ()
        self._wanted, self._stood = "", False
        self._place: int | None = None
        self._begun, self._due = 0.0, 0.0
        self._backoff = Backoff(longest=LONGEST_WAIT, young=YOUNG)
        self.release_id: str | None = None
        self.refused: Refused | None = None

    def start(self, meters: Meters) -> None:
        """Begin to look whether there is one."""
        self._meters = meters
        self._tell()
        self._thread.start()

    def stop(self) -> None:
        """Look no more; its process goes too, whatever it is at."""
        self._stopping.set()
        if child := self._child:
            child.interrupt()
        if self._thread.ident:
            self._thread.join(STOP_SECONDS)

    def look(self) -> None:
        """Take up which release is the shadow, if that has changed, and let it have a process."""
        if (seen := stamp(shadow_path(self._home), ledger_path(self._home))) != self._seen:
            self._seen = seen
            self._take_up()
        if self._wanted and self._child is None and time.monotonic() >= self._due:
            self._begin()
        if self._erasures:
            self._erasures.follow(self._stopping)

    def listen(self) -> None:
        """Wait a moment for what its process says."""
        if (child := self._child) is None:
            self._stopping.wait(self._tick)
            return
        told = child.heard(self._tick)
        for one in told or ():
            self._hear(one)
        if self._child and not self._stopping.is_set() and (told is None or self._hangs(child)):
            self._lose(child)

    def _work(self) -> None:
        while not self._stopping.is_set():
            self.look()
            self.listen()
        self._end()
        for held in (self._alone, self._erasures):
            if held:
                held.close()

    def _take_up(self) -> None:
        self._end()
        self._wanted, self._stood, self._place, self._told = "", False, None, ()
        self._due, self._backoff = 0.0, Backoff(longest=LONGEST_WAIT, young=YOUNG)
        self.release_id = self.refused = None
        try:
            self._wanted = shadow_id(self._home) or ""
        except (HoldfastError, OSError) as error:
            self._refuse(reason_of(error))
        self._tell()

    def _begin(self) -> None:
        """Begin its process, or hear of it where another worker has it."""
        if self._alone is None:
            if (lock := _alone(self._home)) is None:
                self._hear_of_it()
                return
            self._alone = lock
            self._tell()
        command = self._command(self._home, self._wanted, self._place)
        try:
            self._child, self._begun = Child(command, held=(self._alone.fileno(),)), time.monotonic()
        except OSError as error:
            logger.warning("the shadow has no process: %s", type(error).__name__)
            self._due = time.monotonic() + self._backoff.after(0.0)

    def _hear(self, told: Told) -> None:
        if told.refused is not None:
            self._end()
            self._refuse(" ".join(told.refused.split()))
            return
        if self.release_id is None:
            self.release_id, self._stood = self._wanted, True
            logger.info("release %s is the shadow", self.release_id)
            self._tell()
        self._place = told.place
        if self._meters:
            self._meters.shadow_behind(told.behind)
            for result, decisions in told.counts.items():
                self._meters.shadowed(result, decisions)
            if told.seconds:
                self._meters.took("shadow", told.seconds)

    def _lose(self, child: Child) -> None:
        """Let one go that ended, or hangs: it is begun again if it ever was the shadow."""
        lasted = time.monotonic() - self._begun
        how = "said nothing" if self._hangs(child) else "ended"
        ended, self._child, self.release_id = child.end(), None, None
        if not self._stood:
            self._refuse(f"release {self._wanted} {how} in the process that tried to load it ({ended}); train another")
            return
        logger.warning("the shadow's process %s (%s); it is begun again", how, ended)
        self._due = time.monotonic() + self._backoff.after(lasted)
        if self._meters:
            self._meters.shadow_lost()
        self._tell()

    def _hangs(self, child: Child) -> bool:
        return child.stopped or child.silence > (self._silent if self.release_id else self._loading)

    def _end(self) -> None:
        if self._child:
            self._child.end()
            self._child = None

    def _refuse(self, reason: str) -> None:
        self.release_id, self.refused = None, Refused(self._wanted, reason[:REASON])
        self._wanted = ""  # until another is named
        logger.error("release %s is no shadow: %s", self.refused.release_id, self.refused.reason)
        self._tell()

    def _tell(self) -> None:
        """Let people on call know, and the other workers."""
        if self._meters:
            self._meters.shadow(self.release_id)
        if self._alone:
            told = {"release_id": self.release_id, "refused": asdict(self.refused) if self.refused else None}
            self._alone.truncate(0)
            self._alone.write(json.dumps(told))
            self._alone.flush()

    def _hear_of_it(self) -> None:
        """Read how the shadow stands that another worker has the process of."""
        path = _lock_of(self._home)
        if (told := stamp(path)) == self._told:
            return
        try:
            read: dict[str, Any] = json.loads(path.read_bytes())
        except ValueError:  # it is being written
            return
        self._told, release_id = told, read["release_id"]
        refused = Refused(**read["refused"]) if read["refused"] else None
        if (refused.release_id if refused else release_id) in {None, self._wanted}:  # not of one before
            self.release_id, self.refused = release_id, refused
            self._tell()


def _lock_of(home: Home) -> Path:
    return home.shadow.with_name(f"{home.shadow.name}.lock")


def _alone(home: Home) -> TextIO | None:
    """Keep other workers, and other services of this home, from having a shadow; None if one has it."""
    file: TextIO = _lock_of(home).open("a")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return None
    return file
