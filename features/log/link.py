"""A link to the process that keeps the decision log: calls in a row, answered in any order."""

import contextlib
import itertools
import socket
import struct
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from features.errors import ContractError, HoldfastError, UnwrittenError
from features.log.calls import BYE, HELLO, VERSION, Call, Told, frames
from features.log.keeper import address_of

WAIT_SECONDS: Final = 5  # a keeper that does nothing for so long is gone
_TOLD: Final = msgspec.msgpack.Decoder(Told)


class LostError(UnwrittenError):
    """Say that the keeper ended before it answered."""


@dataclass(frozen=True)
class Asked:
    """Hold a call that has no answer yet."""

    call: Call
    values: Mapping[str, Any]
    answer: "Future[Any]"


class Link:
    """Ask the keeper; `ended` gets, once, what was asked and never taken, and what nobody knows that of is failed.

    Raises
    ------
    OSError
        If nobody listens.
    ContractError
        If the keeper speaks another version.
    """

    def __init__(self, path: Path, ended: "Callable[[Link, list[Asked]], None]") -> None:
        self._ended = ended
        self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with address_of(path) as address:
                self._connection.connect(address)
        except OSError:
            self._connection.close()
            raise
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", WAIT_SECONDS, 0))
        self._asked: dict[int, Asked] = {}
        self._numbers = itertools.count()
        self._sending = threading.Lock()
        self._gone = False
        self._hello: Future[int] = Future()
        self._reader = threading.Thread(target=self._read, name="log-link", daemon=True)
        self._reader.start()
        try:
            version = self._hello.result(WAIT_SECONDS)
        except TimeoutError:
            self._shut(socket.SHUT_RDWR)
            raise
        if version != VERSION:
            self.close()
            raise ContractError(f"the log's keeper speaks version {version}, {VERSION} was wanted; stop that process")

    @property
    def backlog(self) -> int:
        """Calls without an answer."""
        return len(self._asked)

    def ask(self, asked: Asked) -> bool:
        """Send a call, whose answer comes in its future; False if this link has ended, and nothing was sent."""
        number = next(self._numbers)
        body = asked.call.ask(number, asked.values)
        with self._sending:
            if self._gone:
                return False
            self._asked[number] = asked
            try:
                self._connection.sendall(body)
            except BlockingIOError:  # it reads nothing any more
                self._shut(socket.SHUT_RDWR)
            except OSError:  # the reader sees the end, and whether the keeper says goodbye
                return True
        return True

    def close(self) -> None:
        """Wait for the answers, and let go."""
        self._shut(socket.SHUT_WR)
        self._reader.join(WAIT_SECONDS)
        self._shut(socket.SHUT_RDWR)
        self._reader.join()

    def _read(self) -> None:
        farewell = False
        try:
            for body in frames(self._connection):
                told = _TOLD.decode(body)
                if told.number == HELLO:
                    self._hello.set_result(msgspec.msgpack.decode(told.value, type=int))
                elif told.number == BYE:
                    farewell = True
                else:
                    self._settle(told)
        except (OSError, msgspec.DecodeError):
            farewell = False
        self._end(farewell=farewell)

    def _settle(self, told: Told) -> None:
        asked = self._asked.pop(told.number)
        try:
            result = asked.call.result(told)
        except (HoldfastError, msgspec.DecodeError) as error:
            asked.answer.set_exception(error)
        else:
            asked.answer.set_result(result)

    def _end(self, *, farewell: bool) -> None:
        with self._sending:
            self._gone = True
            left, self._asked = list(self._asked.values()), {}
            self._connection.close()
        if not self._hello.done():
            self._hello.set_exception(ConnectionAbortedError("the log's keeper ended"))
        if not farewell:
            for asked in left:
                asked.answer.set_exception(
                    LostError("the process that keeps the decision log ended; send the entry again")
                )
        self._ended(self, left if farewell else [])

    def _shut(self, how: int) -> None:
        with contextlib.suppress(OSError):  # it has ended already
            self._connection.shutdown(how)
