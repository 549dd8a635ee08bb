"""The shadow: a release that decides about the same members as the champion, once their answers are stored.

It has a thread of its own and a queue with an end: what does not fit is dropped and counted, so that a shadow that is
slow, hangs or fails keeps nobody waiting. Of who opted out it is told nothing, and it reads no feature itself: what the
champion was decided by is all there is. What it would have decided is in `features.shadow`, never in the log.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from queue import Empty, Full, Queue
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from features.decisions import Decision, Log
from features.errors import ContractError
from features.files import stamp
from features.home import Home
from features.shadow import ShadowFile, ShadowRow
from serving.champion import Refused, reason_of, tried
from serving.decide import Choice, Decider, Members, Occasion, Worth
from serving.meters import Meters
from training.artifacts import Release
from training.releases.ledger import ledger_path
from training.releases.shadow import shadow_id, shadow_path

if TYPE_CHECKING:
    from serving.clerk import Decided

logger: Final = logging.getLogger("holdfast")

Floats = NDArray[np.float64]

WAITING: Final = 128  # parties of requests, of up to 500 members each
TICK: Final = 0.05  # seconds: answers leave meanwhile
STORED_SECONDS: Final = 10.0
STOP_SECONDS: Final = 1.0


@dataclass(frozen=True, eq=False)
class Shown:
    """Hold what the champion decided by and what it decided: nothing of it is changed any more."""

    decider: Decider
    members: Members
    worth: Worth
    choice: Choice
    occasion: Occasion
    uniform: Floats
    decisions: tuple[Decision, ...]
    served: "tuple[Decided, ...]"  # to each request, of which some may not be stored
    seconds: float  # a member, of scoring


class Shadow:
    """Decide beside the champion."""

    def __init__(
        self, home: Home, log: Log, *, open_release: Callable[[Home, str], Release] = tried, tick: float = TICK
    ) -> None:
        self._home, self._log, self._open, self._tick = home, log, open_release, tick
        self._queue: Queue[Shown] = Queue(WAITING)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="shadow", daemon=True)
        self._meters: Meters | None = None
        self._release: Release | None = None
        self._decider: Decider | None = None
        self._file: ShadowFile | None = None
        self._seen: tuple[int, ...] = ()
        self.refused: Refused | None = None

    @property
    def release_id(self) -> str | None:
        """Which release it is, if there is one."""
        release = self._release
        return release.release_id if release else None

    def start(self, meters: Meters) -> None:
        """Begin to look whether there is one."""
        self._meters = meters
        self._tell()
        self._thread.start()

    def stop(self) -> None:
        """Look no more; one that hangs is left to itself."""
        self._stopping.set()
        if self._thread.ident:
            self._thread.join(STOP_SECONDS)

    def show(self, shown: Shown) -> None:
        """Let it decide too, some time later; returns at once."""
        if self._release is None:
            return
        try:
            self._queue.put_nowait(shown)
        except Full:
            if self._meters:
                self._meters.shadowed("dropped", len(shown.decisions))

    def look(self) -> None:
        """Take up which release is the shadow, if that has changed."""
        if (seen := stamp(shadow_path(self._home), ledger_path(self._home))) == self._seen:
            return
        self._seen = seen
        self._release, self._decider, self.refused = None, None, None
        release_id = ""
        try:
            if (release_id := shadow_id(self._home) or "") and self._file is None:
                self._file = ShadowFile(self._home.shadow)
            self._release = self._open(self._home, release_id) if release_id else None
        except Exception as error:  # noqa: BLE001 (however it is bad, the champion goes on)
            self._refuse(release_id, error)
        if self._release:
            logger.info("release %s is the shadow", release_id)
        self._tell()

    def decide(self, shown: Shown) -> list[ShadowRow]:
        """Say what it would have decided about those whose numbers were the models' own."""
        decider = self._beside(shown.decider)
        members = _seen_by(decider, shown.decider, shown.members)
        started = time.perf_counter()
        scores = decider.score(members)
        seconds = (time.perf_counter() - started) / len(members.fallback)
        worth = decider.worth(scores, members.scored, shown.occasion.campaign_id)
        choice = decider.choose(members, worth, occasion=shown.occasion, uniform=shown.uniform)
        return _rows(shown, decider, worth, choice, seconds)

    def _work(self) -> None:
        while not self._stopping.wait(self._tick):
            self.look()
            for shown in self._waiting():
                self._take(shown)
        if self._file:
            self._file.close()

    def _waiting(self) -> list[Shown]:
        found = list[Shown]()
        try:
            while True:
                found.append(self._queue.get_nowait())
        except Empty:
            return found

    def _take(self, shown: Shown) -> None:
        release = self._release
        if release is None or release.release_id == shown.decider.release.release_id:
            return
        try:
            self._keep(self.decide(shown), _standing(shown))
        except ContractError as error:  # it can't stand beside this champion
            self._refuse(release.release_id, error)
            self._tell()
        except Exception as error:  # noqa: BLE001 (whatever fails here, nobody waits for it)
            logger.warning("the shadow failed: %s", type(error).__name__)  # its message may hold ids
            self._count("failed", len(shown.decisions))

    def _keep(self, rows: Sequence[ShadowRow], stored: set[str]) -> None:
        """Write rows, but for those of who opted out or was erased since: an erasure waits for this, or comes first."""
        file, rows = self._file, [row for row in rows if row.decision_id in stored]
        if file is None or not rows:
            return
        with file.writing():
            out = self._log.opted_out([row.member_id for row in rows])
            kept = [row for row, gone in zip(rows, out, strict=True) if not gone]
            file.add(kept)
        same = sum(row.treatment == row.shadow_treatment for row in kept)
        self._count("same", same)
        self._count("another", len(kept) - same)
        if self._meters:
            self._meters.took("shadow", sum(row.shadow_seconds for row in kept))

    def _beside(self, champion: Decider) -> Decider:
        """Let the shadow decide by the catalogue of the moment.

        Raises
        ------
        ContractError
            If it wants to know what the champion is not told.
        """
        decider = self._decider
        if decider is None or decider.catalogue is not champion.catalogue:
            assert self._release is not None  # noqa: S101 (asked before)
            decider = Decider(self._release, champion.catalogue)
        lacking = sorted({*decider.release.feature_names} - {*champion.release.feature_names})
        if lacking:
            raise ContractError(f"a shadow sees what the champion is decided by, which lacks {', '.join(lacking)}")
        if decider.release.offer_ids != champion.release.offer_ids:
            raise ContractError("a shadow has to have the champion's offers; train it on the same table of offers")
        self._decider = decider
        return decider

    def _refuse(self, release_id: str, error: Exception) -> None:
        self._release, self.refused = None, Refused(release_id, reason_of(error))
        logger.error("release %s is no shadow: %s", release_id, self.refused.reason)

    def _tell(self) -> None:
        if self._meters:
            self._meters.shadow(self.release_id)

    def _count(self, result: str, decisions: int) -> None:
        if self._meters:
            self._meters.shadowed(result, decisions)


def _standing(shown: Shown) -> set[str]:
    """Name the decisions that are stored; those that the log refused, or that a racing request had taken, are not."""
    found = set[str]()
    for served in shown.served:
        if served.stored and not served.stored.exception(STORED_SECONDS) and served.stored.result() == served.answer:
            found.update(one.decision_id for one in served.decisions)
    return found


def _seen_by(shadow: Decider, champion: Decider, members: Members) -> Members:
    """Lay out what is known of members as the shadow wants it; what stood in for the champion's numbers is left out."""
    places = [champion.release.feature_names.index(name) for name in shadow.release.feature_names]
    facts = {name: members.facts[name] for name in shadow.facts}
    return replace(members, X=members.X[:, places], facts=facts, stand_in=None)


def _rows(shown: Shown, shadow: Decider, worth: Worth, choice: Choice, seconds: float) -> list[ShadowRow]:
    before, own = shown.choice, shown.members.own
    numbers = {
        "shadow_propensity": choice.probabilities[np.arange(len(own)), before.chosen],
        "churn_probability": shown.worth.churn_probability,
        "shadow_churn_probability": worth.churn_probability,
        "net_value": _policy_values(before.probabilities, before.net_value),
        "net_value_by_shadow": _policy_values(before.probabilities, choice.net_value),
        "shadow_net_value": _policy_values(choice.probabilities, choice.net_value),
        "shadow_net_value_by_champion": _policy_values(choice.probabilities, before.net_value),
    }
    columns = {name: column.tolist() for name, column in numbers.items()}
    return [
        ShadowRow(
            decision_id=decision.decision_id,
            member_id=decision.member_id,
            decided_at=decision.decided_at,
            campaign_id=decision.campaign_id,
            champion=decision.release_id,
            shadow=shadow.release.release_id,
            treatment=decision.treatment,
            shadow_treatment=shadow.treatments[int(choice.chosen[place])],
            propensity=decision.propensity,
            seconds=shown.seconds,
            shadow_seconds=seconds,
            **{name: column[place] for name, column in columns.items()},
        )
        for place, (decision, fine) in enumerate(zip(shown.decisions, own.tolist(), strict=True))
        if fine
    ]


def _policy_values(probabilities: Floats, net_value: Floats) -> Floats:
    """Expect what a policy earns of each member, `(n_members,)`: control earns nothing and costs nothing."""
    return np.asarray((probabilities[:, 1:] * net_value).sum(axis=1))
