"""The shim that fails writes and flushes, compiled by the machine's own C compiler and preloaded into a service."""

import ctypes
import mmap
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Final

KINDS: Final = {"eio": 1, "enospc": 2, "short": 3, "kill before": 4, "kill after": 5, "eio from then on": 6}
LAYOUT: Final = struct.Struct("lll")  # left, seen, kind: as in the source
SOURCE: Final = Path(__file__).with_name("shim.c")


def compiled(folder):
    """Compile it, or give None where no compiler is."""
    if (compiler := shutil.which("cc")) is None:
        return None
    library = folder / "shim.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O2", "-o", library, SOURCE, "-ldl"], check=True)
    return library


class Control:
    """Arm the shim of a running service, and hear how many writes and flushes it has seen since."""

    def __init__(self, path):
        path.write_bytes(bytes(LAYOUT.size))
        self.path = path
        with path.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), LAYOUT.size)

    def arm(self, nth, kind):
        """Strike at the n-th write or flush from now on; at none for 0."""
        self._page[:] = LAYOUT.pack(nth, 0, KINDS[kind])

    @property
    def seen(self):
        """Count the writes and flushes since it was armed."""
        return LAYOUT.unpack(self._page[:])[1]

    def close(self):
        self._page.close()


def obey(below, control):
    """Let a control strike at what this process writes below a path."""
    if ctypes.CDLL(None).shim_map(str(below).encode(), str(control).encode()):
        raise OSError(f"{control} can't be mapped")
