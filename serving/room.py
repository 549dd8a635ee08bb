"""The room where requests wait for the clerk's one thread, which takes all that wait at once.

What is answered goes back to the event loop in one go as well: it is woken once for all that is done, as waking it
costs more than an answer does.
"""

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final

from features.decisions import Answer
from features.errors import StaleError, UnwrittenError
from serving.clerk import Ask, Decided, Served

TRIES: Final = 100  # of a request, where others change what its decisions rest on
MEMBERS: Final = 64  # of a group: a hundred take the models 5 ms, for which everybody else waits

AT_ONCE: Final = 4  # answers: each takes the event loop a fifth of a millisecond

if TYPE_CHECKING:
    from concurrent.futures import Future

Serve = Callable[[Sequence[Ask]], Iterable[tuple[Ask, Served]]]


@dataclass(frozen=True)
class Stored:
    """Hold an answer whose decisions are on the disk, and what stands under its key: another's, if that came before."""

    decided: Decided
    standing: Answer | None
    at: float = 0.0  # by the clock that measures


@dataclass(frozen=True)
class _Waiting:
    ask: Ask
    answer: "asyncio.Future[Stored]"


class Room:
    """Let requests wait, and hand out their answers."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._queue: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._done: deque[tuple[_Waiting, Stored | BaseException]] = deque()
        self._woken = False
        self._entering, self._closed = threading.Lock(), False
        self._thread = threading.Thread(target=self._work, name="desk", daemon=True)
        self._thread.start()

    @property
    def backlog(self) -> int:
        """Requests that nobody has begun to answer."""
        return self._queue.qsize()

    async def ask(self, ask: Ask) -> Stored:
        """Wait for an answer, whose decisions are on the disk.

        Raises
        ------
        UnwrittenError
            If the log does not take the decisions.
        """
        waiting = _Waiting(ask, asyncio.get_running_loop().create_future())
        with self._entering:
            if self._closed:
                raise UnwrittenError("the desk is closed; nothing was decided")
            self._queue.put(waiting)
        return await waiting.answer

    def warm(self, ask: Ask) -> None:
        """Have a request served before there is an event loop; only at the very beginning."""
        for _, served in self._serve([ask]):
            if isinstance(served, Exception):
                raise served

    def close(self) -> None:
        """Serve those who wait, then let nobody in."""
        with self._entering:
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _work(self) -> None:
        running = True
        while running:
            group = [self._queue.get()]
            members = 0
            with contextlib.suppress(Empty):
                while (last := group[-1]) is not None and (
                    members := members + len(last.ask.request.members)
                ) < MEMBERS:
                    group.append(self._queue.get_nowait())
            running = group[-1] is not None
            self._answer({waiting.ask: waiting for waiting in group if waiting})

    def _answer(self, group: dict[Ask, _Waiting]) -> None:
        for ask, served in self._serve([*group]):
            if isinstance(served, Exception):
                self._finish(group[ask], served)
            elif served.stored is None:
                self._finish(group[ask], Stored(served, None))
            else:
                served.stored.add_done_callback(partial(self._store, group[ask], served))

    def _store(self, waiting: _Waiting, decided: Decided, stored: "Future[Answer | None]") -> None:
        error = stored.exception()
        if isinstance(error, StaleError):
            self._again(waiting, decided)
        else:
            self._finish(waiting, error or Stored(decided, stored.result(), time.perf_counter()))

    def _again(self, waiting: _Waiting, decided: Decided) -> None:
        """Have a request decided again, on what there is now."""
        tried = decided.drawn is None or decided.drawn.times >= TRIES
        with self._entering:
            if not self._closed and not tried:
                self._queue.put(_Waiting(replace(waiting.ask, drawn=decided.drawn), waiting.answer))
                return
        self._finish(waiting, UnwrittenError("what the decision rests on changes too fast; nothing was decided"))

    def _finish(self, waiting: _Waiting, result: Stored | BaseException) -> None:
        self._done.append((waiting, result))
        if not self._woken:
            self._woken = True
            waiting.answer.get_loop().call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        """Hand out a few answers; the loop looks in between at who came, and who is told to come back is told soon."""
        self._woken = False  # first: what is done from here on wakes the loop again
        for _ in range(min(AT_ONCE, len(self._done))):
            waiting, result = self._done.popleft()
            if waiting.answer.done():  # its caller has gone
                continue
            if isinstance(result, BaseException):
                waiting.answer.set_exception(result)
            else:
                waiting.answer.set_result(result)
        if self._done and not self._woken:
            self._woken = True
            asyncio.get_running_loop().call_soon(self._deliver)
