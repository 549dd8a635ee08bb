"""Who wants no personalisation, or was erased, as everybody but the service's hot path asks: from the log on the disk.

A company's table `members` and a member's own word are two things, and whoever says no is heard: the column
`personalisation` counts while it says false, and an opt-out by the member stands, whatever table comes later, until the
member takes it back.
"""

import contextlib
from collections.abc import Sequence
from typing import Protocol

from features.home import Home
from features.log.register import Marks, Register, opted_out_members
from features.log.rows import open_to_read


class Consent(Protocol):
    """Say what members asked for, as the decision log does."""

    def opted_out(self, member_ids: Sequence[str]) -> list[bool]:
        """Say of each who wants no personalisation, or was erased."""
        ...

    def erased(self, names: Sequence[str]) -> list[bool]:
        """Say which ids have a tombstone."""
        ...


class Willing:
    """Say that nobody asked for anything: there is no log yet."""

    def opted_out(self, member_ids: Sequence[str]) -> list[bool]:
        """Say that nobody opted out."""
        return [False] * len(member_ids)

    def erased(self, names: Sequence[str]) -> list[bool]:
        """Say that nobody was erased."""
        return [False] * len(names)


def read_consent(home: Home) -> Consent:
    """Read what members have asked for until now."""
    if not home.decisions.exists():
        return Willing()
    with contextlib.closing(open_to_read(home.decisions)) as db:
        return Register(db, Marks(home.decisions))


def opted_out(home: Home) -> frozenset[str]:
    """Name who opted out by their own word."""
    if not home.decisions.exists():
        return frozenset()
    with contextlib.closing(open_to_read(home.decisions)) as db:
        return frozenset(opted_out_members(db))
