"""Where members stand with contacts: how long ago each offer came, and how often any did; of few members, or millions.

Contacts of the decision log count, and those that other systems report in the table `contacts`; a contact that both
know, by its decision, counts once.
"""

import contextlib
import sqlite3
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.log.book import Contact
from features.log.rows import microseconds, open_to_read, to_json
from features.schema import CONTROL
from features.warehouse import Warehouse

Floats = NDArray[np.float64]
DAY: Final = 86_400_000_000  # microseconds
OF_MEMBERS: Final = """
SELECT member_id, contacted_at, decision_id, offer_id FROM contacts
WHERE member_id IN (SELECT value FROM json_each(?)) AND contacted_at >= ?
"""
_TABLE: Final = """
CREATE TABLE contacts (
  member_id TEXT NOT NULL, contacted_at INTEGER NOT NULL, decision_id TEXT NOT NULL, offer_id TEXT NOT NULL
);
"""
_INDEX: Final = "CREATE INDEX contacts_by_member ON contacts (member_id, contacted_at)"
_INSERT: Final = "INSERT INTO contacts VALUES (?, ?, ?, ?)"
_READ: Final = 65_536  # contacts in memory at once


@dataclass(frozen=True)
class Standing:
    """Say when members were contacted last and how often, in days before now; what is yet to come counts as now."""

    since_offer: Floats  # (n_members, n_offers) days since the last contact with each offer, infinite if never
    since_any: Floats  # (n_members,) days since the last contact with any
    in_period: NDArray[np.int64]  # (n_members,) contacts within the last `period_days`

    def take(self, places: NDArray[np.intp]) -> "Standing":
        """Give that of some members."""
        return Standing(self.since_offer[places], self.since_any[places], self.in_period[places])


def nobody_contacted(members: int, offers: int) -> Standing:
    """Give the standing of members whom nobody ever contacted."""
    return Standing(np.full((members, offers), np.inf), np.full(members, np.inf), np.zeros(members, dtype=np.int64))


def standing_of(
    contacts: Sequence[Contact], member_ids: Sequence[str], offer_ids: Sequence[str], *, now: datetime, period_days: int
) -> Standing:
    """Say where a few members stand."""
    nameless = [contact for contact in contacts if not contact.decision_id]
    once = [*{contact.decision_id: contact for contact in contacts if contact.decision_id}.values(), *nameless]
    row = {member_id: number for number, member_id in enumerate(member_ids)}
    column = {offer_id: number for number, offer_id in enumerate(offer_ids)}
    of = [(row[one.member_id], column.get(one.offer_id, -1), one.contacted_at) for one in once]
    places = np.array(of, dtype=np.int64).reshape(-1, 3)
    return _standing(*places.T, members=len(row), offers=len(column), now=now, period_days=period_days)


class OtherContacts:
    """Know what other systems sent members, as the warehouse has it, in memory."""

    def __init__(self, warehouse: Warehouse | None, *, now: datetime, longest_days: int) -> None:
        self._db = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        weakref.finalize(self, self._db.close)  # a new warehouse brings another, and nobody knows who still asks this
        self._db.execute(_TABLE)
        if warehouse and longest_days:
            for rows in reported_contacts(warehouse, now=now, longest_days=longest_days):
                self._db.executemany(_INSERT, zip(*(column.to_pylist() for column in rows.columns), strict=True))
        self._db.execute(_INDEX)

    def of(self, member_ids: Sequence[str], *, since: int) -> list[Contact]:
        """Give the contacts of members since a moment in microseconds."""
        return [Contact(*row) for row in self._db.execute(OF_MEMBERS, (to_json(list(member_ids)), since))]


@dataclass(frozen=True)
class Audience:
    """Hold the contacts of a whole audience, sorted by member: made once, asked for one slice after the other."""

    row: NDArray[np.int64]  # of the audience
    column: NDArray[np.int64]  # of the offers, -1 for another
    contacted_at: NDArray[np.int64]  # microseconds
    offers: int

    def standing(self, start: int, stop: int, *, now: datetime, period_days: int) -> Standing:
        """Say where the members of a slice stand."""
        part = slice(*np.searchsorted(self.row, (start, stop)))
        return _standing(
            self.row[part] - start,
            self.column[part],
            self.contacted_at[part],
            members=stop - start,
            offers=self.offers,
            now=now,
            period_days=period_days,
        )


def audience_contacts(
    log: Path,
    warehouse: Warehouse | None,
    member_ids: pa.Array,
    offer_ids: Sequence[str],
    *,
    now: datetime,
    longest_days: int,
) -> Audience:
    """Read the contacts of an audience of any size: of the log and of the warehouse."""
    if not longest_days:
        return placed(CONTACT.empty_table(), member_ids, offer_ids)
    logged = pa.Table.from_batches(logged_contacts(log, now=now, longest_days=longest_days), CONTACT)
    reported = pa.Table.from_batches(reported_contacts(warehouse, now=now, longest_days=longest_days), CONTACT)
    known = pc.is_in(reported["decision_id"], value_set=logged["decision_id"])
    return placed(pa.concat_tables([logged, reported.filter(pc.invert(known))]), member_ids, offer_ids)


def placed(contacts: pa.Table, member_ids: pa.Array, offer_ids: Sequence[str]) -> Audience:
    """Put contacts beside the members who got them; those of others are left out.

    Parameters
    ----------
    contacts : `member_id`, `contacted_at` in microseconds, `offer_id`
    """
    row = pc.index_in(contacts["member_id"], value_set=member_ids).fill_null(-1).to_numpy().astype(np.int64)
    column = pc.index_in(contacts["offer_id"], value_set=pa.array(offer_ids, pa.string())).fill_null(-1)
    order = np.argsort(row, kind="stable")
    order = order[np.searchsorted(row[order], 0) :]
    return Audience(
        row[order],
        column.to_numpy().astype(np.int64)[order],
        contacts["contacted_at"].to_numpy()[order],
        len(offer_ids),
    )


def _standing(
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    contacted_at: NDArray[np.int64],
    *,
    members: int,
    offers: int,
    now: datetime,
    period_days: int,
) -> Standing:
    found = nobody_contacted(members, offers)
    days = np.maximum(microseconds(now) - contacted_at, 0) / DAY
    np.minimum.at(found.since_any, row, days)
    of_release = column >= 0
    np.minimum.at(found.since_offer, (row[of_release], column[of_release]), days[of_release])
    found.in_period[:] = np.bincount(row[days < period_days], minlength=members)
    return found


def logged_contacts(path: Path, *, now: datetime, longest_days: int) -> Iterator[pa.RecordBatch]:
    """Read the contacts of the log within the days before now, some at a time."""
    if not path.exists():
        return
    with contextlib.closing(open_to_read(path)) as db:
        query = "SELECT member_id, contacted_at, decision_id, offer_id FROM contacts WHERE contacted_at >= ?"
        cursor = db.execute(query, (microseconds(now - timedelta(days=longest_days)),))
        while rows := cursor.fetchmany(_READ):
            columns = zip(zip(*rows, strict=True), CONTACT, strict=True)
            yield pa.record_batch([pa.array(values, field.type) for values, field in columns], CONTACT)


def reported_contacts(warehouse: Warehouse | None, *, now: datetime, longest_days: int) -> Iterator[pa.RecordBatch]:
    """Read what other systems sent within the days before now, some at a time; who was control got nothing."""
    if warehouse is None or "contacts" not in warehouse.tables:
        return
    since, until = microseconds(now - timedelta(days=longest_days)), microseconds(now)
    with pq.ParquetFile(warehouse.path("contacts")) as file:
        wanted = ["member_id", "contacted_at", "treatment", "decision_id"]
        names = [name for name in wanted if name in file.schema_arrow.names]
        for rows in file.iter_batches(_READ, columns=names):
            at = pc.cast(pc.cast(rows["contacted_at"], pa.timestamp("us", tz="UTC")), pa.int64())
            within = pc.and_(pc.greater_equal(at, since), pc.less_equal(at, until))
            sent = pc.and_(pc.not_equal(rows["treatment"].cast(pa.string()), CONTROL), within)
            decision = rows["decision_id"] if "decision_id" in names else pa.nulls(len(rows), pa.string())
            columns = [rows["member_id"], at, pc.fill_null(decision.cast(pa.string()), ""), rows["treatment"]]
            typed = [column.cast(field.type) for column, field in zip(columns, CONTACT, strict=True)]
            yield pa.record_batch(typed, CONTACT).filter(sent)


CONTACT: Final = pa.schema(
    [("member_id", pa.string()), ("contacted_at", pa.int64()), ("decision_id", pa.string()), ("offer_id", pa.string())]
)
