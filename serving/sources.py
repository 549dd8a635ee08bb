"""Where features of members come from, and what is made of members whose features can't be had."""

import logging
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime, timedelta
from typing import Final, Protocol

import numpy as np
from xgboost.core import XGBoostError

from features.errors import ContractError
from features.log.standing import Standing
from features.programme import Serving
from serving.barrier import Barrier
from serving.decide import FALLBACKS, LATE, NO_MODEL, TOO_OLD, UNAVAILABLE, Decider
from serving.patience import FeatureSource, LateError, Patience
from serving.record import File, blank_file, marked, open_file, silent_file
from serving.standby import Standbys
from training.artifacts import Scores

logger: Final = logging.getLogger("holdfast")
DEFAULTS: Final = Serving()
_REASONS: Final[dict[type[Exception], int]] = {LateError: LATE, XGBoostError: NO_MODEL}


class Consent(Protocol):
    """Know who wants no personalisation, as the decision log does."""

    def opted_out(self, member_ids: Sequence[str]) -> list[bool]:
        """Say of each who opted out."""
        ...


class Lookup:
    """Look members up: first whether they may be, then their features; of who opted out none is read.

    Parameters
    ----------
    barrier : between several workers; none where there is one
    """

    def __init__(
        self,
        source: FeatureSource,
        consent: Consent,
        *,
        standbys: Standbys | None = None,
        settings: Serving = DEFAULTS,
        barrier: Barrier | None = None,
    ) -> None:
        self._patience, self._consent, self._standbys = Patience(source), consent, standbys
        self._oldest = timedelta(days=settings.feature_days)
        self._looking, self._barrier = threading.Lock(), barrier
        self._withdrawing: Counter[str] = Counter()

    def file(
        self, decider: Decider, member_ids: Sequence[str], standing: Standing, *, now: datetime, seconds: float
    ) -> File:
        """Say what is known of members, a row each in order; where nothing is in time, what stands in for it."""
        if self._standbys:
            self._standbys.follow(decider.release)
        with self._looking, self._barrier.looking() if self._barrier else nullcontext():
            out = self._opted_out(member_ids)
            if not any(out):
                return self._filled(decider, self._read(decider, member_ids, standing, now, seconds))
            asked = [member for member, silent in zip(member_ids, out, strict=True) if not silent]
            places = np.flatnonzero(~np.array(out))
            file = self._read(decider, asked, standing.take(places), now, seconds) if asked else None
            return self._filled(decider, silent_file(decider, member_ids, standing, known=file, places=places))

    def scored(self, decider: Decider, file: File) -> tuple[File, Scores | None]:
        """Score members; where the models fail, by what stands in for them."""
        try:
            return file, decider.score(file.members)
        except XGBoostError as error:
            logger.warning("model_unavailable: %s", type(error).__name__)
            file = self._filled(decider, marked(file, NO_MODEL, file.members.own))
            return file, decider.score(file.members)

    def close(self) -> None:
        """Begin no more reads."""
        self._patience.close()
        if self._barrier:
            self._barrier.close()

    @contextmanager
    def withdrawing(self, member_id: str) -> Iterator[None]:
        """Read no feature of a member from here on: what looks members up now is waited for.

        An opt-out is stored inside, so that whatever is read was read before it was; where there are other workers,
        it is not over before what they had begun is.
        """
        self._withdrawing[member_id] += 1
        try:
            with self._looking:
                pass
            yield
            if self._barrier:
                self._barrier.wait()
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

    def _read(
        self, decider: Decider, member_ids: Sequence[str], standing: Standing, now: datetime, seconds: float
    ) -> File:
        try:
            features = self._patience.read(decider, member_ids, seconds=seconds)
            return self._aged(open_file(decider, features, standing), now)
        except Exception as error:  # noqa: BLE001 (whatever a store raises, the member gets an answer that says so)
            code = _REASONS.get(type(error), UNAVAILABLE)
            logger.warning("%s: %s", FALLBACKS[code], type(error).__name__)  # its message may hold ids
            return blank_file(decider, member_ids, standing, code)

    def _aged(self, file: File, now: datetime) -> File:
        oldest = now - self._oldest
        old = np.array([time is not None and time < oldest for time in file.event_timestamp])
        return marked(file, TOO_OLD, old & file.members.own) if old.any() else file

    def _filled(self, decider: Decider, file: File) -> File:
        if self._standbys is None or not file.members.fallback.any():
            return file
        return self._standbys.fill(decider, file)


def check_features(source: FeatureSource, decider: Decider) -> None:
    """Read what a release wants to know of nobody in particular; a store that is down says nothing against it.

    Raises
    ------
    ContractError
        If the store has no such feature.
    """
    try:
        source.online(("nobody",), decider.release.feature_names, facts=decider.facts)
    except ContractError:
        raise
    except Exception as error:  # noqa: BLE001 (the store's own trouble)
        logger.warning("features_unavailable: %s", type(error).__name__)
