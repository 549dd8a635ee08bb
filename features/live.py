"""What a member did a moment ago counts in the next decision, by the very definition that training uses.

A purchase or an event that is posted is kept in the journal; then the vector of its member is computed anew, as of that
moment, from the member's rows in the warehouse and in the journal, and brought into the online store. What compares a
member with all others (the RFM scores and segment) stays that of the last snapshot.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Final, Protocol

import duckdb
import pyarrow as pa

from features.as_of.plan import read_plan, write_plan
from features.as_of.vectors import Vectors
from features.home import Home
from features.journal import OWN_ID, Entry, Journal, Posted
from features.privacy.consent import Consent, read_consent
from features.stores.packed import Schema
from features.warehouse import open_warehouse

if TYPE_CHECKING:
    from features.store import Store

PART: Final = 1_000  # members whose vectors are computed at once


class OnlineStore(Protocol):
    """Take vectors, as `features.store.Store` does."""

    def rewrite(self, rows: pa.Table, schema: Schema) -> None:
        """Write a row per member, unless a newer one stands."""
        ...


class Live:
    """Keep what is posted, and rewrite the vectors of its members; one thread at a time may use it.

    Of several processes one at a time keeps and rewrites: under `alone`.

    `owed` are the members whose vectors lack something: a rewrite that fails is made up for by the next.
    """

    def __init__(self, home: Home, store: OnlineStore, consent: Consent | None = None) -> None:
        self._home, self._store = home, store
        self._consent = consent or read_consent(home)
        self._journal: Journal | None = None
        self._vectors: Vectors | None = None
        self._files: tuple[int, ...] = ()
        self.owed: set[str] = set()

    def tables(self) -> frozenset[str]:
        """Name the tables of which entries are taken: those that a feature reads.

        Raises
        ------
        NotFoundError
            If nothing was ingested, or nothing materialised.
        """
        return frozenset(self._current().plan.columns.keys() & OWN_ID)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Let no other process in until what is kept is in the vectors; what one of them owes becomes owed here."""
        self._current()  # or there is nothing to keep
        journal = self._open()
        with journal.alone():
            if journal.written_by_others():
                self.owed |= set(journal.members(since=journal.reflected))
            yield

    def keep(self, posts: Sequence[Sequence[Entry]], *, now: datetime) -> tuple[list[Posted], datetime]:
        """Keep entries durably, of each post all that is new or nothing; give the moment at which they are known.

        The moment is never before the snapshot that is online.
        """
        earliest = self._current().plan.as_of
        gone = [self._consent.erased([entry.member_id for entry in post]) for post in posts]
        taken = [[entry for entry, out in zip(*pair, strict=True) if not out] for pair in zip(posts, gone, strict=True)]
        posted, as_of = self._open().add(taken, max(now, earliest))
        for post, kept in zip(taken, posted, strict=True):
            self.owed |= set() if kept.conflicts else {entry.member_id for entry in post}
        return [_among(kept, out) for kept, out in zip(posted, gone, strict=True)], as_of

    def rewrite(self, as_of: datetime) -> frozenset[str]:
        """Rewrite the vectors that are owed, as of a moment that `keep` gave, and name the members who have one."""
        journal, known = self._open(), set()
        while self.owed:
            part = sorted(self.owed)[:PART]
            # of who opted out nothing is made; a snapshot makes up for it once that is taken back
            willing = [one for one, out in zip(part, self._consent.opted_out(part), strict=True) if not out]
            rows = self._compute(as_of, willing, journal.of_members(willing, as_of=as_of))
            self._store.rewrite(rows, self._current().plan.schema)
            known |= set(rows["member_id"].to_pylist())
            self.owed -= set(part)
        journal.reflected = as_of
        return frozenset(known)

    def owe_all(self) -> None:
        """Owe every member with an entry."""
        self.owed |= set(self._open().members())

    def settle(self, as_of: datetime) -> None:
        """Let go of the entries that the warehouse has, once the snapshot of `as_of` is online and saw them."""
        journal, vectors = self._open(), self._current()
        for table in self.tables():
            found = vectors.stored(table, journal.keys(table))
            journal.settle([(table, *key) for key in found], as_of=as_of)

    def close(self) -> None:
        """Let go of the files."""
        for held in (self._journal, self._vectors):
            if held:
                held.close()

    def _compute(self, as_of: datetime, part: Sequence[str], entries: list[tuple[Entry, datetime]]) -> pa.Table:
        try:
            return self._current().at(as_of, part, entries)
        except duckdb.IOException:  # an ingest has put other files in their place meanwhile
            return self._current().at(as_of, part, entries)

    def _open(self) -> Journal:
        if self._journal is None:
            self._journal = Journal(self._home.journal)
            self.owed |= set(self._journal.members(since=self._journal.reflected))
        return self._journal

    def _current(self) -> Vectors:
        """Follow what is ingested and materialised while this lives."""
        places = (self._home.warehouse / "manifest.json", self._home.live / "plan.json")
        files = tuple(place.stat().st_mtime_ns for place in places if place.exists())
        if self._vectors is None or files != self._files:
            plan, warehouse = read_plan(self._home), open_warehouse(self._home)
            if self._vectors:
                self._vectors.close()
            self._vectors, self._files = Vectors(plan, warehouse), files
        return self._vectors


def _among(kept: Posted, gone: Sequence[bool]) -> Posted:
    """Put what became of entries in their places among those of members who were erased, which are not kept."""
    if not any(gone):
        return kept
    places = [place for place, out in enumerate(gone) if not out]
    fresh = [True] * len(gone)
    for place, new in zip(places, kept.fresh, strict=True):
        fresh[place] = new
    return Posted(tuple(fresh), tuple(places[conflict] for conflict in kept.conflicts))


def materialize(store: "Store", as_of: datetime, *, now: datetime) -> None:
    """Bring the snapshot of `as_of` online, and nothing it has not seen gets lost, not for a moment.

    The members with entries in the journal get vectors first, of a later moment than the snapshot's, which it does not
    replace.
    """
    write_plan(store.home, as_of)
    if not store.home.journal.exists():
        store.materialize(as_of)
        return
    live = Live(store.home, store)
    try:
        live.owe_all()
        live.rewrite(live.keep([], now=now)[1])
        store.materialize(as_of)
        live.settle(as_of)
    finally:
        live.close()
