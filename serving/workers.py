"""Several processes on one socket, one decision log for all: the parent keeps the log and watches over its workers.

A worker that dies is started again, later each time that it dies young. When the parent is told to stop it tells every
worker, waits, and closes the log last; when the parent dies, its workers stop by themselves.
"""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client.multiprocess import mark_process_dead

from features.decisions import open_log
from features.errors import HoldfastError
from features.home import Home
from serving.backoff import Backoff
from serving.meters import FOLDER, WORKERS

READY: Final = "ready"
LONGEST_WAIT: Final = 10.0  # seconds until a worker that died is started again
YOUNG: Final = 30.0
STOP_SECONDS: Final = 30.0


def supervise(home: Home, listening: socket.socket, workers: int, *, ready: Callable[[str], None]) -> None:
    """Serve with so many workers until SIGTERM or Ctrl-C.

    Raises
    ------
    HoldfastError
        If a worker can't begin, with its words.
    """
    stopping = threading.Event()
    with _metrics_folder(), open_log(home), _told_to_stop(stopping):
        slots = [_Slot(home, listening, number, stopping) for number in range(workers)]
        try:
            for slot in slots:
                slot.start()
            (address,) = {slot.wait_ready() for slot in slots}
            ready(address)
            stopping.wait()
        finally:
            stopping.set()
            for slot in slots:
                slot.stop()


class _Slot:
    """Keep one worker running."""

    def __init__(self, home: Home, listening: socket.socket, number: int, stopping: threading.Event) -> None:
        self._number, self._stopping = number, stopping
        self._fd = listening.fileno()
        self._command = [sys.executable, "-m", "serving.worker", str(home.root), str(self._fd), str(number)]
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._keep, name=f"worker-{number}", daemon=True)
        self._told: str | None = None
        self._heard = threading.Event()
        self._changing = threading.Lock()

    def start(self) -> None:
        """Start it, and again whenever it dies."""
        self._thread.start()

    def wait_ready(self) -> str:
        """Wait until it answers for the first time, and give the address."""
        self._heard.wait()
        word, _, rest = (self._told or "").partition(" ")
        if word == READY:
            return rest
        raise HoldfastError(rest or "a worker ended before it was ready; its words stand above")

    def stop(self) -> None:
        """Tell it to stop, and wait."""
        with self._changing:
            if self._process:
                self._process.terminate()
        self._thread.join(STOP_SECONDS)
        with self._changing:
            if self._process and self._process.poll() is None:
                self._process.kill()
        self._thread.join()

    def _keep(self) -> None:
        backoff = Backoff(longest=LONGEST_WAIT, young=YOUNG)
        while not self._stopping.is_set():
            started = time.monotonic()
            ready = self._run()
            if not self._heard.is_set():
                self._heard.set()
                return
            self._stopping.wait(backoff.after(time.monotonic() - started if ready else 0.0))

    def _run(self) -> bool:
        """Run it once; True if it came to answer."""
        with self._changing:
            if self._stopping.is_set():
                return False
            process = self._process = subprocess.Popen(  # noqa: S603 (this program)
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=(self._fd,)
            )
        with process:
            assert process.stdout is not None  # noqa: S101 (it is a pipe)
            told = process.stdout.readline().rstrip("\n")
            ready = told.startswith(READY)
            if self._told is None:
                self._told = told
            if ready:
                self._heard.set()
            process.wait()
        mark_process_dead(process.pid)  # type: ignore[no-untyped-call]
        return ready


@contextmanager
def _told_to_stop(stopping: threading.Event) -> Iterator[None]:
    signals = (signal.SIGTERM, signal.SIGINT)
    previous = [signal.signal(one, lambda *_: stopping.set()) for one in signals]
    try:
        yield
    finally:
        for one, handler in zip(signals, previous, strict=True):
            signal.signal(one, handler)


@contextmanager
def _metrics_folder() -> Iterator[None]:
    """Make the folder where workers put their metrics together."""
    with tempfile.TemporaryDirectory(prefix=WORKERS) as folder:
        os.environ[FOLDER] = folder  # before a worker imports the library
        yield
