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
APART: Final = "\x1f"  # a character that ids have no use for
BETWEEN: Final = f" || '{APART}' || "
KEYS: Final = {table: BETWEEN.join(columns) for table, columns in NAMES.items()}
EVERY: Final = 2**63 - 1
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
    note(db)
    for table in KEYS:
        for event, rows in (("INSERT", ("NEW",)), ("DELETE", ("OLD",)), ("UPDATE", ("OLD", "NEW"))):
            notes = " ".join(f"{_NOTE} ('{table}', {_of(table, row)});" for row in rows)
            db.execute(f"CREATE TRIGGER {table}_{event.lower()} AFTER {event} ON {table} BEGIN {notes} END")
    return True


def note(db: sqlite3.Connection) -> None:
    """Note every row that is there, whether it was carried over or not."""
    for table, key in KEYS.items():
        db.execute(f"INSERT INTO changes (source, key) SELECT '{table}', {key} FROM {table}")  # noqa: S608 (own names)


def forget(db: sqlite3.Connection, number: int) -> None:
    """Drop the notes up to a number."""
    db.execute("DELETE FROM changes WHERE number <= ?", (number,))


def forget_after(db: sqlite3.Connection, number: int) -> None:
    """Drop the notes after a number: another place has these rows, for they came from there."""
    db.execute("DELETE FROM changes WHERE number > ?", (number,))


def leave_out(db: sqlite3.Connection, source: str, key: str) -> None:
    """Drop the notes about a row, which is not carried over as it stands here."""
    db.execute("DELETE FROM changes WHERE source = ? AND key = ?", (source, key))


def last(db: sqlite3.Connection) -> int:
    """Give the number of the last note that ever was."""
    found = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()
    return found[0] if found else 0


def pending(
    db: sqlite3.Connection, most: int, *, after: int = 0, until: int = EVERY
) -> tuple[int, dict[str, list[str]]]:
    """Give the keys, by table, of the first changes that nobody carried over, and the number of the last of them."""
    asked = "SELECT number, source, key FROM changes WHERE number > ? AND number <= ? ORDER BY number LIMIT ?"
    rows = db.execute(asked, (after, until, most)).fetchall()
    found: dict[str, list[str]] = {}
    for _, source, key in rows:
        found.setdefault(source, []).append(key)
    return (rows[-1][0] if rows else 0), {source: list(dict.fromkeys(keys)) for source, keys in found.items()}


def agreed(db: sqlite3.Connection) -> int:
    """Give the last change that other instances know of, where there are some; else there is no limit."""
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'agreement'").fetchone():
        return EVERY
    return int(db.execute("SELECT written FROM agreement").fetchone()[0])


def waiting(db: sqlite3.Connection) -> int:
    """Count the changes that nobody carried over, or a few more: a write that fails may leave a gap."""
    first, last = db.execute("SELECT min(number), max(number) FROM changes").fetchone()
    return 0 if first is None else int(last - first + 1)


def _of(table: str, row: str) -> str:
    return BETWEEN.join(f"{row}.{column}" for column in NAMES[table])
