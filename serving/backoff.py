"""When a process that ended is begun again: soon, and later each time that it ends young."""

from typing import Final

FIRST_WAIT: Final = 0.1  # seconds


class Backoff:
    """Double the wait each time that a process ends young, up to a limit.

    >>> backoff = Backoff(longest=0.5, young=30.0)
    >>> [backoff.after(lived) for lived in (1.0, 1.0, 1.0, 60.0, 1.0)]
    [0.2, 0.4, 0.5, 0.1, 0.2]

    Parameters
    ----------
    longest : seconds that it is waited for at most
    young : seconds; who lived longer is begun again at once, as the first time
    """

    def __init__(self, *, longest: float, young: float) -> None:
        self._longest, self._young = longest, young
        self._wait = FIRST_WAIT

    def after(self, lived: float) -> float:
        """Give the seconds to wait for after a life of so many."""
        self._wait = FIRST_WAIT if lived > self._young else min(2 * self._wait, self._longest)
        return self._wait
