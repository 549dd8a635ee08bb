"""The storing of entries: what each changes in the log's tables, within the transaction of its writer."""

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from features.errors import ConflictError
from features.log.book import Contact, Spending
from features.log.entries import ANSWER, BATCH, DECISION, OUTCOME, PART, PRICE, Answer, Batch, Outcome, Part
from features.log.rows import decode, encode, insert, select, text, to_json

KEPT: Final = timedelta(days=30)  # so long at least an Idempotency-Key gives the same answer
_LET_GO: Final = """
DELETE FROM answers WHERE rowid IN (SELECT rowid FROM answers WHERE created_at < ? ORDER BY created_at LIMIT 4)
"""  # a few with each answer that comes: no pause, and none is left over
_ADD: Final = """
INSERT INTO spending (campaign_id, offer_id, contacts, spent) VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET contacts = contacts + excluded.contacts, spent = spent + excluded.spent
"""


def store_decisions(
    db: sqlite3.Connection, rows: Sequence[tuple[Any, ...]], contacts: Iterable[Contact], spending: Spending
) -> None:
    """Store decisions, as rows, with the contacts that they make and what they count against stock and budget."""
    db.executemany(insert("decisions", DECISION), rows)
    _count(db, contacts, spending)


def store_answer(db: sqlite3.Connection, answer: Answer, *, now: datetime) -> None:
    """Store an answer, and let go of a few that are old."""
    db.execute(insert("answers", (*ANSWER, "created_at")), (*encode(ANSWER, vars(answer)), text(now)))
    db.execute(_LET_GO, (text(now - KEPT),))


def find_answer(db: sqlite3.Connection, idempotency_key: str) -> Answer | None:
    """Find what stands under a key."""
    row = db.execute(select("answers", ANSWER, where="idempotency_key = ?"), (idempotency_key,)).fetchone()
    return Answer(*row) if row else None


def store_outcome(db: sqlite3.Connection, outcome: Outcome, *, now: datetime) -> bool:
    """Store an outcome; False if it stood already.

    Raises
    ------
    ConflictError
        If its id came before with other content.
    """
    row = encode(OUTCOME, vars(outcome))
    known = db.execute(select("outcomes", OUTCOME, where="outcome_id = ?"), row[:1]).fetchone()
    if known is None:
        db.execute(insert("outcomes", (*OUTCOME, "received_at")), (*row, text(now)))
    elif known != row:
        raise ConflictError("this outcome_id stands for another outcome; give each outcome an id of its own")
    return known is None


def store_batch(db: sqlite3.Connection, batch: Batch) -> bool:
    """Store what a batch is; False if it stood already."""
    return db.execute(_or_ignore("batches", BATCH), encode(BATCH, vars(batch))).rowcount == 1


def store_part(db: sqlite3.Connection, part: Part, contacts: Iterable[Contact], spending: Spending) -> bool:
    """Store that a part was decided, with its contacts; False, and nothing is stored, if it stood already."""
    if db.execute(_or_ignore("parts", PART), encode(PART, vars(part))).rowcount != 1:
        return False
    _count(db, contacts, spending)
    return True


def store_catalogue(db: sqlite3.Connection, catalogue_id: str, body: Mapping[str, Any], *, now: datetime) -> None:
    """Store a catalogue, once."""
    columns = ("catalogue_id", "body", "created_at")
    db.execute(_or_ignore("catalogues", columns), (catalogue_id, to_json(body), text(now)))


def store_price(
    db: sqlite3.Connection, campaign_id: str, base_price: float, stock_prices: Mapping[str, float], *, now: datetime
) -> None:
    """Let a campaign's prices take the place of those before."""
    row = (campaign_id, base_price, to_json(dict(stock_prices)), text(now))
    db.execute(insert("prices", PRICE).replace("INSERT", "INSERT OR REPLACE", 1), row)


def find_price(db: sqlite3.Connection, campaign_id: str) -> tuple[float, dict[str, float]]:
    """Find a campaign's base price and its prices of stock by offer; 0 and none where nobody set them."""
    row = db.execute(select("prices", PRICE, where="campaign_id = ?"), (campaign_id,)).fetchone()
    if row is None:
        return 0.0, {}
    found = decode(PRICE, row)
    return found["base_price"], found["stock_prices"]


def spending_so_far(db: sqlite3.Connection) -> Spending:
    """Read the running totals."""
    rows = db.execute("SELECT campaign_id, offer_id, contacts, spent FROM spending").fetchall()
    return {(campaign_id, offer_id): (contacts, spent) for campaign_id, offer_id, contacts, spent in rows}


def _count(db: sqlite3.Connection, contacts: Iterable[Contact], spending: Spending) -> None:
    """Store contacts, and add to the running totals."""
    db.executemany(insert("contacts", Contact._fields), contacts)
    db.executemany(_ADD, [(*key, *totals) for key, totals in spending.items()])


def _or_ignore(table: str, columns: tuple[str, ...]) -> str:
    return insert(table, columns).replace("INSERT", "INSERT OR IGNORE", 1)
