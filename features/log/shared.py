"""The decision log as every process opens it: the first one writes it and keeps it for the others.

When the process that keeps it ends, the next call of another makes that one the keeper, or links it to whoever was
faster. What was handed to a keeper that said goodbye is handed to the next; what one had that was killed fails, and
whatever was acknowledged is stored.
"""

import contextlib
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from pathlib import Path
from typing import Any, Final, Self

from features.errors import ContractError, UnwrittenError
from features.log.agreement import Agreement
from features.log.book import Contact, Seen, Spending
from features.log.calls import CALLS
from features.log.commits import TakenError
from features.log.drain import Drain
from features.log.entries import Answer, Batch, Decision, Outcome, Part
from features.log.erasing import Erasure, Renewed, Traces
from features.log.keeper import Keeper, socket_of
from features.log.leaving import Leaving
from features.log.ledger import Terms
from features.log.link import Asked, Link, LostError
from features.log.reading import find
from features.log.register import Preference
from features.log.rows import open_to_read
from features.log.writer import DecisionLog

PATIENCE: Final = 10.0  # seconds that a keeper may take to begin or to end
AGAIN: Final = 0.02
KEEPERS: Final = 3  # that may die over one call
ANSWER_SECONDS: Final = 5.0  # that a keeper may take to look something up


class SharedLog:
    """Write decisions, answers and outcomes, in this process or through the one that keeps the log.

    Parameters
    ----------
    terms : where other instances are met, as `DecisionLog` has it

    Raises
    ------
    ContractError
        If another process has the log and lets nobody in, or other instances are not of its kind.
    """

    def __init__(self, path: Path, terms: Terms | None = None) -> None:
        self._path, self._terms = path, terms
        self._opening = threading.RLock()
        self._closed = False
        self._held: _Kept | Link = self._open()
        self._drain: Drain | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def keeps(self) -> bool:
        """Whether this process writes."""
        return isinstance(self._held, _Kept)

    @property
    def agreement(self) -> Agreement | None:
        """How it stands with other instances, where this process writes and there are some."""
        held = self._held
        return held.log.agreement if isinstance(held, _Kept) else None

    @property
    def backlog(self) -> int:
        """Entries that wait."""
        held = self._held
        return held.log.backlog if isinstance(held, _Kept) else held.backlog

    def append(
        self,
        decisions: Sequence[Decision],
        *,
        now: datetime,
        answer: Answer | None = None,
        seen: Seen | None = None,
    ) -> "Future[Answer | None]":
        """Store decisions and the answer they were given; the future gives the answer that stands."""
        return self._later("append", decisions=decisions, now=now, answer=answer, seen=seen)

    def record(self, outcome: Outcome, *, now: datetime) -> "Future[bool]":
        """Store an outcome; the future is True if it is new."""
        return self._later("record", outcome=outcome, now=now)

    def begin_batch(self, batch: Batch) -> "Future[bool]":
        """Store what a batch is; the future is False if it had begun before."""
        return self._later("begin_batch", batch=batch)

    def reserve(
        self,
        batch_id: str,
        part: int,
        place: int,
        contacts: Sequence[Contact],
        spending: Spending,
        *,
        seen: Seen | None = None,
    ) -> "Future[int]":
        """Count the contacts that rows of a part make, and give the moment after it."""
        return self._later(
            "reserve", batch_id=batch_id, part=part, place=place, contacts=contacts, spending=spending, seen=seen
        )

    def release(self, batch_id: str) -> None:
        """Let go of what is reserved for a batch."""
        self._now("release", batch_id=batch_id)

    def append_part(self, part: Part, reservations: int) -> "Future[bool]":
        """Store that a part of a batch was decided; the future is False if it stood already."""
        return self._later("append_part", part=part, reservations=reservations)

    def keep_catalogue(self, catalogue_id: str, body: Mapping[str, Any], *, now: datetime) -> "Future[None]":
        """Store a catalogue under its id."""
        return self._later("keep_catalogue", catalogue_id=catalogue_id, body=body, now=now)

    def set_price(
        self, campaign_id: str, base_price: float, stock_prices: Mapping[str, float], *, now: datetime
    ) -> "Future[None]":
        """Store a campaign's prices."""
        return self._later(
            "set_price", campaign_id=campaign_id, base_price=base_price, stock_prices=stock_prices, now=now
        )

    def price(self, campaign_id: str) -> tuple[float, dict[str, float]]:
        """Give a campaign's base price and its prices of stock by offer."""
        found: tuple[float, dict[str, float]] = self._now("price", campaign_id=campaign_id)
        return found

    def apart(self) -> bool:
        """Say whether what others commit is not known, so that nothing that is limited may be promised."""
        return self._terms is not None and bool(self._now("apart"))

    def moment(self) -> int:
        """Count what was handed in so far; what is read after it is at least as new."""
        return int(self._now("moment"))

    def touched(self, member_ids: Sequence[str], *, since: int) -> list[str]:
        """Say which members were contacted after a moment, or may have been."""
        found: list[str] = self._now("touched", member_ids=member_ids, since=since)
        return found

    def contacts(self, member_ids: Sequence[str], *, since: datetime) -> list[Contact]:
        """Give the contacts of members since a moment; some come twice."""
        found: list[Contact] = self._now("contacts", member_ids=member_ids, since=since)
        return found

    def contacted(self, offer_ids: Sequence[str]) -> list[int]:
        """Count the contacts of each offer, over all campaigns."""
        found: list[int] = self._now("contacted", offer_ids=offer_ids)
        return found

    def spent(self, campaign_id: str) -> int:
        """Sum the expected costs of a campaign's contacts, minor units."""
        return int(self._now("spent", campaign_id=campaign_id))

    def answer(self, idempotency_key: str) -> Answer | None:
        """Look up what was answered under a key."""
        found: Answer | None = self._now("answer", idempotency_key=idempotency_key)
        return found

    def prefer(self, preference: Preference, *, now: datetime) -> "Future[bool]":
        """Store what a member wants; the future is False if that stood already."""
        return self._later("prefer", preference=preference, now=now)

    def opted_out(self, member_ids: Sequence[str]) -> list[bool]:
        """Say who wants no personalisation, or was erased."""
        found: list[bool] = self._now("opted_out", member_ids=member_ids)
        return found

    def erased(self, names: Sequence[str]) -> list[bool]:
        """Say which ids have a tombstone."""
        found: list[bool] = self._now("erased", names=names)
        return found

    def begin_erasure(self, erasure: Erasure, *, now: datetime) -> "Future[None]":
        """Set tombstones, and keep whom to erase until it is done."""
        return self._later("begin_erasure", erasure=erasure, now=now)

    def erase(self, erasure: Erasure, traces: Traces, *, now: datetime) -> "Future[dict[str, int]]":
        """Erase members from the log, but for its batches, some decisions at a time."""
        return self._later("erase", erasure=erasure, traces=traces, now=now)

    def renew_part(self, renewed: Renewed, *, now: datetime) -> "Future[None]":
        """Vouch for a part of a batch without the erased."""
        return self._later("renew_part", renewed=renewed, now=now)

    def end_erasure(self, receipt_id: str, body: Mapping[str, Any], *, now: datetime) -> "Future[dict[str, Any]]":
        """Keep the receipt, and forget whom it is about; the future gives it as it is kept."""
        return self._later("end_erasure", receipt_id=receipt_id, body=body, now=now)

    def let_go(self, leaving: Leaving, *, now: datetime) -> "Future[dict[str, int]]":
        """Let go of what has stood for long enough; the future says how much of it was there still."""
        return self._later("let_go", leaving=leaving, now=now)

    def overwrite_gaps(self) -> "Future[int]":
        """Overwrite what the file still holds of rows that are gone; the future says in how many pages."""
        return self._later("overwrite_gaps")

    def pending_erasures(self) -> list[Erasure]:
        """Give the erasures that began and did not end."""
        found: list[Erasure] = self._now("pending_erasures")
        return found

    def follow(self) -> "Future[bool]":
        """Note which rows change from now on; False if that is so already."""
        return self._later("follow")

    def drained(self, number: int) -> "Future[None]":
        """Drop the notes up to a number."""
        return self._later("drained", number=number)

    def decision(self, decision_id: str) -> dict[str, Any] | None:
        """Look up one decision."""
        with contextlib.closing(open_to_read(self._path)) as db:
            return find(db, self._path.parent, decision_id)

    def drain_to(self, address: str) -> None:
        """Carry over to Postgres, in the background, what is stored."""
        self._drain = Drain(self, self._path, address)

    @property
    def undrained(self) -> int:
        """Changes that Postgres lacks, where there is one."""
        return 0 if self._drain is None else self._drain.backlog

    def close(self) -> None:
        """Let go, once all that was handed in is stored."""
        if self._drain:
            self._drain.close()
        with self._opening:
            self._closed = True
            held = self._held
        held.close()

    def _later(self, name: str, **values: Any) -> "Future[Any]":  # noqa: ANN401 (of any call)
        """Make a call whose answer comes in a future."""
        held = self._held
        if isinstance(held, _Kept):
            answer: Future[Any] = getattr(held.log, name)(**values)
            return answer
        asked = Asked(CALLS[name], values, Future())
        self._ask(held, asked)
        return asked.answer

    def _now(self, name: str, **values: Any) -> Any:  # noqa: ANN401 (of any call)
        """Make a call that is answered at once; made twice it does no more, so the next keeper is asked if one dies."""
        for _ in range(KEEPERS):
            held = self._held
            if isinstance(held, _Kept):
                return getattr(held.log, name)(**values)
            asked = Asked(CALLS[name], values, Future())
            self._ask(held, asked)
            try:
                return asked.answer.result(ANSWER_SECONDS)
            except TimeoutError as error:
                raise UnwrittenError("the process that keeps the decision log does not answer; try again") from error
            except LostError:
                continue
        raise LostError("one process after the other that kept the decision log has ended; try again")

    def _ask(self, held: "_Kept | Link", asked: Asked) -> None:
        """Ask whoever keeps the log now."""
        while isinstance(held, Link) and not held.ask(asked):
            held = self._next(held)
        if isinstance(held, _Kept):
            held.run(asked)

    def _next(self, ended: Link) -> "_Kept | Link":
        """Open the log anew, once, after a link to its keeper has ended."""
        with self._opening:
            if self._held is ended:
                if self._closed:
                    raise UnwrittenError("the decision log is closed; nothing was stored")
                self._held = self._open()
            return self._held

    def _open(self) -> "_Kept | Link":
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return _Kept(self._path, self._terms)
            except TakenError:
                with contextlib.suppress(ConnectionError, FileNotFoundError, TimeoutError):  # it begins, or ends
                    return Link(socket_of(self._path), self._hand_on)
                if time.monotonic() > until:
                    raise
            time.sleep(AGAIN)

    def _hand_on(self, ended: Link, left: list[Asked]) -> None:
        """Ask the next keeper what the last one said goodbye to."""
        for asked in left:
            try:
                self._ask(self._next(ended), asked)
            except (ContractError, UnwrittenError) as error:
                asked.answer.set_exception(error)


class _Kept:
    """Write the log, and let others in."""

    def __init__(self, path: Path, terms: Terms | None) -> None:
        self.log = DecisionLog(path, terms)
        try:
            self._keeper = Keeper(self.log, socket_of(path))
        except ContractError:
            self.log.close()
            raise

    def run(self, asked: Asked) -> None:
        """Make a call that was meant for another keeper."""
        try:
            result = getattr(self.log, asked.call.name)(**asked.values)
        except Exception as error:  # noqa: BLE001 (the caller's to handle)
            asked.answer.set_exception(error)
            return
        if isinstance(result, Future):
            result.add_done_callback(lambda done: _copy(done, asked.answer))
        else:
            asked.answer.set_result(result)

    def close(self) -> None:
        """Let nobody in any more, and write what waits."""
        self._keeper.close()
        self.log.close()


def _copy(done: "Future[Any]", answer: "Future[Any]") -> None:
    if (error := done.exception()) is not None:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())
