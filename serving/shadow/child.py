"""The shadow's process as the service sees it: what it says, and for how long it has said nothing."""

import os
import select
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

FRUGAL: Final = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
_READ: Final = 65_536
_LONGEST: Final = 1 << 20  # bytes of a line


@dataclass(frozen=True)
class Told:
    """Say how far a shadow is in the log, and what it came to since it said so last; or why it is none."""

    place: int = 0
    behind: int = 0  # decisions that wait
    counts: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0  # of scoring
    refused: str | None = None


_DECODER: Final = msgspec.json.Decoder(Told)


class Child:
    """Hold a process that speaks in lines of JSON, and goes when its standard input ends; one thread may ask.

    Parameters
    ----------
    held : descriptors that it holds as long as it lives
    """

    def __init__(self, command: Sequence[str], *, held: Sequence[int] = ()) -> None:
        self._process = subprocess.Popen(  # noqa: S603 (this program)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ | FRUGAL, pass_fds=held
        )
        assert self._process.stdout is not None  # noqa: S101 (it is a pipe)
        self._descriptor = self._process.stdout.fileno()
        self._said, self._heard_at = b"", time.monotonic()
        self._poll = select.poll()  # unlike `select`, it takes any number of connections beside it
        self._poll.register(self._descriptor, select.POLLIN)

    @property
    def number(self) -> int:
        """The process's id."""
        return self._process.pid

    @property
    def silence(self) -> float:
        """How many seconds ago it said something, or began."""
        return time.monotonic() - self._heard_at

    @property
    def stopped(self) -> bool:
        """Whether somebody has stopped it, where the system tells: it says nothing, and not for want of a processor."""
        asked = os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT
        found = os.waitid(os.P_PID, self.number, asked) if hasattr(os, "waitid") else None
        return found is not None and found.si_code == os.CLD_STOPPED

    def heard(self, seconds: float) -> list[Told] | None:
        """Wait for so long, and give what it said meanwhile; None once it says no more."""
        if not self._poll.poll(seconds * 1_000):
            return []
        came = os.read(self._descriptor, _READ)
        self._heard_at = time.monotonic()
        *lines, self._said = (self._said + came).split(b"\n")
        try:
            told = [_DECODER.decode(line) for line in lines]
        except msgspec.MsgspecError:  # its memory is not what it was
            return None
        return told if came and len(self._said) < _LONGEST else None

    def interrupt(self) -> None:
        """Let what waits for it wait no longer; any thread may say so."""
        self._process.kill()

    def end(self) -> str:
        """Take it down, whatever it is at, and say how it ended."""
        self._process.kill()  # nothing where it has ended by itself
        with self._process:  # closes the pipes, and waits
            pass
        code = self._process.returncode
        return f"signal {-code}" if code < 0 else f"exit code {code}"
