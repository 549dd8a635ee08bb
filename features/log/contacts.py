"""The contacts of an audience that no memory holds: in a file, sorted by member, of which a part is read by itself."""

from datetime import datetime
from pathlib import Path
from typing import Final

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.log.standing import CONTACT, logged_contacts, reported_contacts
from features.memory import within
from features.warehouse import Warehouse

_SORTED: Final = """
COPY (
  SELECT * FROM logged
  UNION ALL SELECT * FROM reported WHERE decision_id NOT IN (SELECT decision_id FROM logged)
  ORDER BY member_id
) TO $1 (FORMAT parquet)
"""


def write_contacts(path: Path, log: Path, warehouse: Warehouse | None, *, now: datetime, longest_days: int) -> None:
    """Write the contacts that count, sorted by member, however many there are; see `contacts_between`."""
    logged = logged_contacts(log, now=now, longest_days=longest_days)
    reported = reported_contacts(warehouse, now=now, longest_days=longest_days)
    with duckdb.connect(config=within(path.parent)) as db:
        for name, batches in (("logged", logged), ("reported", reported)):
            db.register("come", pa.RecordBatchReader.from_batches(CONTACT, batches))
            db.execute(f"CREATE TABLE {name} AS FROM come")
        db.execute(_SORTED, [str(path)])


def contacts_between(path: Path, first: str, last: str) -> pa.Table:
    """Read the contacts of the members from one to another, both included."""
    field = pc.field("member_id")
    return pq.read_table(path, filters=(field >= first) & (field <= last), use_threads=False)
