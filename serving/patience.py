"""Reads of the online store that nobody waits for too long, and that stop being tried while it does not answer.

Reads happen on threads beside the desk's, so that one that hangs keeps nobody: it is let go of when the time is up.
There are few of them, so that a store that hangs holds no more than these (a bulkhead), and after some failures no read
is tried at all until the store has had a moment (a circuit breaker, Nygard, "Release It!", 2007).
"""

from collections.abc import Collection, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import TYPE_CHECKING, Final, Protocol

import pybreaker

from features.errors import UnavailableError
from serving.decide import Decider

if TYPE_CHECKING:
    from features.store import MemberFeatures

READERS: Final = 4
FAILURES: Final = 3  # in a row, until no read is tried
SHORTEST: Final = 0.002  # seconds that a read may be tried in
REST_SECONDS: Final = 1.0  # until one is tried again


class FeatureSource(Protocol):
    """Know members' latest features, as `features.store.Store` does."""

    def online(self, member_ids: Sequence[str], features: Sequence[str], *, facts: Collection[str]) -> "MemberFeatures":
        """Read a row per id, in order; an unknown member's is not `known`."""
        ...


class LateError(UnavailableError):
    """Say that features did not come in time."""


class Patience:
    """Read features within a time."""

    def __init__(self, source: FeatureSource) -> None:
        self._source = source
        self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="features")
        self._free = BoundedSemaphore(READERS)
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=FAILURES, reset_timeout=REST_SECONDS, throw_new_error_on_trip=False
        )

    @property
    def open(self) -> bool:
        """Whether reads are not tried for now."""
        return bool(self._breaker.current_state == pybreaker.STATE_OPEN)

    def read(self, decider: Decider, member_ids: Sequence[str], *, seconds: float) -> "MemberFeatures":
        """Read what a decision about members rests on.

        Raises
        ------
        LateError
            If that takes longer, or other reads that hang leave no room.
        CircuitBreakerError
            While nothing is tried.
        """
        if seconds < SHORTEST:  # the store is not to blame
            raise LateError("no time is left to read features in")
        features: MemberFeatures = self._breaker.call(self._read, decider, member_ids, seconds)
        return features

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, decider: Decider, member_ids: Sequence[str], seconds: float) -> "MemberFeatures":
        if not self._free.acquire(blocking=False):
            raise LateError(f"{READERS} reads of the online store hang")
        read: Future[MemberFeatures] = self._pool.submit(
            self._source.online, member_ids, decider.release.feature_names, facts=decider.facts
        )
        read.add_done_callback(lambda _: self._free.release())
        try:
            return read.result(timeout=seconds)
        except TimeoutError as error:
            raise LateError(f"the online store took longer than {seconds:.3f} s") from error
