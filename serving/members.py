"""What members ask for beside being left alone: to see what is held about them, and to be forgotten."""

import asyncio
import logging
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, Protocol

import tenacity

from features.decisions import Erasure, Log
from features.errors import HoldfastError
from features.home import Home
from serving.answers import dump
from serving.problems import ProblemError

if TYPE_CHECKING:
    from features.stores.packed import Vectors

logger: Final = logging.getLogger("holdfast")

PROMPT: Final = 0.5  # seconds that a caller is kept for a receipt
PATIENCE: Final = tenacity.wait_random_exponential(max=5)  # where an ingest is at work, or the disk is full


class MemberStore(Protocol):
    """Hold vectors, as `features.store.Store` does."""

    def vectors(self, member_ids: Sequence[str]) -> "Vectors":
        """Read every feature of members."""
        ...

    def erase(self, member_ids: Sequence[str]) -> int:
        """Delete the vectors of members."""
        ...


class _Group:
    """Hold whom one erasure is about, and the last note on the disk that they are to be erased."""

    noted: Future[None]
    task: asyncio.Task[bytes]

    def __init__(self) -> None:
        self.receipt_id = secrets.token_hex(8)
        self.member_ids: dict[str, None] = {}  # in the order asked


class MemberFiles:
    """Show and erase what is held about members.

    One erasure at a time: who is to be erased meanwhile is erased by the next, together, as files are written anew for
    one member or for many; they share its receipt.
    """

    def __init__(self, home: Home, store: MemberStore, log: Log, clock: Callable[[], datetime]) -> None:
        self._home, self._store, self._log, self._clock = home, store, log, clock
        self._alone = asyncio.Lock()
        self._running: _Group | None = None
        self._next: _Group | None = None

    def export(self, member_id: str) -> Iterator[str]:
        """Give everything, a JSON object a line; nothing for a stranger."""
        from features.privacy.export import export_lines

        return export_lines(self._home, member_id, self._store)

    async def erase(self, member_id: str) -> tuple[HTTPStatus, bytes]:
        """Erase a member: 200 and the receipt once nothing is left, 202 and its number if that takes longer.

        From either answer on nothing of the member is read or taken in, and the erasure is gone on with until it is
        done, by this process or by one after it.

        Raises
        ------
        ProblemError
            503 if not even that can be noted.
        """
        try:
            group = self._group_of(member_id)
            await asyncio.wrap_future(group.noted)
        except (HoldfastError, OSError) as error:
            detail = f"whom to erase can't be noted ({type(error).__name__}); repeat the request"
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE, "erasure", detail, headers={"Retry-After": "5"}
            ) from error
        done, _ = await asyncio.wait({group.task}, timeout=PROMPT)
        return (HTTPStatus.OK, group.task.result()) if done else _begun(group.receipt_id)

    async def receipt(self, receipt_id: str) -> tuple[HTTPStatus, bytes]:
        """Give a receipt, or 202 while its erasure goes on.

        Raises
        ------
        ProblemError
            404 if there is no such erasure.
        """
        from features.privacy.erasure import find_receipt

        ours = {group.receipt_id for group in (self._running, self._next) if group}
        noted = await asyncio.to_thread(self._log.pending_erasures)  # not by our number, of whom another one erases
        if receipt_id in ours | {erasure.receipt_id for erasure in noted}:
            return _begun(receipt_id)
        found = await asyncio.to_thread(find_receipt, self._home, receipt_id)
        if found is None:
            raise ProblemError(HTTPStatus.NOT_FOUND, "not-found", "no erasure has a receipt of this number")
        return HTTPStatus.OK, dump(asdict(found))

    def _group_of(self, member_id: str) -> _Group:
        """Give the erasure that a member is part of; what is at work already does for who asks again."""
        if self._running and member_id in self._running.member_ids:
            return self._running
        group = self._next or _Group()
        group.noted = self._log.begin_erasure(Erasure(group.receipt_id, (member_id,)), now=self._clock())
        group.member_ids[member_id] = None
        if self._next is None:
            self._next, group.task = group, asyncio.create_task(self._erase_next(group))
        return group

    async def _erase_next(self, group: _Group) -> bytes:
        trying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type((HoldfastError, OSError)), wait=PATIENCE, before_sleep=_warn
        )
        async with self._alone:
            self._next, self._running = None, group
            try:
                return await trying(asyncio.to_thread, self._erase, group)
            finally:
                self._running = None

    def _erase(self, group: _Group) -> bytes:
        from features.privacy.erasure import erase  # a tenth of a second, which nobody waits for here

        receipt = erase(
            self._home,
            tuple(group.member_ids),
            log=self._log,
            store=self._store,
            clock=self._clock,
            receipt_id=group.receipt_id,
        )
        return dump(asdict(receipt))


def _begun(receipt_id: str) -> tuple[HTTPStatus, bytes]:
    return HTTPStatus.ACCEPTED, dump({"receipt_id": receipt_id})


def _warn(attempt: tenacity.RetryCallState) -> None:
    met = attempt.outcome.exception() if attempt.outcome else None
    logger.warning("an erasure is not done yet (%s); it is tried again", type(met).__name__)
