"""The files of a release as bytes: which, how big, with which hash; each is read once, so what is parsed was checked.

Sizes come first, so that nothing large is read for nothing; a link, a pipe or a name with a path in it is no file of a
release.
"""

import hashlib
import json
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final

from features.errors import CorruptError

MANIFEST_BYTES: Final = 16 << 20
FILE_BYTES: Final = 256 << 20  # a thousand deep trees of four offers are 60 MB
RELEASE_BYTES: Final = 512 << 20


def read_bytes(path: Path, *, most: int) -> bytes:
    """Read a plain file of at most so many bytes.

    Raises
    ------
    CorruptError
        If it is missing, a link or no file, or larger.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would be waited for
    except OSError as error:
        why = "is missing from its release" if isinstance(error, FileNotFoundError) else f"can't be read ({error})"
        raise CorruptError(f"{path} {why}; `holdfast rollback` goes back to the one before") from error
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise CorruptError(f"{path} is no plain file; `holdfast rollback` goes back to the one before")
        body = file.read(most + 1) if found.st_size <= most else b""
    if found.st_size > most or len(body) > most:
        raise CorruptError(f"{path} has {found.st_size:,} bytes, at most {most:,} were wanted; `holdfast rollback`")
    return body


def read_files(root: Path, described: Mapping[str, Any], wanted: Collection[str]) -> dict[str, bytes]:
    """Read the files that a manifest describes, which have to be those that are wanted.

    Raises
    ------
    CorruptError
        At the first that is not as it was described.
    """
    if missing := set(wanted) - set(described):
        raise CorruptError(f"release {root.name} does not list {sorted(missing)}")
    if strange := set(described) - set(wanted):
        raise CorruptError(f"release {root.name} lists {sorted(strange)}, which no release has")
    check_sizes(root.name, described)
    return {name: _checked(root / name, described[name]) for name in wanted}


def check_sizes(release_id: str, described: Mapping[str, Any]) -> None:
    """Refuse a release that describes a file as what none may be, or is larger than any may be.

    Raises
    ------
    CorruptError
        At the first.
    """
    size = sum(_size(f"{release_id}/{name}", one) for name, one in described.items())
    if size > RELEASE_BYTES:
        raise CorruptError(f"release {release_id} has {size:,} bytes, at most {RELEASE_BYTES:,} may it")


def vouch(where: str, body: bytes, described: Mapping[str, Any]) -> None:
    """Hold a file's bytes against what its manifest says of them.

    Raises
    ------
    CorruptError
        If they are not those.
    """
    came, size, digest = hashlib.sha256(body).hexdigest(), described["bytes"], described["sha256"]
    if len(body) != size or came != digest:
        raise CorruptError(
            f"{where} is not the file that was released: {len(body)} bytes, sha256 {came[:12]}… came, "
            f"{size} bytes, sha256 {digest[:12]}… was wanted; `holdfast rollback` goes back"
        )


def parse(body: bytes) -> dict[str, Any]:
    """Read JSON in which every number is finite.

    >>> parse(b'{"cost": 1e999}')
    Traceback (most recent call last):
    ValueError: 1e999 is no finite number

    Raises
    ------
    ValueError
        If it is none, or no object.
    """
    try:
        value = json.loads(body, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} came, an object was wanted")
    return value


def _size(where: str, described: Any) -> int:  # noqa: ANN401 (what somebody may have edited)
    size = described.get("bytes") if isinstance(described, dict) else None
    if not isinstance(size, int) or not 0 <= size <= FILE_BYTES or not isinstance(described.get("sha256"), str):
        raise CorruptError(f"{where} is described as {str(described)[:80]}; at most {FILE_BYTES:,} bytes may it have")
    return size


def _checked(path: Path, described: Mapping[str, Any]) -> bytes:
    body = read_bytes(path, most=FILE_BYTES)
    vouch(str(path), body, described)
    return body


def _refuse(word: str) -> float:
    raise ValueError(f"{word} is no finite number")


def _finite(text: str) -> float:
    number = float(text)
    return number if abs(number) != float("inf") else _refuse(text)
