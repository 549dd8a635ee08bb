"""Group commit: one thread writes, and what waits while it flushes the disk shares the next transaction.

SQLite before 3.51.3 can corrupt a write-ahead log that two connections write to, so a lock file keeps a second writer
out; readers open the file read-only and never wait for the writer.
"""

import contextlib
import fcntl
import logging
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final, TextIO

from features.errors import ContractError, UnwrittenError
from features.gaps import Gaps
from features.log.agreement import Agreement, PartedError

logger: Final = logging.getLogger("holdfast")

GROUP: Final = 256  # entries that share one flush of the disk at most
READER_MS: Final = 100  # that a reader may keep the writer from emptying the write-ahead log
BUSY_MS: Final = 5_000  # for everything else, as the library has it
TRIES: Final = 50  # of READER_MS each, to find nobody reading

Write = Callable[[sqlite3.Connection], Any]
_Job = tuple[Write, Callable[[], None] | None, "Future[Any]"]


class TakenError(ContractError):
    """Say that another process writes the log."""


class AgreedError(UnwrittenError):
    """Say that the disk did not take what stands in the ledger: it counts, and comes back from there."""


def lock(path: Path) -> TextIO:
    """Keep every other writer of a log out, until the file given is closed.

    Raises
    ------
    TakenError
        If there is one.
    """
    file = path.with_name(f"{path.name}.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise TakenError(
            f"{path} has a writer already that lets nobody in; stop that `holdfast serve` first"
        ) from error
    return file


class Commits:
    """Write entries in groups; an entry's future is done once it is on the disk.

    Parameters
    ----------
    agreement : with other instances, each of which has to know of a group before it is acknowledged
    """

    def __init__(self, db: sqlite3.Connection, path: Path, agreement: Agreement | None = None) -> None:
        self._db, self._path, self._agreement = db, path, agreement
        self._wiping = False  # what was erased still stands in the write-ahead log
        self._heard = False  # of erasures elsewhere, after which gaps still have to be overwritten
        self._entering = threading.Lock()
        self._closed = False
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="decision-log", daemon=True)
        self._writer.start()

    @property
    def backlog(self) -> int:
        """Entries that wait for the disk."""
        return self._jobs.qsize()

    def submit(self, write: Write, then: Callable[[], None] | None = None) -> "Future[Any]":
        """Hand in an entry; its future gives what the write gives, or its error.

        Parameters
        ----------
        then : called once the entry is on the disk, and before anybody is told

        Raises
        ------
        UnwrittenError
            If none is taken any more.
        """
        stored: Future[Any] = Future()
        with self._entering:
            if self._closed:
                raise UnwrittenError("the decision log is closed; nothing was stored")
            self._jobs.put((write, then, stored))
        return stored

    def wipe(self, write: Write, then: Callable[[], None] | None = None) -> "Future[Any]":
        """Hand in what removes rows: the write-ahead log, where they still stand, is emptied before it is done."""

        def wipe(db: sqlite3.Connection) -> Any:  # noqa: ANN401 (what the entry's future gives)
            self._wiping = True
            return write(db)

        return self.submit(wipe, then)

    def overwrite_gaps(self) -> "Future[int]":
        """Overwrite what the file's pages still hold of rows that are gone; the future says in how many of them.

        Entries are written while the pages are looked through, and wait while the gaps are overwritten.
        """
        done: Future[int] = Future()

        def work() -> None:
            try:
                self._alone(lambda: None)  # what is gone is so from the file, and not only from the log before it
                with Gaps(self._path) as gaps:
                    self._alone(gaps.overwrite)
                    done.set_result(gaps.found)
            except BaseException as error:  # noqa: BLE001 (somebody waits)
                done.set_exception(error)

        threading.Thread(target=work, name="log-gaps", daemon=True).start()
        return done

    def close(self) -> None:
        """Take nothing more, and write what waits."""
        with self._entering:
            if not self._closed:
                self._jobs.put(None)
            self._closed = True
        self._writer.join()

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
        group = [job for job in group if job[-1].set_running_or_notify_cancel()]
        try:
            results = self._written(group)
        except PartedError:
            results = self._written(group)
        if self._wiping:
            self._empty()
        for (_, then, stored), result in zip(group, results, strict=True):
            if isinstance(result, Exception):
                stored.set_exception(result)
                continue
            if then:
                then()
            stored.set_result(result)
        if self._heard and not self._wiping:
            self._heard = False
            self.overwrite_gaps().add_done_callback(_warn)

    def _alone(self, work: Callable[[], None]) -> None:
        """Have something done to the file: nobody writes, the write-ahead log is empty, no page is remembered after."""
        for _ in range(TRIES):
            done: Future[bool] = Future()

            def then(done: "Future[bool]" = done) -> None:
                try:
                    if alone := not self._wiping:
                        work()
                        self._db.execute("PRAGMA shrink_memory")
                    done.set_result(alone)
                except BaseException as error:  # noqa: BLE001 (the writer goes on)
                    done.set_exception(error)

            self.wipe(lambda _: None, then).result()
            if done.result():
                return
        raise UnwrittenError(f"{self._path} is being read all the time; what is gone is still in gaps of its pages")

    def _empty(self) -> None:
        """Empty the write-ahead log; where somebody reads what is to go, after the next group.

        Whoever reads may have been stopped meanwhile, and every entry would wait for it.
        """
        with contextlib.suppress(sqlite3.Error):
            self._db.execute(f"PRAGMA busy_timeout = {READER_MS}")
            try:
                self._wiping = bool(self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0])
            finally:
                self._db.execute(f"PRAGMA busy_timeout = {BUSY_MS}")

    def _written(self, group: list[_Job]) -> list[Any]:
        """Write a group, and give what came of each entry."""
        agreed = False
        try:
            self._db.execute("BEGIN IMMEDIATE")
            if self._agreement:
                self._heard |= self._agreement.begin()
                self._wiping |= self._heard
            results = [_attempt(self._db, write) for write, *_ in group]
            if self._agreement:
                agreed = self._agreement.end()
            self._db.execute("COMMIT")
        except (sqlite3.Error, PartedError) as error:
            with contextlib.suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            if isinstance(error, PartedError):
                raise
            if self._agreement:
                self._agreement.give_up()
            kind = AgreedError if agreed else UnwrittenError
            results = [kind(f"the decision log did not take an entry ({error}); send it again")] * len(group)
        return results


def _warn(done: "Future[int]") -> None:
    if error := done.exception():
        logger.warning("of who was erased elsewhere something is left until the next erasure: %s", error)


def _attempt(db: sqlite3.Connection, write: Write) -> Any:  # noqa: ANN401 (what the entry's future gives)
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
