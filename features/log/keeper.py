"""The keeper: whichever process writes the decision log lets others of this machine and user write to it too.

It listens on a socket beside the log. A visitor's calls are answered as they get done, in any order. When the keeper
stops it takes no more calls, answers those it took and says goodbye, so that a visitor knows which were never taken.
"""

import contextlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Final

import msgspec

from features.errors import ContractError
from features.log.calls import BYE, CALLS, HELLO, VERSION, Ask, Kept, failed, frames, told

BACKLOG: Final = 128  # visitors that wait to be let in
LONGEST: Final = 100  # bytes of a socket's address; beyond it the folder is named by its number
_ASK: Final = msgspec.msgpack.Decoder(Ask)


def socket_of(log: Path) -> Path:
    """Say where the keeper of a log listens."""
    return log.with_name(f"{log.name}.socket")


@contextlib.contextmanager
def address_of(path: Path) -> Iterator[str]:
    """Give an address of a socket that is short enough for any system, however deep its folder is."""
    if len(os.fsencode(path)) <= LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class Keeper:
    """Let visitors use a log that this process writes, until it is closed.

    Raises
    ------
    ContractError
        If there can be no socket beside the log.
    """

    def __init__(self, log: Kept, path: Path) -> None:
        self._log, self._path = log, path
        self._listening = _listen(path)
        self._visits: set[_Visit] = set()
        self._entering = threading.Lock()
        self._closed = False
        self._door = threading.Thread(target=self._let_in, name="log-keeper", daemon=True)
        self._door.start()

    def close(self) -> None:
        """Let nobody in, answer what was asked, say goodbye."""
        with self._entering:
            if self._closed:
                return
            self._closed = True
            visits = list(self._visits)
        self._path.unlink(missing_ok=True)
        self._listening.shutdown(socket.SHUT_RDWR)
        self._door.join()
        self._listening.close()
        for visit in visits:
            visit.end()
        for visit in visits:
            visit.join()

    def _let_in(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:  # closed
                return
            with self._entering:
                if self._closed:
                    connection.close()
                    return
                self._visits.add(_Visit(self._log, connection, self._visits.discard))


class _Visit:
    """Answer one visitor: one thread takes its calls, another answers, so that no writer waits for it."""

    def __init__(self, log: Kept, connection: socket.socket, ended: "Callable[[_Visit], None]") -> None:
        self._log, self._connection, self._ended = log, connection, ended
        self._answers: SimpleQueue[bytes | None] = SimpleQueue()
        self._answers.put(told(HELLO, VERSION))
        self._counting = threading.Condition()
        self._open = 0  # calls without an answer yet
        self._batches = set[str]()  # for which something was reserved
        self._threads = [
            threading.Thread(target=work, name="log-visit", daemon=True) for work in (self._take, self._send)
        ]
        for thread in self._threads:
            thread.start()

    def end(self) -> None:
        """Take no more calls."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RD)

    def join(self) -> None:
        """Wait until all is answered."""
        for thread in self._threads:
            thread.join()

    def _take(self) -> None:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            for body in frames(self._connection):
                ask = _ASK.decode(body)
                with self._counting:
                    self._open += 1
                self._do(ask)
        with self._counting:
            self._counting.wait_for(lambda: not self._open)
        for batch_id in self._batches:  # nobody else will store it
            self._log.release(batch_id)
        self._answers.put(told(BYE, None))
        self._answers.put(None)

    def _do(self, ask: Ask) -> None:
        try:
            values = CALLS[ask.call].values(ask.arguments)
            if ask.call == "reserve":
                self._batches.add(values["batch_id"])
            result = getattr(self._log, ask.call)(**values)
        except Exception as error:  # noqa: BLE001 (the visitor's to handle)
            self._answer(failed(ask.number, error))
        else:
            if isinstance(result, Future):
                result.add_done_callback(lambda done: self._answer(_outcome(ask.number, done)))
            else:
                self._answer(told(ask.number, result))

    def _answer(self, body: bytes) -> None:
        self._answers.put(body)
        with self._counting:
            self._open -= 1
            self._counting.notify()

    def _send(self) -> None:
        running = True
        while running:
            group = [self._answers.get()]
            with contextlib.suppress(Empty):
                while True:
                    group.append(self._answers.get_nowait())
            running = group[-1] is not None
            try:
                self._connection.sendall(b"".join(body for body in group if body is not None))
            except OSError:  # the visitor is gone
                break
        self.end()
        self._ended(self)
        self._connection.close()


def _outcome(number: int, done: "Future[Any]") -> bytes:
    error = done.exception()
    return told(number, done.result()) if error is None else failed(number, error)


def _listen(path: Path) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.unlink(missing_ok=True)  # of a keeper that died: there is none else, as this process has the lock
        with address_of(path) as address:
            listening.bind(address)
        path.chmod(0o600)  # before anybody can be let in
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ContractError(f"can't listen on {path} ({error}); move the home to a local disk") from error
    return listening
