"""What members ask for beside being left alone: to see what is held about them, and to be forgotten."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

from features.decisions import Log
from features.errors import ContractError, HoldfastError
from features.home import Home
from serving.answers import dump
from serving.problems import ProblemError

if TYPE_CHECKING:
    from features.stores.packed import Vectors


class MemberStore(Protocol):
    """Hold vectors, as `features.store.Store` does."""

    def vectors(self, member_ids: Sequence[str]) -> "Vectors":
        """Read every feature of members."""
        ...

    def erase(self, member_ids: Sequence[str]) -> int:
        """Delete the vectors of members."""
        ...


class MemberFiles:
    """Show and erase what is held about members.

    One erasure at a time: who is to be erased meanwhile is erased by the next, together, as files are written anew for
    one member or for many; they share its receipt.
    """

    def __init__(self, home: Home, store: MemberStore, log: Log, clock: Callable[[], datetime]) -> None:
        self._home, self._store, self._log, self._clock = home, store, log, clock
        self._erasing = asyncio.Lock()
        self._next: tuple[list[str], asyncio.Task[bytes]] | None = None  # whom the erasure that has not begun is about

    def export(self, member_id: str) -> Iterator[str]:
        """Give everything, a JSON object a line; nothing for a stranger."""
        from features.privacy.export import export_lines

        return export_lines(self._home, member_id, self._store)

    async def erase(self, member_id: str) -> bytes:
        """Erase a member, and answer with the receipt once nothing is left.

        Raises
        ------
        ProblemError
            503 if that can't be done now, or not all of it: what was begun is gone on with by the next one.
        """
        if self._next is None:
            member_ids: list[str] = []
            self._next = member_ids, asyncio.create_task(self._erase_next(member_ids))
        asked, task = self._next
        asked.append(member_id)
        try:
            return await asyncio.shield(task)  # the others' as well, if this caller leaves
        except (HoldfastError, OSError) as error:
            busy = str(error) if isinstance(error, ContractError) else type(error).__name__
            detail = f"not everything is erased yet ({busy}); repeat the request"
            raise ProblemError(
                HTTPStatus.SERVICE_UNAVAILABLE, "erasure", detail, headers={"Retry-After": "5"}
            ) from error

    async def _erase_next(self, member_ids: list[str]) -> bytes:
        async with self._erasing:
            self._next = None
            return await asyncio.to_thread(self._erase, tuple(dict.fromkeys(member_ids)))

    def _erase(self, member_ids: tuple[str, ...]) -> bytes:
        from features.privacy.erasure import erase  # a tenth of a second, which nobody waits for here

        return dump(asdict(erase(self._home, member_ids, log=self._log, store=self._store, clock=self._clock)))
