"""How much stands in a place, and a hash of it in any order: two places of which both are equal hold the same."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from features.sheet import Sheet

_MODULUS: Final = 2**256


@dataclass(frozen=True)
class Tally:
    """Hold how many rows there are, and the sum of their SHA-256, modulo 2**256."""

    rows: int = 0
    digest: int = 0

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(self.rows + other.rows, (self.digest + other.digest) % _MODULUS)


@dataclass(frozen=True)
class Compared:
    """Hold what was copied, as it stands here and there."""

    what: str
    here: Tally
    there: Tally

    @property
    def equal(self) -> bool:
        """Whether as many rows stand there as here, with the same hash."""
        return self.here == self.there

    def plain(self) -> dict[str, Any]:
        """Say it for a machine."""
        here, there = ({"rows": one.rows, "hash": f"{one.digest:064x}"} for one in (self.here, self.there))
        return {"what": self.what, "here": here, "there": there, "equal": self.equal}


def tally(rows: Iterable[Sequence[Any]]) -> Tally:
    """Count rows and hash them.

    >>> tally([("a", 1), ("b", 2.0)]) == tally([("b", 2.0), ("a", 1)])
    True
    """
    count, total = 0, 0
    for row in rows:
        count, total = count + 1, total + int.from_bytes(digest(row))
    return Tally(count, total % _MODULUS)


def digest(row: Sequence[Any]) -> bytes:
    """Hash one row: numbers by their value, times by their moment, objects by their members in any order.

    >>> digest((1, {"a": 1, "b": 2})) == digest((1.0, {"b": 2, "a": 1.0}))
    True
    """
    return hashlib.sha256(json.dumps([_plain(value) for value in row], sort_keys=True).encode()).digest()


def comparison_sheet(compared: Sequence[Compared]) -> Sheet:
    """Show what stands here and there, and whether it is the same."""
    wrong = [one.what for one in compared if not one.equal]
    rows = tuple(
        (one.what, f"{one.here.rows:,}", f"{one.there.rows:,}", "yes" if one.equal else "NO") for one in compared
    )
    title = f"{len(wrong)} of {len(rows)} differ" if wrong else "the same here and there"
    return Sheet(title, ("what", "rows here", "rows there", "hash equal"), rows)


def _plain(value: Any) -> Any:  # noqa: ANN401 (any value of a row)
    """Write a value so that two places that keep it in their own ways write it alike."""
    if isinstance(value, bool | int | float):
        return float(value) + 0.0  # of two zeros one
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
