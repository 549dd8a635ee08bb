"""A transaction of SQLite on a connection that leaves them to the program (`isolation_level=None`)."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


@contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Keep everybody else from writing, and keep all that is written, or nothing."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    finally:
        if db.in_transaction:
            db.execute("ROLLBACK")


def delete_whole(db: sqlite3.Connection, command: str, values: Sequence[Any]) -> int:
    """Delete rows, and write the file anew: where some were moved, copies still stand where they were.

    For files so small that whoever writes can wait for that; see `features.gaps` for others. Gives the number of rows.
    """
    with transaction(db):
        gone = db.execute(command, values).rowcount
    db.execute("VACUUM")
    return gone
