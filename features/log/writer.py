"""The decision log's one writer.

A decision is durable before it is answered. The contact that it makes and what it counts against stock and budget are
stored with it, and count from the moment it is handed in.
"""

import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

from features.errors import HoldfastError, StaleError, UnwrittenError
from features.log import changes, elsewhere, erasing, storing
from features.log.agreement import Agreement
from features.log.book import Book, Contact, Entered, Seen, Spending, contacts_of, limited, spending_of
from features.log.commits import AgreedError, Commits, Write, lock
from features.log.elsewhere import Heard
from features.log.entries import DECISION, Answer, Batch, Decision, Outcome, Part
from features.log.erasing import Eraser, Erasure, Renewed, Traces
from features.log.leaving import Leaving, let_go
from features.log.ledger import Terms
from features.log.reading import find
from features.log.register import Marks, Preference, Register, store_preference
from features.log.rows import encode, microseconds, open_to_read, open_to_write, to_json
from features.log.standing import OF_MEMBERS

Erase = Callable[[sqlite3.Connection, Eraser], Any]


class DecisionLog:
    """Write decisions, answers and outcomes; a future is done once its entry is on the disk.

    From asyncio, await `asyncio.wrap_future(log.append(...))`; elsewhere, call `.result()`.

    Parameters
    ----------
    terms : where other instances that decide as one with this one are met; none: it is the only one

    Raises
    ------
    ContractError
        If another process has the log, or the others are not of its kind.
    """

    def __init__(self, path: Path, terms: Terms | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = lock(path)
        try:
            self._db = open_to_write(path)
            self._reader = open_to_read(path)
        except HoldfastError:
            self._lock.close()
            raise
        self._folder = path.parent
        self._reading = threading.Lock()
        self._marks = Marks(path)
        self._agreement = self._join(terms) if terms else None
        self._book = Book(storing.spending_so_far(self._reader), shared=terms is not None)
        self._book.hear((), elsewhere.totals_elsewhere(self._reader))
        self._register = Register(self._reader, self._marks)
        self._commits = Commits(self._db, path, self._agreement)
        if self._agreement:
            self._agreement.start(self._hear, partial(self._commits.submit, _nothing))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def keeps(self) -> bool:
        """Yes: this is the writer."""
        return True

    @property
    def backlog(self) -> int:
        """Entries that wait for the disk."""
        return self._commits.backlog

    @property
    def agreement(self) -> Agreement | None:
        """How it stands with other instances; none: there are none."""
        return self._agreement

    @property
    def undrained(self) -> int:
        """Nothing: this writes one file, and knows of no other place."""
        return 0

    def append(
        self,
        decisions: Sequence[Decision],
        *,
        now: datetime,
        answer: Answer | None = None,
        seen: Seen | None = None,
    ) -> "Future[Answer | None]":
        """Store decisions and the answer they were given in one transaction.

        The future gives the answer that stands under the key. If one stood already, nothing is stored and that one
        comes back: of two racing requests with one key, one decides and both answer the same.

        Raises
        ------
        StaleError
            From the future, if what the decisions rest on has changed; nothing is stored.
        """
        rows = [encode(DECISION, vars(decision)) for decision in decisions]
        contacts, spending = contacts_of(decisions), spending_of(decisions)

        def write(db: sqlite3.Connection, entered: Entered) -> Answer | None:
            if answer and (standing := self._answer(db, answer.idempotency_key)):
                return standing
            if self._agreement:
                self._consented(decisions)
                self._confirm([(contacts, entered, seen)])
            storing.store_decisions(db, rows, contacts, spending)
            if answer:
                storing.store_answer(db, answer, now=now)
            return answer

        return self._enter(write, contacts, spending, seen=seen, stores=lambda standing: standing is answer)

    def record(self, outcome: Outcome, *, now: datetime) -> "Future[bool]":
        """Store an outcome, known decision or not; the future is True if it is new and False if it came before.

        Raises
        ------
        ConflictError
            From the future, if the id came before with other content.
        """

        def write(db: sqlite3.Connection) -> bool:
            if any(self._register.erased([outcome.decision_id or "", outcome.contact_id or ""])):
                return False
            return storing.store_outcome(db, outcome, now=now)

        return self._commits.submit(write)

    def begin_batch(self, batch: Batch) -> "Future[bool]":
        """Store what a batch is; the future is False if it had begun before."""
        return self._commits.submit(lambda db: storing.store_batch(db, batch))

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
        """Count the contacts that rows of a part make, from a place on, before the part itself is stored.

        The future gives the log's moment after it. What is reserved is let go of with `release`, when the part begins
        anew, or when the log is closed. Other instances know of it when the part is stored.

        Raises
        ------
        StaleError
            From the future, if what they rest on has changed; nothing is counted.
        UnwrittenError
            If others can't be asked what is left.
        """
        if seen is not None and self.apart():
            raise UnwrittenError("the other instances can't be asked what is left; decide the batch again in a moment")
        counted: Future[int] = Future()
        try:
            counted.set_result(self._book.reserve((batch_id, part), place, contacts, spending, seen))
        except StaleError as error:
            return _refused(error)
        return counted

    def apart(self) -> bool:
        """Say whether what others commit is not known, so that nothing that is limited may be promised."""
        return self._agreement is not None and self._agreement.apart

    def release(self, batch_id: str) -> None:
        """Let go of what is reserved for a batch."""
        self._book.release_all(batch_id)

    def append_part(self, part: Part, reservations: int) -> "Future[bool]":
        """Store that a part of a batch was decided, with the contacts reserved for it, in one transaction.

        The future is False if the part stood already; then nothing is stored.

        Raises
        ------
        StaleError
            From the future, if there are not so many reservations for it: another process may have kept the log then.
        """
        try:
            claimed = self._book.claim((part.batch_id, part.part), reservations)
        except StaleError as error:
            return _refused(error)

        def write(db: sqlite3.Connection) -> bool:
            if self._agreement:
                self._confirm([(one.contacts, one.entered, one.seen) for one in claimed.pieces])
            return storing.store_part(db, part, claimed.contacts, claimed.spending)

        return self._settling(self._commits.submit(write), claimed.contacts, claimed.spending, stores=bool)

    def keep_catalogue(self, catalogue_id: str, body: Mapping[str, Any], *, now: datetime) -> "Future[None]":
        """Store a catalogue under its id, once, so that what was decided by it can be replayed."""
        return self._commits.submit(lambda db: storing.store_catalogue(db, catalogue_id, body, now=now))

    def set_price(
        self, campaign_id: str, base_price: float, stock_prices: Mapping[str, float], *, now: datetime
    ) -> "Future[None]":
        """Store what a campaign's budget is worth at the margin when it is spent as planned, and its offers' stock."""
        return self._commits.submit(lambda db: storing.store_price(db, campaign_id, base_price, stock_prices, now=now))

    def price(self, campaign_id: str) -> tuple[float, dict[str, float]]:
        """Give a campaign's base price and its prices of stock by offer; 0 and none where nobody set them."""
        with self._reading:
            return storing.find_price(self._reader, campaign_id)

    def moment(self) -> int:
        """Count what was handed in so far; what is read after it is at least as new."""
        return self._book.moment

    def touched(self, member_ids: Sequence[str], *, since: int) -> list[str]:
        """Say which members were contacted after a moment, or may have been."""
        return self._book.touched(member_ids, since)

    def contacts(self, member_ids: Sequence[str], *, since: datetime) -> list[Contact]:
        """Give the contacts of members since a moment, those that wait for the disk among them; some come twice."""
        waiting = self._book.waiting(member_ids)  # first: what reaches the disk in between is found there
        with self._reading:
            rows = self._reader.execute(OF_MEMBERS, (to_json(list(member_ids)), microseconds(since))).fetchall()
        return [*waiting, *(Contact(*row) for row in rows)]

    def contacted(self, offer_ids: Sequence[str]) -> list[int]:
        """Count the contacts of each offer, over all campaigns."""
        return self._book.contacts(offer_ids)

    def spent(self, campaign_id: str) -> int:
        """Sum the expected costs of a campaign's contacts, minor units."""
        return self._book.spent(campaign_id)

    def answer(self, idempotency_key: str) -> Answer | None:
        """Look up what was answered under a key."""
        with self._reading:
            return self._answer(self._reader, idempotency_key)

    def decision(self, decision_id: str) -> dict[str, Any] | None:
        """Look up one decision."""
        with self._reading:
            return find(self._reader, self._folder, decision_id)

    def prefer(self, preference: Preference, *, now: datetime) -> "Future[bool]":
        """Store what a member wants; it counts for everybody who asks from when the future is done."""
        return self._commits.submit(
            lambda db: store_preference(db, preference, now=now), then=partial(self._register.prefer, preference)
        )

    def opted_out(self, member_ids: Sequence[str]) -> list[bool]:
        """Say who wants no personalisation, or was erased."""
        return self._register.opted_out(member_ids)

    def erased(self, names: Sequence[str]) -> list[bool]:
        """Say which ids, of members, decisions or contacts, have a tombstone."""
        return self._register.erased(names)

    def begin_erasure(self, erasure: Erasure, *, now: datetime) -> "Future[None]":
        """Set tombstones, and keep whom to erase until it is done."""
        return self._commits.submit(
            self._erasing(lambda _, eraser: eraser.begin(erasure), now),
            then=partial(self._register.forget, erasure.member_ids),
        )

    def erase(self, erasure: Erasure, traces: Traces, *, now: datetime) -> "Future[dict[str, int]]":
        """Erase members from the log, but for its batches; the future says what of each table that was.

        Of their decisions `erasing.PIECE` go at a time: to be repeated until there are fewer.
        """
        return self._wipe(lambda _, eraser: eraser.erase(erasure, traces), now)

    def renew_part(self, renewed: Renewed, *, now: datetime) -> "Future[None]":
        """Vouch for a part of a batch without the erased."""
        return self._wipe(lambda _, eraser: eraser.renew_part(renewed), now)

    def end_erasure(self, receipt_id: str, body: Mapping[str, Any], *, now: datetime) -> "Future[dict[str, Any]]":
        """Keep the receipt, and forget whom it is about; the future gives it as it is kept."""
        return self._wipe(lambda _, eraser: eraser.end(receipt_id, body), now)

    def let_go(self, leaving: Leaving, *, now: datetime) -> "Future[dict[str, int]]":
        """Let go of what has stood for long enough; the future says how much of it was there still."""
        return self._wipe(lambda db, eraser: let_go(db, eraser, leaving), now)

    def overwrite_gaps(self) -> "Future[int]":
        """Overwrite what SQLite keeps of rows that are gone; the future says in how many pages. See `features.gaps`."""
        return self._commits.overwrite_gaps()

    def pending_erasures(self) -> list[Erasure]:
        """Give the erasures that began and did not end."""
        with self._reading:
            return erasing.pending(self._reader)

    def follow(self) -> "Future[bool]":
        """Note which rows change from now on, for another place that has to have them; False if that is so already."""
        return self._commits.submit(changes.follow)

    def drained(self, number: int) -> "Future[None]":
        """Drop the notes up to a number: the other place has these rows."""
        return self._commits.submit(lambda db: changes.forget(db, number))

    def close(self) -> None:
        """Write what waits, then let go of the file."""
        self._commits.close()
        if self._agreement:
            self._agreement.close()
        self._reader.close()
        self._db.close()
        self._lock.close()

    def _enter(
        self,
        write: Callable[..., Any],
        contacts: Sequence[Contact],
        spending: Spending,
        *,
        seen: Seen | None,
        stores: Callable[[Any], bool],
    ) -> "Future[Any]":
        """Count contacts and spending from now on, and no longer if the write does not store them."""
        try:
            entered = self._book.enter(contacts, spending, seen)
        except StaleError as error:
            return _refused(error)
        try:
            stored = self._commits.submit(partial(write, entered=entered))
            return self._settling(stored, contacts, spending, stores=stores)
        except UnwrittenError:
            self._book.settle(contacts, spending, stored=False)
            raise

    def _settling(
        self,
        stored: "Future[Any]",
        contacts: Sequence[Contact],
        spending: Spending,
        *,
        stores: Callable[[Any], bool],
    ) -> "Future[Any]":
        def settle(done: "Future[Any]") -> None:
            stands = isinstance(done.exception(), AgreedError) if _failed(done) else stores(done.result())
            self._book.settle(contacts, spending, stored=stands)

        stored.add_done_callback(settle)
        return stored

    def _join(self, terms: Terms) -> Agreement:
        try:
            agreement = Agreement(terms, self._db, self._marks)
            agreement.join()
        except HoldfastError:
            self._reader.close()
            self._db.close()
            self._lock.close()
            raise
        return agreement

    def _hear(self, heard: Heard) -> None:
        """Count what others committed, before any entry of this log is held against it."""
        self._book.hear(heard.contacts, heard.spending)
        self._register.hear(heard.preferences, heard.tombstones)

    def _consented(self, decisions: Sequence[Decision]) -> None:
        """Refuse a decision on who has opted out elsewhere since members were looked up."""
        out = self._register.opted_out([one.member_id for one in decisions])
        if any(silent and one.outcome != "opt_out" for one, silent in zip(decisions, out, strict=True)):
            raise StaleError("a member opted out meanwhile; decide again")

    def _confirm(self, entries: Sequence[tuple[Sequence[Contact], Entered, Seen | None]]) -> None:
        """Refuse what no longer stands beside what others committed, and what can't be held against it."""
        apart = self.apart()
        for contacts, entered, seen in entries:
            if seen is None:
                continue
            if apart and limited(contacts, seen):
                raise StaleError("the other instances can't be asked what is left; decide again")
            self._book.confirm(entered, seen)

    def _wipe(self, erase: Erase, now: datetime) -> "Future[Any]":
        return self._commits.wipe(self._erasing(erase, now))

    def _erasing(self, erase: Erase, now: datetime) -> Write:
        def write(db: sqlite3.Connection) -> Any:  # noqa: ANN401 (what the entry's future gives)
            eraser = Eraser(db, self._marks, now)
            result = erase(db, eraser)
            self._register.bury(eraser.buried)
            return result

        return write

    def _answer(self, db: sqlite3.Connection, idempotency_key: str) -> Answer | None:
        """Find what stands under a key; of an answer about somebody erased only the mark of its key is kept."""
        found = storing.find_answer(db, idempotency_key)
        if found is None and self._register.buried:
            found = storing.find_answer(db, self._marks.of(idempotency_key))
        return found


def _nothing(_: sqlite3.Connection) -> None:
    """Write nothing: there is a turn all the same."""


def _refused(error: StaleError) -> "Future[Any]":
    refused: Future[Any] = Future()
    refused.set_exception(error)
    return refused


def _failed(done: "Future[Any]") -> bool:
    return done.cancelled() or done.exception() is not None
