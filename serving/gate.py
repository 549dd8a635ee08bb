"""The gate: how much is in flight, and who is told to come back instead of waiting for what would come too late."""

from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Final

from starlette.types import Message, Receive

from serving.problems import ProblemError

AT_ONCE: Final = 8  # members of one request that take about as long as a request of its own does
BACK_SECONDS: Final = 1


class Gate:
    """Let requests in up to a limit; only the event loop may ask.

    A request weighs 1, and once its members are known one more for every eight of them. Who is refused is so before
    anything of the body is read; so a large request may go over the limit, and the next one waits for it.
    """

    def __init__(self, limit: int) -> None:
        self._limit, self.inside = limit, 0

    def enter(self) -> None:
        """Let a request in.

        Raises
        ------
        ProblemError
            429 if there is no room.
        """
        if self.full:
            raise busy()
        self.inside += 1

    @property
    def full(self) -> bool:
        """Whether the next one is refused."""
        return self.inside >= self._limit

    def leave(self) -> None:
        """Make room."""
        self.inside -= 1

    def outside(self, receive: Receive) -> Receive:
        """Let nobody be inside who waits for a caller's body: slow senders would keep everybody else out."""

        async def received() -> Message:
            self.inside -= 1
            try:
                return await receive()
            finally:
                self.inside += 1

        return received

    @contextmanager
    def weigh(self, members: int) -> Iterator[None]:
        """Count the members of a request that is in."""
        more = members // AT_ONCE
        self.inside += more
        try:
            yield
        finally:
            self.inside -= more


def busy() -> ProblemError:
    """Tell somebody to come back."""
    detail = "more came than can be answered in time; repeat the request after the seconds of Retry-After"
    headers = {"Retry-After": str(BACK_SECONDS)}
    return ProblemError(HTTPStatus.TOO_MANY_REQUESTS, "busy", detail, headers=headers)
