"""Erasures at other instances, carried into what this home's shadow made of the erased.

A home's own erasure goes through its files. One of another instance comes with the log, as a receipt that names members
by marks alone: so every member of the file is held against them.
"""

import logging
import sqlite3
import threading
import time
from typing import Final

from features.errors import CorruptError
from features.home import Home
from features.log.trail import Trail
from features.shadow import ShadowFile

logger: Final = logging.getLogger("holdfast")

REST: Final = 3  # times as long as it was at work: whoever makes marks keeps the interpreter from answers


class Erasures:
    """Follow the receipts in a home's log; one thread at a time may ask.

    Raises
    ------
    NotFoundError
        If there is no log.
    """

    def __init__(self, home: Home) -> None:
        self._path, self._trail = home.shadow, Trail(home.decisions)
        self._place, self._said = 0, ""

    def close(self) -> None:
        """Let go of the log."""
        self._trail.close()

    def follow(self, stopping: threading.Event) -> None:
        """Delete the rows of who was erased since it was asked last; what can't be deleted now is the next time."""
        place, marks = self._trail.erased_after(self._place)
        said = ""
        try:
            if marks and self._path.exists():
                self._erase(marks, stopping)
            self._place = place
        except (CorruptError, sqlite3.OperationalError) as error:
            said = str(error)
        if said and said != self._said:
            logger.warning("what the shadow made of members who were erased elsewhere is still there: %s", said)
        self._said = said

    def _erase(self, marks: frozenset[str], stopping: threading.Event) -> None:
        with ShadowFile(self._path) as file:
            erased: list[str] = []
            for members in file.members():
                began = time.monotonic()
                erased += self._trail.among(members, marks)
                if stopping.wait(REST * (time.monotonic() - began)):
                    return
            if erased:  # together, as the file is written anew
                file.erase(erased)
