"""The barrier: whoever opted out waits until every look-up that had begun before is over, in other workers too.

Each worker holds a shared lock on one file while it asks about consent and reads features. Who takes the whole lock
once an opt-out is stored has outlived all that did not see it; those that come later do.
"""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class Barrier:
    """Know of look-ups in progress; one thread at a time may be in `looking`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("a")

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Let others see that a look-up is in progress."""
        fcntl.flock(self._file, fcntl.LOCK_SH)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def wait(self) -> None:
        """Wait until every look-up that is in progress is over."""
        with self._path.open("a") as file:  # of its own, so that this process's look-ups count too
            fcntl.flock(file, fcntl.LOCK_EX)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
