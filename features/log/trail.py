"""The trail of decisions: one block after the other in the order in which they were stored, for another process.

Whoever follows it keeps the writer from nothing, and asks the disk alone: what is read here is stored, and whoever
opted out or was erased before a question has done so for its answer.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from features.log.erasing import is_erased
from features.log.register import Marks
from features.log.rows import decode, open_to_read, select, to_json

COLUMNS: Final = (
    *("decision_id", "member_id", "campaign_id", "decided_at", "release_id", "catalogue_id", "fallback_reason"),
    *("treatment", "propensity", "draw", "probabilities", "asked", "churn_probability", "net_value", "price"),
    *("stock_prices", "features", "facts", "standing", "source", "scores"),
)
_OWN: Final = "rowid > ? AND rowid <= ? AND outcome <> 'opt_out' AND fallback_reason IS NULL ORDER BY rowid"
_MEMBERS: Final = "(SELECT value FROM json_each(?))"
_OPTED_OUT: Final = f"SELECT member_id FROM preferences WHERE NOT personalisation AND member_id IN {_MEMBERS}"  # noqa: S608 (own words)
_BURIED: Final = f"SELECT mark FROM tombstones WHERE mark IN {_MEMBERS}"  # noqa: S608 (own words)


@dataclass(frozen=True)
class Block:
    """Hold the decisions up to a place in the log whose numbers were the models' own."""

    until: int
    rows: tuple[dict[str, Any], ...]


class Trail:
    """Read the log of another process; one thread at a time may ask.

    Raises
    ------
    NotFoundError
        If nothing was decided yet.
    """

    def __init__(self, path: Path) -> None:
        self._db, self._marks = open_to_read(path), Marks(path)

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def end(self) -> int:
        """Say where the log ends now."""
        return int(self._db.execute("SELECT coalesce(max(rowid), 0) FROM decisions").fetchone()[0])

    def after(self, place: int, most: int) -> Block:
        """Read on from a place, no further than so many decisions."""
        until = max(min(self.end(), place + most), place)
        found = self._db.execute(select("decisions", COLUMNS, where=_OWN), (place, until)).fetchall()  # not for long
        rows = (decode(COLUMNS, row) for row in found)
        return Block(until, tuple(row for row in rows if not is_erased(row)))

    def gone(self, member_ids: Sequence[str]) -> list[bool]:
        """Say who wants no personalisation, or was erased, as the disk has it now."""
        out = self._named(_OPTED_OUT, member_ids)
        if self._db.execute("SELECT 1 FROM tombstones LIMIT 1").fetchone() is None:
            return [member in out for member in member_ids]
        marks = [self._marks.of(member) for member in member_ids]
        buried = self._named(_BURIED, marks)
        return [member in out or mark in buried for member, mark in zip(member_ids, marks, strict=True)]

    def erased_after(self, place: int) -> tuple[int, frozenset[str]]:
        """Give the place of the last receipt, and the marks of who was erased, here or elsewhere, since one."""
        rows = self._db.execute("SELECT rowid, body FROM receipts WHERE rowid > ? ORDER BY rowid", (place,)).fetchall()
        marks = frozenset(mark for _, body in rows for mark in json.loads(body)["members"])
        return (rows[-1][0] if rows else place), marks

    def among(self, member_ids: Sequence[str], marks: Collection[str]) -> list[str]:
        """Name the members whose marks these are."""
        return [member_id for member_id in member_ids if self._marks.of(member_id) in marks]

    def _named(self, query: str, names: Sequence[str]) -> set[str]:
        return {name for (name,) in self._db.execute(query, (to_json(list(names)),))}
