"""What deleted rows leave in the gaps of SQLite's pages, and how that is overwritten.

`PRAGMA secure_delete` overwrites a row where it stands. Where SQLite splits or joins pages it moves rows, though, and a
page keeps copies of what it gave away in the gap between its list of cells and the first of them
(https://www.sqlite.org/fileformat2.html#b_tree_pages). No deletion reaches these. `VACUUM` does, and writes the whole
file anew while every writer waits; to overwrite the gaps, which SQLite never reads, takes milliseconds of theirs.

A process that closes a file loses whatever locks SQLite holds on it there (POSIX has it so): this is one of its own.
"""

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from struct import unpack_from
from typing import BinaryIO, Final, Self

from features.errors import UnwrittenError

HEAD: Final = 100  # bytes in front of the first page, whose rows are the tables' names
LISTED_AT: Final = {2: 12, 5: 12, 10: 8, 13: 8}  # by a page's first byte, where its list of cells begins
OVERFLOWING: Final = 1 << 25  # pages: from here on the first byte of others may be such a number as well


class Gaps:
    """Look through a file's pages for gaps that hold something.

    The write-ahead log has to be empty; others may write meanwhile, as what is gone can't be copied any more.

    Raises
    ------
    UnwrittenError
        If the file can't be read or written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        command = [sys.executable, "-m", "features.gaps", str(path.absolute())]
        self._process = subprocess.Popen(  # noqa: S603 (this program)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.found = int(self._told())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def overwrite(self) -> None:
        """Overwrite them; nobody may write, and the write-ahead log has to be empty, until this is done.

        Whoever writes next must have read no page before: SQLite keeps pages as they were.
        """
        assert self._process.stdin is not None  # noqa: S101 (it is a pipe)
        with contextlib.suppress(BrokenPipeError):  # what it ended with is told
            self._process.stdin.write("\n")
            self._process.stdin.flush()
        self._told()

    def close(self) -> None:
        """End the process; what was not overwritten stays."""
        self._process.communicate()

    def _told(self) -> str:
        assert self._process.stdout is not None  # noqa: S101 (it is a pipe)
        if line := self._process.stdout.readline():
            return line
        _, said = self._process.communicate()
        why = said.strip().rpartition("\n")[2]
        raise UnwrittenError(f"{self._path} still holds what was deleted, in gaps of its pages ({why}); erase it again")


def main(path: str) -> None:
    """Be that process: say in how many pages something is found, wait for a line, overwrite it there."""
    with Path(path).open("r+b", buffering=0) as file:
        size, usable, pages = _shape(file)
        found = [page for page in range(1, pages) if _holds(_read(file, page, size), usable)]
        print(len(found), flush=True)  # noqa: T201 (the parent reads it)
        if not sys.stdin.readline():
            return
        for page in found:
            if gap := _gap(_read(file, page, size), usable):
                os.pwrite(file.fileno(), bytes(len(gap)), page * size + gap.start)
        os.fsync(file.fileno())
        print("done", flush=True)  # noqa: T201 (the parent reads it)


def _shape(file: BinaryIO) -> tuple[int, int, int]:
    """Give the size of a page, how much of that SQLite uses, and the number of pages."""
    head = os.pread(file.fileno(), HEAD, 0)
    (size,) = unpack_from(">H", head, 16)
    size = 1 << 16 if size == 1 else size
    pages = os.fstat(file.fileno()).st_size // size
    if pages >= OVERFLOWING:
        raise UnwrittenError(f"{pages:,} pages came, fewer than {OVERFLOWING:,} were wanted")
    return size, size - head[20], pages


def _read(file: BinaryIO, page: int, size: int) -> bytes:
    return os.pread(file.fileno(), size, page * size)


def _holds(page: bytes, usable: int) -> bool:
    """Say whether something is in a page's gap; so it may be where the page is just being written."""
    gap = _gap(page, usable)
    return page[0] in LISTED_AT and (gap is None or page.count(0, gap.start, gap.stop) < len(gap))


def _gap(page: bytes, usable: int) -> range | None:
    r"""Say where a page of cells has its gap; None of other pages.

    >>> _gap(bytes([13, 0, 0, 0, 1, 0, 14, 0]) + b"\0\x0e" + b"gone" + b"here", 18)
    range(10, 14)
    """
    if page[0] not in LISTED_AT:
        return None
    cells, first = unpack_from(">HH", page, 3)
    gap = range(LISTED_AT[page[0]] + 2 * cells, first or 1 << 16)
    return gap if gap.start <= gap.stop <= usable else None


if __name__ == "__main__":
    main(sys.argv[1])
