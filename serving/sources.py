"""Where features of members come from, and what is made of members whose features can't be had."""

import logging
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from serving.decide import Decider
from serving.record import File, blank_file, open_file, silent_file
from training.constraints import Standing

if TYPE_CHECKING:
    from features.store import MemberFeatures

logger: Final = logging.getLogger("holdfast")


class FeatureSource(Protocol):
    """Know members' latest features, as `features.store.Store` does."""

    def online(self, member_ids: Sequence[str], features: Sequence[str], *, facts: Collection[str]) -> "MemberFeatures":
        """Read a row per id, in order; an unknown member's is not `known`."""
        ...


class Consent(Protocol):
    """Know who wants no personalisation, as the decision log does."""

    def opted_out(self, member_ids: Sequence[str]) -> list[bool]:
        """Say of each who opted out."""
        ...


class Lookup:
    """Look members up: first whether they may be, then their features; of who opted out none is read."""

    def __init__(self, source: FeatureSource, consent: Consent) -> None:
        self._source, self._consent = source, consent
        self._looking = threading.Lock()
        self._withdrawing: Counter[str] = Counter()

    def file(self, decider: Decider, member_ids: Sequence[str], standing: Standing) -> File:
        """Say what is known of members, a row each in order."""
        with self._looking:
            out = self._opted_out(member_ids)
            if not any(out):
                return self._read(decider, member_ids, standing)
            asked = [member for member, silent in zip(member_ids, out, strict=True) if not silent]
            places = np.flatnonzero(~np.array(out))
            file = self._read(decider, asked, standing.take(places)) if asked else None
        return silent_file(decider, member_ids, standing, known=file, places=places)

    @contextmanager
    def withdrawing(self, member_id: str) -> Iterator[None]:
        """Read no feature of a member from here on: what looks members up now is waited for.

        An opt-out is stored inside, so that whatever is read was read before it was.
        """
        self._withdrawing[member_id] += 1
        try:
            with self._looking:
                pass
            yield
        finally:
            self._withdrawing[member_id] -= 1
            self._withdrawing += Counter()  # keeps what is above 0

    def _opted_out(self, member_ids: Sequence[str]) -> list[bool]:
        """Say who opted out, or is about to; who can't be asked about did."""
        try:
            out = self._consent.opted_out(member_ids)
        except Exception as error:  # noqa: BLE001 (whatever the log raises, nobody is taken for willing)
            logger.warning("consent_unavailable: %s", type(error).__name__)
            return [True] * len(member_ids)
        if not self._withdrawing:
            return out
        return [silent or member in self._withdrawing for member, silent in zip(member_ids, out, strict=True)]

    def _read(self, decider: Decider, member_ids: Sequence[str], standing: Standing) -> File:
        try:
            features = self._source.online(member_ids, decider.release.feature_names, facts=decider.facts)
        except Exception as error:  # noqa: BLE001 (whatever a store raises, the member gets an answer that says so)
            logger.warning("features_unavailable: %s", type(error).__name__)  # its message may hold ids
            return blank_file(decider, member_ids, standing)
        return open_file(decider, features, standing)
