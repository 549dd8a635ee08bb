"""The training frame where it is too long for one machine: the point-in-time join as one Ibis expression.

What `features.store.Store.training_frame` looks up row by row in sorted files, this joins: first the times alone, of
which there are as many as a member has snapshots, then the features of the one that counts.
"""

from collections.abc import Sequence
from pathlib import Path

import ibis
import ibis.expr.types as ir

from features.home import Home
from features.spark import read_tables, write_parquet


def as_known(asked: ir.Table, rows: ir.Table) -> ir.Table:
    """Join to each row of `asked` the features of its member as they were known then, missing where there were none.

    The latest event at or before that time counts, of one event time what was created last; what was created later
    than the time does not.

    Parameters
    ----------
    asked : `row`, `member_id`, `as_of`, and whatever else stays beside them
    rows : snapshots: `member_id`, `event_timestamp`, `created_timestamp` and features
    """
    stamps = rows.select(whose="member_id", event="event_timestamp", created="created_timestamp")
    then = [asked.member_id == stamps.whose, stamps.event <= asked.as_of, stamps.created <= asked.as_of]
    known = asked.select("row", "member_id", "as_of").join(stamps, then)
    newest = ibis.window(group_by="row", order_by=[ibis.desc("event"), ibis.desc("created")])
    known = known.mutate(place=ibis.row_number().over(newest))
    known = known.filter(known.place == 0).select(of="row", event="event", created="created")
    asked = asked.left_join(known, asked.row == known.of)
    same = [
        asked.member_id == rows.member_id,
        asked.event == rows.event_timestamp,
        asked.created == rows.created_timestamp,
    ]
    found = asked.left_join(rows, same)
    stamped = {"of", "event", "created", "member_id_right", "event_timestamp", "created_timestamp"}
    return found.select(*(name for name in found.columns if name not in stamped))


def write_training_frame(home: Home, master: str, asked: Path, names: Sequence[str], to: Path) -> None:
    """Join features to the rows of a file on Spark, into another file, in the order of `row`; see `as_known`."""
    tables = read_tables(master, {"asked": asked, "rows": home.features / "*.parquet"})
    rows = tables["rows"].select("member_id", "event_timestamp", "created_timestamp", *names)
    write_parquet(as_known(tables["asked"], rows).order_by("row"), to)
