"""The intake: what members do now, kept durably and brought into their features before it is answered.

One thread does it, for everything that came while it was busy before, so that features are computed neither on the
event loop nor on the desk's thread. What it fails to bring into the features it makes up for by itself, every second.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from queue import Empty, SimpleQueue
from typing import Any, Final, Protocol

from features.errors import HoldfastError
from features.journal import OCCURRED, OWN_ID, Entry, Posted, entries_of
from features.schema import TABLES
from serving.contract import RowStatus
from serving.problems import FieldProblem, ProblemError, contract

logger: Final = logging.getLogger("holdfast")

RETRY_SECONDS: Final = 1.0
GROUP: Final = 256  # requests that share one flush of the disk and one query at most


class LiveFeatures(Protocol):
    """Keep entries and bring them into features, as `features.live.Live` does; one thread uses it."""

    owed: set[str]

    def tables(self) -> frozenset[str]:
        """Name the tables that features read."""
        ...

    def alone(self) -> AbstractContextManager[None]:
        """Keep other workers out."""
        ...

    def keep(self, posts: Sequence[Sequence[Entry]], *, now: datetime) -> tuple[list[Posted], datetime]:
        """Keep entries durably."""
        ...

    def rewrite(self, as_of: datetime) -> frozenset[str]:
        """Bring them into the online store, and name the members who are in it."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


@dataclass(frozen=True)
class Taken:
    """Say what became of each row, and the moment as of which features hold them."""

    statuses: tuple[RowStatus, ...]
    as_of: datetime


@dataclass(frozen=True)
class _Kept:
    posted: Posted
    as_of: datetime
    members: frozenset[str]  # those of them who have a vector
    tables: frozenset[str]  # those that features read


@dataclass(frozen=True)
class _Post:
    entries: Sequence[Entry]
    kept: "Future[_Kept]"


class Intake:
    """Take rows; they are answered once the next decision sees them."""

    def __init__(self, live: LiveFeatures, clock: Callable[[], datetime]) -> None:
        self._live, self._clock = live, clock
        self._posts: SimpleQueue[_Post | None] = SimpleQueue()
        self._entering = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="intake", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Requests that wait, and members whose features lack something."""
        return self._posts.qsize() + len(self._live.owed)

    async def take(self, table: str, rows: Sequence[Mapping[str, Any]]) -> Taken:
        """Take rows of one table, in the contract's columns: all of them or, if one can't be, none.

        Raises
        ------
        ProblemError
            422 for rows that can't be, 409 for an id that stands for something else, 503 if nothing can be kept, or if
            the rows are kept and the features can't be brought up to them yet.
        """
        _check(table, rows, self._clock())
        entries, places = entries_of(table, rows)
        post = _Post(entries, Future())
        with self._entering:
            if self._closed:
                raise _unavailable("the service is stopping")
            self._posts.put(post)
        kept = await asyncio.wrap_future(post.kept)
        if kept.posted.conflicts:
            raise _conflict(table, [row for row, place in enumerate(places) if place in kept.posted.conflicts])
        return Taken(
            tuple(_status(entries[place], kept, fresh=kept.posted.fresh[place]) for place in places), kept.as_of
        )

    def close(self) -> None:
        """Take what waits, then let go."""
        with self._entering:
            self._closed = True
            self._posts.put(None)
        self._thread.join()
        self._live.close()

    def _work(self) -> None:
        group: list[_Post | None] = []  # at first nobody's: what an earlier service left owed
        while None not in group:
            self._answer(group)
            group = self._wait()
        self._answer(group)

    def _wait(self) -> list[_Post | None]:
        """Wait for posts; where something is owed, no longer than a second."""
        group: list[_Post | None] = []
        with contextlib.suppress(Empty):
            group.append(self._posts.get(timeout=RETRY_SECONDS if self._live.owed else None))
            while group[-1] is not None and len(group) < GROUP:
                group.append(self._posts.get_nowait())
        return group

    def _answer(self, group: Sequence[_Post | None]) -> None:
        posts = [post for post in group if post and post.kept.set_running_or_notify_cancel()]
        try:
            answers = self._bring([post.entries for post in posts])
        except ProblemError as problem:
            for post in posts:
                post.kept.set_exception(problem)
        else:
            for post, kept in zip(posts, answers, strict=True):
                post.kept.set_result(kept)

    def _bring(self, posts: Sequence[Sequence[Entry]]) -> list[_Kept]:
        try:
            with self._live.alone():
                posted, as_of = self._live.keep(posts, now=self._clock())
                return self._reflect(posted, as_of)
        except HoldfastError as error:
            raise _unavailable(f"nothing was kept: {error}") from error

    def _reflect(self, posted: Sequence[Posted], as_of: datetime) -> list[_Kept]:
        try:
            members, tables = self._live.rewrite(as_of), self._live.tables()
        except Exception as error:
            logger.warning("live features: %s", type(error).__name__)  # its message may hold ids
            raise _unavailable("the rows are kept; features lack them yet, and follow as soon as they can") from error
        return [_Kept(kept, as_of, members, tables) for kept in posted]


def _status(entry: Entry, kept: _Kept, *, fresh: bool) -> RowStatus:
    if entry.member_id not in kept.members or entry.table not in kept.tables:
        return "waiting"
    return "accepted" if fresh else "duplicate"


def _check(table: str, rows: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """Refuse rows of a time that has not come, and an id that names one row and comes with two."""
    own = OWN_ID[table]
    ids = [row[own] for row in rows] if TABLES[table].unique else []
    again = [
        FieldProblem(pointer=f"/rows/{n}/{own}", detail="came before") for n, it in enumerate(ids) if it in ids[:n]
    ]
    late = [
        FieldProblem(pointer=f"/rows/{n}/{OCCURRED}", detail=f"a time up to {now:%Y-%m-%dT%H:%M:%SZ} was wanted")
        for n, row in enumerate(rows)
        if row[OCCURRED] > now
    ]
    if again or late:
        raise contract("some rows can't be; nothing was taken", *again, *late)


def _conflict(table: str, rows: Sequence[int]) -> ProblemError:
    detail = (
        f"an {OWN_ID[table]} stands for something else already, nothing was taken; send what belongs together at once"
    )
    errors = tuple(FieldProblem(pointer=f"/rows/{row}", detail="other values came before") for row in rows)
    return ProblemError(HTTPStatus.CONFLICT, "row-conflict", detail, errors=errors)


def _unavailable(detail: str) -> ProblemError:
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "live", detail, headers={"Retry-After": "1"})
