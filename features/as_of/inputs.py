"""What a snapshot is computed from: a fingerprint of the settings, the code, and the rows that it can see.

A row is seen by every `as_of` after it happened and was known. Each table is read once: its rows are counted and their
hashes added up by the time they are seen from, so that the order of rows is no matter, and what an `as_of` sees is a
sum over the times before it. A term's renewal or cancellation is seen from the time it is decided, as a row of its own.
Members' attributes carry no time: the newest `as_of` follows them, those of the past keep what they were built with.
"""

import math
from bisect import bisect_left
from collections.abc import Collection, Sequence
from datetime import datetime
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Final

import ibis
import ibis.expr.types as ir

from features.as_of.known import ATTRIBUTES, READ, visible
from features.files import fingerprint
from features.programme import Programme

DECIDED: Final = ("renewed_at", "cancelled_at")  # features see whether it was decided, and not when
DAY: Final = 86_400
Sums = list[tuple[int, int]]


def fingerprints(
    tables: dict[str, ir.Table], dates: Sequence[datetime], *, programme: Programme, code: Sequence[Path]
) -> dict[datetime, str]:
    """Fingerprint everything that the snapshot of each `as_of` follows from.

    The newest one's begins with what it will be once it is not the newest any more.
    """
    seen = visible(tables)
    schema = {name: {column: str(kind) for column, kind in table.schema().items()} for name, table in seen.items()}
    same = fingerprint(schema, programme.model_dump(mode="json"), *code)
    sums = {name: _sums(_rows(table, READ[name][0]), dates) for name, table in sorted(seen.items())}
    ((_, attributes),) = _sums(_rows(seen["members"], "joined_at", but=()), dates[-1:])
    prints = {
        as_of: fingerprint(same, {name: total[place] for name, total in sums.items()})
        for place, as_of in enumerate(dates)
    }
    return prints | {dates[-1]: f"{prints[dates[-1]]}-{attributes}"}


def _rows(table: ir.Table, time: str, but: Collection[str] = ATTRIBUTES) -> ir.Table:
    """Give a hash of every row and decision, of all columns but some, and since when it is seen."""
    since = table[time]
    if "known_at" in table.columns:
        since = ibis.greatest(since, table.known_at.fill_null(since))
    columns = {name: table[name] for name in table.columns if name not in {*DECIDED, *but}}
    parts = [table.select(since=since, row=ibis.struct(columns).hash())]
    for name in set(DECIDED).intersection(table.columns):
        decision = ibis.struct(columns | {"decided": ibis.literal(name)}).hash()
        decided = table.mutate(since=ibis.greatest(since, table[name]), row=decision).filter(table[name].notnull())
        parts.append(decided.select("since", "row"))
    return ibis.union(*parts)


def _sums(rows: ir.Table, dates: Sequence[datetime]) -> Sums:
    """Count the rows that each date sees, and add up their hashes."""
    seconds = [int(as_of.timestamp()) for as_of in dates]
    step = math.gcd(DAY, *seconds)  # every date falls between two steps
    by_step = rows.group_by(step=rows.since.epoch_seconds() // step).aggregate(
        rows=rows.count(), total=rows.row.sum().cast("string")
    )
    steps = by_step.order_by("step").to_pyarrow().to_pydict()
    counts = list(accumulate(steps["rows"], initial=0))
    totals = list(accumulate(map(int, steps["total"]), initial=0))
    places = map(partial(bisect_left, steps["step"]), (second // step for second in seconds))
    return [(counts[place], totals[place]) for place in places]
