"""Where features of members come from, and what is made of members whose features can't be had."""

import logging
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from serving.decide import Decider
from serving.record import File, blank_file, open_file
from training.constraints import Standing

if TYPE_CHECKING:
    from features.store import MemberFeatures

logger: Final = logging.getLogger("holdfast")


class FeatureSource(Protocol):
    """Know members' latest features, as `features.store.Store` does."""

    def online(self, member_ids: Sequence[str], features: Sequence[str], *, facts: Collection[str]) -> "MemberFeatures":
        """Read a row per id, in order; an unknown member's is not `known`."""
        ...


class Lookup:
    """Look members up."""

    def __init__(self, source: FeatureSource) -> None:
        self._source = source

    def file(self, decider: Decider, member_ids: Sequence[str], standing: Standing) -> File:
        """Say what is known of members, a row each in order."""
        try:
            features = self._source.online(member_ids, decider.release.feature_names, facts=decider.facts)
        except Exception as error:  # noqa: BLE001 (whatever a store raises, the member gets an answer that says so)
            logger.warning("features_unavailable: %s", type(error).__name__)  # its message may hold ids
            return blank_file(decider, member_ids, standing)
        return open_file(decider, features, standing)
