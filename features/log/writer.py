"""The decision log's one writer.

A decision is durable before it is answered. One thread writes; what waits while it flushes the disk shares the next
transaction (group commit). SQLite before 3.51.3 can corrupt a write-ahead log that two connections write to, so a lock
file keeps a second writer out; readers open the file read-only and never wait for the writer. The contact that a
decision makes and what it counts against stock and budget are stored with it.
"""

import contextlib
import fcntl
import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from datetime import datetime, timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, Self

from features.errors import ConflictError, ContractError, HoldfastError, StaleError, UnwrittenError
from features.log import changes, erasing
from features.log.book import Book, Contact, Seen, Spending, contacts_of, spending_of
from features.log.entries import (
    ANSWER,
    BATCH,
    DECISION,
    OUTCOME,
    PART,
    PRICE,
    Answer,
    Batch,
    Decision,
    Outcome,
    Part,
)
from features.log.erasing import Erasure, Renewed
from features.log.leaving import Leaving, let_go
from features.log.reading import find
from features.log.register import Marks, Preference, Register, store_preference
from features.log.rows import decode, encode, insert, microseconds, open_to_read, open_to_write, select, text, to_json
from features.log.standing import OF_MEMBERS

GROUP: Final = 256  # entries that share one flush of the disk at most

KEPT: Final = timedelta(days=30)  # so long at least an Idempotency-Key gives the same answer
_LET_GO: Final = """
DELETE FROM answers WHERE rowid IN (SELECT rowid FROM answers WHERE created_at < ? ORDER BY created_at LIMIT 4)
"""  # a few with each answer that comes: no pause, and none is left over
_ADD: Final = """
INSERT INTO spending (campaign_id, offer_id, contacts, spent) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET contacts = contacts + excluded.contacts, spent = spent + excluded.spent
"""

_Write = Callable[[sqlite3.Connection], Any]
_Job = tuple[_Write, "Future[Any]"]


class TakenError(ContractError):
    """Say that another process writes the log."""


class DecisionLog:
    """Write decisions, answers and outcomes; a future is done once its entry is on the disk.

    From asyncio, await `asyncio.wrap_future(log.append(...))`; elsewhere, call `.result()`.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock_file = path.with_name(f"{path.name}.lock").open("w")
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._db = open_to_write(path)
            self._reader = open_to_read(path)
        except BlockingIOError as error:
            self._lock_file.close()
            raise TakenError(
                f"{path} has a writer already that lets nobody in; stop that `holdfast serve` first"
            ) from error
        except HoldfastError:
            self._lock_file.close()
            raise
        self._folder = path.parent
        self._reading = threading.Lock()
        self._book = Book(_spending(self._reader))
        self._marks = Marks(path)
        self._register = Register(self._reader, self._marks)
        self._wiping = False  # what was erased still stands in the write-ahead log
        self._entering = threading.Lock()
        self._closed = False
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="decision-log", daemon=True)
        self._writer.start()

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
        return self._jobs.qsize()

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

        def write(db: sqlite3.Connection) -> Answer | None:
            if answer and (standing := self._answer(db, answer.idempotency_key)):
                return standing
            db.executemany(insert("decisions", DECISION), rows)
            _count(db, contacts, spending)
            if answer:
                db.execute(insert("answers", (*ANSWER, "created_at")), (*encode(ANSWER, vars(answer)), text(now)))
                db.execute(_LET_GO, (text(now - KEPT),))
            return answer

        return self._enter(write, contacts, spending, seen=seen, stores=lambda standing: standing is answer)

    def record(self, outcome: Outcome, *, now: datetime) -> "Future[bool]":
        """Store an outcome, known decision or not; the future is True if it is new and False if it came before.

        Raises
        ------
        ConflictError
            From the future, if the id came before with other content.
        """
        row = encode(OUTCOME, vars(outcome))

        def write(db: sqlite3.Connection) -> bool:
            if any(self._register.erased([outcome.decision_id or "", outcome.contact_id or ""])):
                return False
            known = db.execute(select("outcomes", OUTCOME, where="outcome_id = ?"), row[:1]).fetchone()
            if known is None:
                db.execute(insert("outcomes", (*OUTCOME, "received_at")), (*row, text(now)))
            elif known != row:
                raise ConflictError("this outcome_id stands for another outcome; give each outcome an id of its own")
            return known is None

        return self._submit(write)

    def begin_batch(self, batch: Batch) -> "Future[bool]":
        """Store what a batch is; the future is False if it had begun before."""
        row = encode(BATCH, vars(batch))  # here: an error in the writer's thread would be nobody's

        def write(db: sqlite3.Connection) -> bool:
            added = db.execute(_or_ignore("batches", BATCH), row)
            return added.rowcount == 1

        return self._submit(write)

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
        anew, or when the log is closed.

        Raises
        ------
        StaleError
            From the future, if what they rest on has changed; nothing is counted.
        """
        counted: Future[int] = Future()
        try:
            counted.set_result(self._book.reserve((batch_id, part), place, contacts, spending, seen))
        except StaleError as error:
            return _refused(error)
        return counted

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
            contacts, spending = self._book.claim((part.batch_id, part.part), reservations)
        except StaleError as error:
            return _refused(error)

        def write(db: sqlite3.Connection) -> bool:
            added = db.execute(_or_ignore("parts", PART), encode(PART, vars(part)))
            if new := added.rowcount == 1:
                _count(db, contacts, spending)
            return new

        return self._settling(self._submit(write), contacts, spending, stores=bool)

    def keep_catalogue(self, catalogue_id: str, body: Mapping[str, Any], *, now: datetime) -> "Future[None]":
        """Store a catalogue under its id, once, so that what was decided by it can be replayed."""
        row = (catalogue_id, to_json(body), text(now))

        def write(db: sqlite3.Connection) -> None:
            db.execute(_or_ignore("catalogues", ("catalogue_id", "body", "created_at")), row)

        return self._submit(write)

    def set_price(
        self, campaign_id: str, base_price: float, stock_prices: Mapping[str, float], *, now: datetime
    ) -> "Future[None]":
        """Store what a campaign's budget is worth at the margin when it is spent as planned, and its offers' stock."""
        row = (campaign_id, base_price, to_json(dict(stock_prices)), text(now))

        def write(db: sqlite3.Connection) -> None:
            db.execute(insert("prices", PRICE).replace("INSERT", "INSERT OR REPLACE", 1), row)

        return self._submit(write)

    def price(self, campaign_id: str) -> tuple[float, dict[str, float]]:
        """Give a campaign's base price and its prices of stock by offer; 0 and none where nobody set them."""
        with self._reading:
            row = self._reader.execute(select("prices", PRICE, where="campaign_id = ?"), (campaign_id,)).fetchone()
        if row is None:
            return 0.0, {}
        found = decode(PRICE, row)
        return found["base_price"], found["stock_prices"]

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
        stored = self._submit(lambda db: store_preference(db, preference, now=now))
        stored.add_done_callback(lambda done: None if _failed(done) else self._register.prefer(preference))
        return stored

    def opted_out(self, member_ids: Sequence[str]) -> list[bool]:
        """Say who wants no personalisation, or was erased."""
        return self._register.opted_out(member_ids)

    def erased(self, names: Sequence[str]) -> list[bool]:
        """Say which ids, of members, decisions or contacts, have a tombstone."""
        return self._register.erased(names)

    def begin_erasure(self, erasure: Erasure, *, now: datetime) -> "Future[None]":
        """Set tombstones, and keep whom to erase until it is done."""
        stored = self._submit(lambda db: erasing.begin(db, self._marks, erasure, now=now))
        stored.add_done_callback(lambda done: None if _failed(done) else self._register.bury(erasure.member_ids))
        return stored

    def erase(self, erasure: Erasure, *, now: datetime) -> "Future[dict[str, int]]":
        """Erase members from the log, but for its batches; the future says what of each table that was."""
        return self._wipe(lambda db: erasing.erase(db, self._marks, erasure, now=now))

    def renew_part(self, renewed: Renewed, *, now: datetime) -> "Future[None]":
        """Vouch for a part of a batch without the erased."""
        return self._wipe(lambda db: erasing.renew_part(db, self._marks, renewed, now=now))

    def end_erasure(self, receipt_id: str, body: Mapping[str, Any], *, now: datetime) -> "Future[None]":
        """Keep the receipt, and forget whom it is about."""
        return self._wipe(lambda db: erasing.end(db, receipt_id, body, now=now))

    def let_go(self, leaving: Leaving, *, now: datetime) -> "Future[dict[str, int]]":
        """Let go of what has stood for long enough; the future says how much of it was there still."""
        return self._wipe(lambda db: let_go(db, self._marks, leaving, now=now))

    def pending_erasures(self) -> list[Erasure]:
        """Give the erasures that began and did not end."""
        with self._reading:
            return erasing.pending(self._reader)

    def follow(self) -> "Future[bool]":
        """Note which rows change from now on, for another place that has to have them; False if that is so already."""
        return self._submit(changes.follow)

    def drained(self, number: int) -> "Future[None]":
        """Drop the notes up to a number: the other place has these rows."""
        return self._submit(lambda db: changes.forget(db, number))

    def close(self) -> None:
        """Write what waits, then let go of the file."""
        with self._entering:
            if self._closed:
                return
            self._closed = True
            self._jobs.put(None)
        self._writer.join()
        self._reader.close()
        self._db.close()
        self._lock_file.close()

    def _enter(
        self,
        write: _Write,
        contacts: Sequence[Contact],
        spending: Spending,
        *,
        seen: Seen | None,
        stores: Callable[[Any], bool],
    ) -> "Future[Any]":
        """Count contacts and spending from now on, and no longer if the write does not store them."""
        try:
            self._book.enter(contacts, spending, seen)
        except StaleError as error:
            return _refused(error)
        try:
            return self._settling(self._submit(write), contacts, spending, stores=stores)
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
        stored.add_done_callback(
            lambda done: self._book.settle(contacts, spending, stored=not _failed(done) and stores(done.result()))
        )
        return stored

    def _submit(self, write: _Write) -> "Future[Any]":
        stored: Future[Any] = Future()
        with self._entering:
            if self._closed:
                raise UnwrittenError("the decision log is closed; nothing was stored")
            self._jobs.put((write, stored))
        return stored

    def _wipe(self, write: _Write) -> "Future[Any]":
        """Hand in what removes rows: the write-ahead log, where they still stand, is emptied before it is done."""

        def wipe(db: sqlite3.Connection) -> Any:  # noqa: ANN401 (what the entry's future gives)
            self._wiping = True
            result = write(db)
            self._register.reload(db)
            return result

        return self._submit(wipe)

    def _answer(self, db: sqlite3.Connection, idempotency_key: str) -> Answer | None:
        """Find what stands under a key; of an answer about somebody erased only the mark of its key is kept."""
        found = _answer(db, idempotency_key)
        if found is None and self._register.buried:
            found = _answer(db, self._marks.of(idempotency_key))
        return found

    def _write(self) -> None:
        running = True
        while running:
            group = [self._jobs.get()]
            with contextlib.suppress(Empty):
                while group[-1] is not None and len(group) < GROUP:
                    group.append(self._jobs.get_nowait())
            running = group[-1] is not None
            self._commit([job for job in group if job is not None])

    def _commit(self, group: list[_Job]) -> None:
        """Write a group in one transaction, then acknowledge; an entry that is refused leaves the others alone."""
        group = [job for job in group if job[1].set_running_or_notify_cancel()]
        try:
            self._db.execute("BEGIN IMMEDIATE")
            results = [_attempt(self._db, write) for write, _ in group]
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            results = [UnwrittenError(f"the decision log did not take an entry ({error}); send it again")] * len(group)
        if self._wiping:
            with contextlib.suppress(sqlite3.Error):  # somebody reads what is to go: after the next group
                self._wiping = bool(self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
        for (_, stored), result in zip(group, results, strict=True):
            if isinstance(result, Exception):
                stored.set_exception(result)
            else:
                stored.set_result(result)


def _spending(db: sqlite3.Connection) -> Spending:
    rows = db.execute("SELECT campaign_id, offer_id, contacts, spent FROM spending").fetchall()
    return {(campaign_id, offer_id): (contacts, spent) for campaign_id, offer_id, contacts, spent in rows}


def _count(db: sqlite3.Connection, contacts: Iterable[Contact], spending: Spending) -> None:
    """Store contacts, and add to the running totals."""
    db.executemany(insert("contacts", Contact._fields), contacts)
    db.executemany(_ADD, [(*key, *totals) for key, totals in spending.items()])


def _refused(error: StaleError) -> "Future[Any]":
    refused: Future[Any] = Future()
    refused.set_exception(error)
    return refused


def _failed(done: "Future[Any]") -> bool:
    return done.cancelled() or done.exception() is not None


def _attempt(db: sqlite3.Connection, write: _Write) -> Any:  # noqa: ANN401 (what the entry's future gives)
    db.execute("SAVEPOINT entry")
    try:
        result = write(db)
    except Exception as error:
        if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError):
            raise  # the disk's, not this entry's
        db.execute("ROLLBACK TO entry")
        result = error
    db.execute("RELEASE entry")
    return result


def _answer(db: sqlite3.Connection, idempotency_key: str) -> Answer | None:
    row = db.execute(select("answers", ANSWER, where="idempotency_key = ?"), (idempotency_key,)).fetchone()
    return Answer(*row) if row else None


def _or_ignore(table: str, columns: tuple[str, ...]) -> str:
    return insert(table, columns).replace("INSERT", "INSERT OR IGNORE", 1)
