"""Which rows of the log another place lacks: triggers note every row that comes, changes or goes, in one table.

A noted row says nothing but its key; whoever copies reads the row as it stands then, or sees that it is gone. So it
does not matter how often, or in which order, changes are carried over. Every table counts but `erasing`: what is being
erased is nobody else's to know.
"""

import sqlite3
from typing import Final

NAMES: Final = {  # the columns that name a row
    "decisions": ("decision_id",),
    "outcomes": ("outcome_id",),
    "answers": ("idempotency_key",),
    "contacts": ("decision_id",),
    "batches": ("batch_id",),
    "parts": ("batch_id", "part"),
    "catalogues": ("catalogue_id",),
    "spending": ("campaign_id", "offer_id"),
    "prices": ("campaign_id",),
    "preferences": ("member_id",),
    "tombstones": ("mark",),
    "receipts": ("receipt_id",),
}
BETWEEN: Final = " || '\x1f' || "  # a character that ids have no use for
KEYS: Final = {table: BETWEEN.join(columns) for table, columns in NAMES.items()}
_TABLE: Final = """CREATE TABLE IF NOT EXISTS changes (
  number INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, key TEXT NOT NULL
)"""
_NOTE: Final = "INSERT INTO changes (source, key) VALUES"


def follow(db: sqlite3.Connection) -> bool:
    """Note changes from now on, and every row that is there already; False if that is so already."""
    if db.execute("SELECT 1 FROM sqlite_master WHERE name = 'changes'").fetchone():
        return False
    db.execute(_TABLE)
    db.execute("CREATE INDEX contacts_by_decision ON contacts (decision_id)")  # by which they are looked up here alone
    for table, key in KEYS.items():
        db.execute(f"INSERT INTO changes (source, key) SELECT '{table}', {key} FROM {table}")  # noqa: S608 (own names)
        for event, rows in (("INSERT", ("NEW",)), ("DELETE", ("OLD",)), ("UPDATE", ("OLD", "NEW"))):
            notes = " ".join(f"{_NOTE} ('{table}', {_of(table, row)});" for row in rows)
            db.execute(f"CREATE TRIGGER {table}_{event.lower()} AFTER {event} ON {table} BEGIN {notes} END")
    return True


def forget(db: sqlite3.Connection, number: int) -> None:
    """Drop the notes up to a number."""
    db.execute("DELETE FROM changes WHERE number <= ?", (number,))


def pending(db: sqlite3.Connection, most: int) -> tuple[int, dict[str, list[str]]]:
    """Give the keys, by table, of the first changes that nobody carried over, and the number of the last of them."""
    rows = db.execute("SELECT number, source, key FROM changes ORDER BY number LIMIT ?", (most,)).fetchall()
    found: dict[str, list[str]] = {}
    for _, source, key in rows:
        found.setdefault(source, []).append(key)
    return (rows[-1][0] if rows else 0), {source: list(dict.fromkeys(keys)) for source, keys in found.items()}


def waiting(db: sqlite3.Connection) -> int:
    """Count the changes that nobody carried over, or a few more: a write that fails may leave a gap."""
    first, last = db.execute("SELECT min(number), max(number) FROM changes").fetchone()
    return 0 if first is None else int(last - first + 1)


def _of(table: str, row: str) -> str:
    return BETWEEN.join(f"{row}.{column}" for column in NAMES[table])
