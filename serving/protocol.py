"""How connections are held: so many, and none whose client keeps it without saying what it wants.

Who comes when the gate is full is turned away here, before there is a task, a scope or a body: below an overload the
event loop would otherwise spend most of its time on saying no.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from serving.door import HEAD_BYTES
from serving.gate import BACK_SECONDS
from serving.problems import WHOLE

CONNECTIONS: Final = 900  # a process has 1,024 files to open, as a rule
HEAD_SECONDS: Final = 5.0
BODY_SECONDS: Final = 5.0  # that the body of a request may take which is turned away
PAUSE_SECONDS: Final = 0.9 * BACK_SECONDS  # until its connection is read again: who repeats sooner than told waits

Headers = Sequence[tuple[bytes, bytes]]
TurnAway = Callable[[bytes, bytes, Headers], bytes | None]  # method, address and headers -> head and body of a refusal


class Protocol(HttpToolsProtocol):
    """Give up a connection whose head does not come, or does not end.

    Parameters
    ----------
    turn_away : says what is answered at once, None where a request goes in
    """

    _waiting: asyncio.TimerHandle | None = None
    _came = 0  # bytes of a head that has not ended
    _away = False  # the request that is being read was answered already

    def __init__(self, *args: Any, turn_away: TurnAway = lambda *_: None, **kwargs: Any) -> None:  # noqa: ANN401 (uvicorn's)
        super().__init__(*args, **kwargs)
        self._turn_away = turn_away

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Hold a connection, or end it where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.close()
            return
        self._wait()

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._away:
            super().data_received(data)
            return
        super().data_received(data)
        if self._waiting is None and not self._is_busy():
            self._wait()
        if self._waiting is not None and not self._is_away():
            self._came += len(data)
            if self._came > HEAD_BYTES:
                self._give_up()

    def on_headers_complete(self) -> None:
        """Wait no longer; begin to answer, or turn away."""
        self._stop_waiting()
        free = (self.cycle is None or self.cycle.response_complete) and not self.pipeline
        answer = self._turn_away(self.parser.get_method(), self.url, self.headers) if free else None
        if answer is None:
            super().on_headers_complete()
            return
        self._away = True
        self._waiting = self.loop.call_later(BODY_SECONDS, self._give_up)
        self.transport.write(answer)

    def on_body(self, body: bytes) -> None:
        """Read a body; not that of a request that was turned away."""
        if not self._away:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Go on to the next request."""
        if not self._away:
            self.scope[WHOLE] = True  # type: ignore[typeddict-unknown-key]
            super().on_message_complete()
            return
        self._away = False
        self._stop_waiting()
        if not self.parser.should_keep_alive():
            self.transport.close()
            return
        self.flow.pause_reading()
        self._waiting = self.loop.call_later(PAUSE_SECONDS, self._read_on)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _read_on(self) -> None:
        self._waiting = None
        if not self.transport.is_closing():
            self.flow.resume_reading()
            self._wait()

    def _is_away(self) -> bool:
        return self._away

    def _is_busy(self) -> bool:
        """Say whether a request is being answered, or there is nobody left to answer."""
        return self.transport.is_closing() or not (self.cycle is None or self.cycle.response_complete)

    def _wait(self) -> None:
        self._came = 0
        self._waiting = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _give_up(self) -> None:
        self._stop_waiting()
        if not self.transport.is_closing():
            self.transport.close()
