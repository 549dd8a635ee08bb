"""Waiting by a clock that may have been wrong: what was noted far in the future holds nothing up."""

from datetime import datetime, timedelta
from typing import Final

SKEW: Final = timedelta(days=1)  # clocks of one programme are never so far apart: who notes this was set wrong


def passed(since: datetime, wait: timedelta, now: datetime) -> bool:
    """Say whether a wait is over.

    >>> noon = datetime(2026, 3, 1, 12)
    >>> [passed(noon, timedelta(hours=1), noon + timedelta(hours=hours)) for hours in (0.5, 1, -0.5, -48)]
    [False, True, False, True]
    """
    return now - since >= wait or since - now > SKEW
