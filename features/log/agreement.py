"""The agreement: several instances, each with a log of its own, decide as one through the ledger in Postgres.

Around each group of entries that the log's writer commits, a turn at the ledger: what others committed comes in, each
entry is held against it, and what this one commits is in the ledger before it is acknowledged. Turns come one after the
other, so that of any two entries one has seen the other.

While Postgres is away an instance is apart: it goes on answering and storing, and promises nothing that is limited. Its
entries come into the ledger when it is back; then it is apart until nobody else may have anything that is not there.
"""

import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Final

from features.errors import ContractError, HoldfastError, UnavailableError, UnwrittenError
from features.log import elsewhere
from features.log.elsewhere import Heard
from features.log.ledger import MOST, NAME, Ledger, Terms
from features.log.register import Marks

logger: Final = logging.getLogger("holdfast")

LOOK_SECONDS: Final = 0.5  # between looks of an instance that has nothing to say
AGAIN: Final = 0.05
GRACE_SECONDS: Final = 5.0  # after an outage, for which one that died is waited for
FORGET_SECONDS: Final = 60.0  # between looks for lines that nobody needs any more
APART_SECONDS: Final = 2.0  # that two clocks may be, before somebody is told


class PartedError(Exception):
    """Say that nothing of a group is in the ledger, and that it is to be written apart."""


class Agreement:
    """Take turns at the ledger; the log's writer alone calls `join`, `begin` and `end`.

    Raises
    ------
    ContractError
        If the ledger is of another version, or of homes with another `privacy.key`, or somebody has this log's name.
    """

    def __init__(self, terms: Terms, db: sqlite3.Connection, marks: Marks) -> None:
        self._terms, self._db, self._marks = terms, db, marks
        self._name = self._noted(db)
        self._ledger: Ledger | None = None
        self._turn: _Turn | None = None
        self._joined_at, self._turned_at, self._forgot_at, self._skewed = 0.0, 0.0, 0.0, False
        self._hear: Callable[[Heard], None] = lambda _: None
        self._look: Callable[[], object] = lambda: None
        self._stop, self._thread = threading.Event(), threading.Thread(target=self._run, name="ledger", daemon=True)
        self.apart = True
        self.doubled = 0  # keys that were answered by two instances
        self.ahead = 0.0  # seconds that the clock of Postgres is before this machine's

    def join(self) -> None:
        """Come to know what was committed before this began; if nobody can be asked, it comes later."""
        try:
            self._connect()
        except UnavailableError as error:
            logger.warning("%s; this instance decides apart until it does", error)
        until = time.monotonic() + 2 * LOOK_SECONDS
        self.catch_up()
        while self._ledger is not None and self.apart and time.monotonic() < until and not self._stop.wait(AGAIN):
            self.catch_up()  # until the others have looked, too

    def catch_up(self) -> None:
        """Take turns until nothing is left, or nobody answers."""
        before = None
        while self._ledger is not None and before != (before := elsewhere.place(self._db)):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self.begin()
                self.end()
            except PartedError:
                self._db.execute("ROLLBACK")
                return
            self._db.execute("COMMIT")

    def start(self, hear: Callable[[Heard], None], look: Callable[[], object]) -> None:
        """Tell of what comes in from now on, and look for it in the background.

        Parameters
        ----------
        look : has the writer take a turn though nobody hands in anything
        """
        self._hear, self._look = hear, look
        self._thread.start()

    def begin(self) -> bool:
        """Bring in what others committed, and keep them waiting; say whether rows went for good."""
        self._turn = None
        if (ledger := self._ledger) is None:
            return False
        seen, written = elsewhere.place(self._db)
        try:
            lines = ledger.begin(seen)
            absent = ledger.absent() if self.apart else 0
            if len(lines) == MOST:  # the rest has to come in before anything is held against it
                ledger.end()
        except UnavailableError as error:
            self._lose(error)
            return False
        heard = elsewhere.take(self._db, lines, self._marks, instance=self._name, written=written)
        self._hear(heard)
        if heard.doubled:
            self.doubled += len(heard.doubled)
            logger.warning("%d keys were answered here and elsewhere while this instance was apart", len(heard.doubled))
        seen = lines[-1].number if lines else seen
        self._turn = _Turn(ledger, seen, written, whole=len(lines) < MOST, absent=absent)
        return heard.erases

    def end(self) -> bool:
        """Put into the ledger what was written meanwhile, and say whether anything now is there.

        Raises
        ------
        PartedError
            If it surely is not.
        """
        turn, self._turn = self._turn, None
        if turn is None:
            return False
        if not turn.whole:
            elsewhere.move(self._db, turn.seen, turn.written)
            self._look()
            return False
        seen, written, some = turn.seen, turn.written, False
        try:
            while True:
                written, lines = elsewhere.lacking(self._db, written, MOST)
                seen = turn.ledger.write(lines, seen)
                some, more = some or bool(lines), elsewhere.lacks(self._db, written)
                if self.apart or not more:  # apart there may be much, and nothing was promised of it
                    break
            if time.monotonic() - self._forgot_at > FORGET_SECONDS:
                turn.ledger.forget()
                self._forgot_at = time.monotonic()
        except UnavailableError as error:
            self._lose(error)
            raise PartedError from error
        elsewhere.move(self._db, seen, written)
        try:
            turn.ledger.commit()
        except UnavailableError as error:  # it may be there: it stands here, and comes there again
            elsewhere.move(self._db, turn.seen, turn.written)
            self._lose(error)
            return False
        self._settle(turn, more=more)
        return some

    def give_up(self) -> None:
        """Let others go on: the group is not written here."""
        self._turn = None
        if self._ledger is not None:
            try:
                self._ledger.end()
            except UnavailableError as error:
                self._lose(error)

    def close(self) -> None:
        """Leave, once the writer has ended."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if (ledger := self._ledger) is not None:
            with contextlib.suppress(UnavailableError):
                ledger.leave()
            ledger.close()

    def _settle(self, turn: "_Turn", *, more: bool) -> None:
        """Know after a turn whether anything is left that would have to be known."""
        self._turned_at, self.ahead = time.monotonic(), turn.ledger.ahead
        if more:
            self._look()
        elif self.apart and (not turn.absent or self._turned_at - self._joined_at > GRACE_SECONDS):
            self.apart = False
            logger.info("this instance decides as one with the others")
        if (skewed := abs(self.ahead) > APART_SECONDS) and not self._skewed:
            logger.warning("the clock of Postgres is %+.1f s from this machine's: let NTP keep both", self.ahead)
        self._skewed = skewed

    def _lose(self, error: UnavailableError) -> None:
        if self._ledger is not None:
            self._ledger.close()
        self._ledger, self.apart = None, True
        logger.warning("%s; this instance decides apart until it does", error)

    def _connect(self) -> None:
        ledger = Ledger(self._terms, self._name, self._marks.of(NAME))
        self._joined_at, self._ledger = time.monotonic(), ledger

    def _run(self) -> None:
        said = ""
        while not self._stop.wait(LOOK_SECONDS):
            if self._ledger is None:
                try:
                    self._connect()
                except HoldfastError as error:
                    if isinstance(error, ContractError) and said != (said := str(error)):
                        logger.warning("%s; this instance decides apart", error)
                    continue
            if time.monotonic() - self._turned_at > LOOK_SECONDS:
                with contextlib.suppress(UnwrittenError):  # it ends
                    self._look()

    @staticmethod
    def _noted(db: sqlite3.Connection) -> str:
        db.execute("BEGIN IMMEDIATE")
        name = elsewhere.begin(db)
        db.execute("COMMIT")
        return name


class _Turn:
    """Hold a turn at the ledger between its two halves."""

    def __init__(self, ledger: Ledger, seen: int, written: int, *, whole: bool, absent: int) -> None:
        self.ledger, self.seen, self.written, self.whole, self.absent = ledger, seen, written, whole, absent
