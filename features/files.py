"""Files that are either whole or absent, and the fingerprints that tell whether work is already done."""

import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

PARTS: Final = ".*.part"  # what writers fill beside what they write


def part_of(path: Path) -> Path:
    """Name what a writer fills beside a path: after its process too, so that it is known whether that still lives."""
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a file beside `path`, flush it to the disk and rename it into place.

    A reader, or a run after a crash, sees the old file or the new one, never a part.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = part_of(path)
    try:
        write(beside)
        _flush(beside)
        beside.replace(path)
        _flush(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def write_folder_whole(folder: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a folder beside `folder`, flush its files to the disk and rename it into place."""
    beside = part_of(folder)
    remove(beside)  # of a process that had this one's number and was killed
    beside.mkdir(parents=True)
    try:
        write(beside)
        for path in (*beside.iterdir(), beside):
            _flush(path)
        beside.rename(folder)
        _flush(folder.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_by_content(folder: Path, stem: str, suffix: str, write: Callable[[Path], object]) -> tuple[Path, str]:
    """Let `write` fill a file that is then named after its content, and give its path and sha256."""
    folder.mkdir(parents=True, exist_ok=True)
    beside = part_of(folder / stem)
    try:
        write(beside)
        _flush(beside)
        digest = sha256(beside)
        path = folder / f"{stem}-{digest[:16]}{suffix}"
        beside.replace(path)
        _flush(folder)
    finally:
        beside.unlink(missing_ok=True)
    return path, digest


@contextmanager
def alone(folder: Path, *, waiting: Callable[[], object] | None = None) -> Iterator[None]:
    """Let one process at a time into a folder, which is made if need be: nobody sees what another half wrote.

    Whoever finds another in it calls `waiting` first, so that somebody may be told.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                waiting()
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def changing(path: Path) -> Iterator[None]:
    """Let one process at a time change a file, by a lock beside it; the system releases it when its process dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def clear_parts(folder: Path) -> None:
    """Delete what killed writers left in a folder that nobody else is in."""
    for path in folder.glob(PARTS):
        remove(path)


def sweep(root: Path) -> None:
    """Delete whatever writers left at or below a folder that are no more."""
    for path in [*root.rglob(PARTS)]:
        owner = re.search(r"\.(\d+)\.part", path.name)
        if not (owner and _lives(int(owner[1]))):
            remove(path)


def remove(path: Path) -> None:
    """Delete a file or a folder; that it has gone meanwhile is no matter."""
    with suppress(FileNotFoundError):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def write_json(path: Path, value: Any) -> None:  # noqa: ANN401 (any JSON value)
    """Write `value` as indented JSON, whole or not at all."""
    text = json.dumps(value, indent=1, allow_nan=False) + "\n"
    write_whole(path, lambda beside: beside.write_text(text, encoding="utf-8"))


def stamp(*paths: Path) -> tuple[int, ...]:
    """Tell by the file system whether one of some files is another than before; what is not there says nothing."""
    found: list[int] = []
    for path in paths:
        with suppress(OSError):
            told = path.stat()
            found += [told.st_ino, told.st_size, told.st_mtime_ns]
    return tuple(found)


def sha256(path: Path) -> str:
    """Hash a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(*parts: object) -> str:
    """Hash values (files by their bytes, anything else by its JSON) to 16 hexadecimal digits.

    >>> fingerprint("a", 1) == fingerprint("a", 1) != fingerprint("a", 2)
    True
    """
    content = [sha256(part) if isinstance(part, Path) else part for part in parts]
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _lives(process: int) -> bool:
    return Path(f"/proc/{process}").exists() if Path("/proc").exists() else _signalled(process)


def _signalled(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
