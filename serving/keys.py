"""API keys: who may ask for what, how often and until when, in one file that a running service follows.

A key is 256 random bits, so its SHA-256 says nothing of it that could be guessed: what makes a slow hash needed is that
people choose their passwords. The file holds hashes only; a key is shown once, when it is made.
"""

import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal, get_args

from features.errors import ConflictError, ContractError, CorruptError, NotFoundError
from features.files import changing, write_whole
from features.sheet import Sheet

Scope = Literal["decide", "outcome", "batch", "metrics", "admin", "privacy", "report", "explain"]
SCOPES: Final[tuple[str, ...]] = get_args(Scope)
FORMAT: Final = 1
MARK: Final = "hf"  # what a key begins with, so that one that got loose is found for what it is
NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")
KEY: Final = re.compile(rf"{MARK}_([0-9a-f]{{12}})_[A-Za-z0-9_-]{{43}}")
PERIOD: Final = re.compile(r"(\d{1,5})([mhd])")
UNITS: Final = {"m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class Key:
    """Hold what is known of a key: under which short word it is found, and what it opens."""

    key_id: str
    name: str
    sha256: str
    scopes: tuple[str, ...]
    created_at: datetime
    expires_at: datetime | None
    per_second: int | None  # requests; none: as many as it likes

    def is_valid(self, now: datetime) -> bool:
        """Say whether it opens anything at a moment."""
        return self.expires_at is None or now < self.expires_at


class Keyring:
    """Know the keys of a file as it stands; what is broken is refused with everything it opened."""

    def __init__(self, path: Callable[[], Path]) -> None:
        self._path = cache(path)  # looked at for every call, which does not join names each time
        self._seen: tuple[int, ...] | None = None
        self._keys: dict[str, Key] | None = None

    def keys(self) -> dict[str, Key] | None:
        """Give the keys by their id; none where there is no file, so that no key was ever made.

        Raises
        ------
        CorruptError
            If the file can't be read as one of keys.
        """
        try:
            stat = self._path().stat()
        except FileNotFoundError:
            self._seen = self._keys = None
            return None
        if (seen := (stat.st_ino, stat.st_mtime_ns, stat.st_size)) != self._seen:
            self._keys = {key.key_id: key for key in read_keys(self._path())}
            self._seen = seen
        return self._keys

    def find(self, token: str, now: datetime) -> Key | None:
        """Find the key that a caller shows, if it is one and valid; how far it is right takes no time to tell."""
        shown = KEY.fullmatch(token)
        key = (self.keys() or {}).get(shown[1]) if shown else None
        right = hmac.compare_digest(_hash(token), key.sha256 if key else "")
        return key if key and right and key.is_valid(now) else None


def create_key(
    path: Path,
    name: str,
    scopes: Sequence[str],
    *,
    now: datetime,
    lasts: timedelta | None = None,
    per_second: int | None = None,
) -> str:
    """Make a key under a new name, and give it: it stands nowhere else.

    Raises
    ------
    ContractError
        If the name or a scope is none.
    ConflictError
        If a key has the name.
    """
    if not NAME.fullmatch(name):
        raise ContractError(f"a name of 1 to 40 letters, digits, '.', '_' and '-' was wanted, {name!r} came")
    if not scopes or (wrong := set(scopes) - set(SCOPES)):
        came = ", ".join(sorted(wrong)) if scopes else "none"
        raise ContractError(f"--scope has to be any of {', '.join(SCOPES)}; {came} came")
    with _changing(path) as keys:
        if any(key.name == name for key in keys):
            raise ConflictError(f"there is a key {name} already; holdfast keys rotate {name}, or choose another name")
        token, key = _make(name, tuple(s for s in SCOPES if s in scopes), now, lasts, per_second)
        keys.append(key)
    return token


def rotate_key(path: Path, name: str, *, now: datetime, keep: timedelta) -> str:
    """Make another key of the same name and scopes, and give it; the one before is valid for `keep` longer.

    Of a name two are valid at most: an older one ends at once.

    Raises
    ------
    NotFoundError
        If no key has the name.
    """
    with _changing(path) as keys:
        *older, newest = _of(keys, name)
        lasts = newest.expires_at - newest.created_at if newest.expires_at else None
        token, key = _make(name, newest.scopes, now, lasts, newest.per_second)
        end = now + keep if newest.expires_at is None else min(now + keep, newest.expires_at)
        keys[:] = [*(one for one in keys if one not in (*older, newest)), replace(newest, expires_at=end), key]
    return token


def revoke_key(path: Path, name: str) -> int:
    """Let the keys of a name open nothing from now on, and count them.

    Raises
    ------
    NotFoundError
        If no key has the name.
    """
    with _changing(path) as keys:
        gone = _of(keys, name)
        keys[:] = [key for key in keys if key.name != name]
    return len(gone)


def read_keys(path: Path) -> list[Key]:
    """Read the file of keys; one that is not there holds none.

    Raises
    ------
    CorruptError
        If it is something else.
    """
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        if said["format"] != FORMAT:
            raise ValueError("another format")  # noqa: TRY301 (the reason is the same)
        return [_key(row) for row in said["keys"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(
            f"{path} is no file of keys; nobody is let in. Move it away, and make keys with holdfast keys create"
        ) from error


def parse_period(text: str) -> timedelta:
    """Read a length of time.

    >>> parse_period("90d")
    datetime.timedelta(days=90)
    """
    if not (read := PERIOD.fullmatch(text)):
        raise ContractError(f"a time such as 30m, 24h or 90d was wanted, {text!r} came")
    return timedelta(**{UNITS[read[2]]: int(read[1])})


def keys_sheet(keys: Sequence[Key], now: datetime) -> Sheet:
    """Show who may do what until when; no key can be read from it."""
    rows = tuple(
        (
            key.name,
            f"{MARK}_{key.key_id}",
            ", ".join(key.scopes),
            "as often as it likes" if key.per_second is None else f"{key.per_second} a second",
            f"{key.created_at:%Y-%m-%d %H:%M}",
            "never" if key.expires_at is None else f"{key.expires_at:%Y-%m-%d %H:%M}",
            "valid" if key.is_valid(now) else "expired",
        )
        for key in keys
    )
    return Sheet("Keys", ("name", "begins with", "scopes", "asks", "made", "ends", "is"), rows)


def _make(
    name: str, scopes: tuple[str, ...], now: datetime, lasts: timedelta | None, per_second: int | None
) -> tuple[str, Key]:
    key_id = secrets.token_hex(6)
    token = f"{MARK}_{key_id}_{secrets.token_urlsafe(32)}"
    return token, Key(key_id, name, _hash(token), scopes, now, now + lasts if lasts else None, per_second)


def _of(keys: Sequence[Key], name: str) -> list[Key]:
    """Give the keys of a name, the newest last."""
    if not (found := sorted((key for key in keys if key.name == name), key=lambda key: key.created_at)):
        names = ", ".join(sorted({key.name for key in keys})) or "none yet"
        raise NotFoundError(f"there is no key {name}; there are: {names}")
    return found


def _hash(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _key(row: dict[str, Any]) -> Key:
    ends = row["expires_at"]
    return Key(
        **row
        | {
            "scopes": tuple(row["scopes"]),
            "created_at": datetime.fromisoformat(row["created_at"]),
            "expires_at": None if ends is None else datetime.fromisoformat(ends),
        }
    )


@contextmanager
def _changing(path: Path) -> Iterator[list[Key]]:
    """Let the keys be changed by one process at a time, and write them whole, for this user's eyes only."""
    with changing(path):
        keys = read_keys(path)
        yield keys
        text = json.dumps({"format": FORMAT, "keys": [asdict(key) for key in keys]}, indent=1, default=str) + "\n"

        def write(beside: Path) -> None:
            beside.touch(mode=0o600)
            beside.write_text(text, encoding="utf-8")

        write_whole(path, write)
