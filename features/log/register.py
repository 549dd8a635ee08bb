"""The register: what members asked of the log for themselves, in memory beside the book; who opted out, who is erased.

A tombstone says that a member was erased without saying who: it is a hash of the id under a key of this home, so that
nobody without the key can tell from a list of ids whose it is.
"""

import hashlib
import hmac
import os
import secrets
import sqlite3
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from features.files import part_of
from features.log.rows import text

KEY: Final = "privacy.key"  # beside the log
BYTES: Final = 32


@dataclass(frozen=True)
class Preference:
    """Hold what a member wants."""

    member_id: str
    personalisation: bool


class Marks:
    """Know members again without knowing them."""

    def __init__(self, log: Path) -> None:
        self._key = _key(log.with_name(KEY))

    def of(self, name: str) -> str:
        """Give the mark of an id: HMAC-SHA256, as hexadecimal digits."""
        return hmac.new(self._key, name.encode(), hashlib.sha256).hexdigest()


class Register:
    """Answer for the log's tables `preferences` and `tombstones`; the log's writer changes it as it commits."""

    def __init__(self, db: sqlite3.Connection, marks: Marks) -> None:
        self._lock, self._marks = threading.Lock(), marks
        self._opted_out = opted_out_members(db)
        self._tombstones = _tombstones(db)

    @property
    def buried(self) -> bool:
        """Whether anybody was ever erased."""
        return bool(self._tombstones)

    def prefer(self, preference: Preference) -> None:
        """Note what a member wants from now on."""
        with self._lock:
            (self._opted_out.discard if preference.personalisation else self._opted_out.add)(preference.member_id)

    def forget(self, member_ids: Iterable[str]) -> None:
        """Note who is erased, for whom a tombstone speaks."""
        with self._lock:
            self._opted_out.difference_update(member_ids)

    def bury(self, tombstones: Iterable[str]) -> None:
        """Note tombstones by their marks: too early by a moment harms nobody."""
        with self._lock:
            self._tombstones.update(tombstones)

    def hear(self, preferences: Iterable[Preference], tombstones: Iterable[str]) -> None:
        """Note what members asked other instances for."""
        for preference in preferences:
            self.prefer(preference)
        self.bury(tombstones)

    def opted_out(self, member_ids: Sequence[str]) -> list[bool]:
        """Say who wants no personalisation, or was erased."""
        with self._lock:
            erased = self._erased(member_ids)
            return [member in self._opted_out or gone for member, gone in zip(member_ids, erased, strict=True)]

    def erased(self, names: Sequence[str]) -> list[bool]:
        """Say which ids have a tombstone."""
        with self._lock:
            return self._erased(names)

    def _erased(self, names: Sequence[str]) -> list[bool]:
        if not self._tombstones:
            return [False] * len(names)
        return [self._marks.of(name) in self._tombstones for name in names]


def opted_out_members(db: sqlite3.Connection) -> set[str]:
    """Name who wants no personalisation."""
    return {member_id for (member_id,) in db.execute("SELECT member_id FROM preferences WHERE NOT personalisation")}


def store_preference(db: sqlite3.Connection, preference: Preference, *, now: datetime) -> bool:
    """Store what a member wants; False if that stood already."""
    row = (preference.member_id, int(preference.personalisation))
    if db.execute("SELECT 1 FROM preferences WHERE member_id = ? AND personalisation = ?", row).fetchone():
        return False
    db.execute("INSERT OR REPLACE INTO preferences VALUES (?, ?, ?)", (*row, text(now)))
    return True


def _tombstones(db: sqlite3.Connection) -> set[str]:
    return {mark for (mark,) in db.execute("SELECT mark FROM tombstones")}


def _key(path: Path) -> bytes:
    """Read the key, or make one that only this user can read."""
    if not path.exists():
        beside = part_of(path)
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123 (a descriptor)
            file.write(secrets.token_bytes(BYTES))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(beside, path)  # whoever is first: a key is never replaced
        except FileExistsError:
            pass
        finally:
            beside.unlink()
    return path.read_bytes()
