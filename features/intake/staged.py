"""One table's rows on their way into the warehouse: typed and checked one by one, spilled, not yet judged together."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features.intake.checks import CURRENCY, HAPPENED
from features.intake.parts import Parts
from features.intake.values import TEXT, fast_zone
from features.schema import Kind, Table
from features.warehouse import LOCAL_TIME

TYPES: Final[dict[Kind, pa.DataType]] = {
    "id": TEXT,
    "text": TEXT,
    "time": pa.timestamp("us", tz="UTC"),
    "money": pa.int64(),
    "count": pa.int64(),
    "share": pa.float64(),
    "flag": pa.bool_(),
}
Check = Callable[[pa.RecordBatch], tuple[pd.DataFrame, pd.Series]]  # a part as it came -> typed, and each row's reason


@dataclass(frozen=True)
class Staged:
    """Name the file of a table's rows, good and bad.

    Its columns are `c0`, `c1`, ... in the schema's order, since names may differ by their case alone, then `place`, the
    row's number as it came, and `reason`, why it is bad.
    """

    table: Table
    schema: pa.Schema
    rows: int
    path: Path
    parts: Parts  # the rows as they came
    made_ids: bool = False  # equal rows are no fault then

    @property
    def keys(self) -> tuple[str, ...]:
        """Name the columns by which a row is known again."""
        return (self.table.known[0],) if self.made_ids else self.table.unique

    def columns(self, *names: str) -> list[str]:
        """Give the file's names of columns."""
        return [f"c{self.schema.names.index(name)}" for name in names]


def happened(table: Table) -> str | None:
    """Name the column that says when a row happened, if the table has one."""
    return next((column.name for column in table.columns if column.name in HAPPENED), None)


def stage(table: Table, parts: Parts, path: Path, *, check: Check, zone: ZoneInfo, made_ids: bool = False) -> Staged:
    """Check a table part by part and spill it, with the time that the programme's wall clock shows."""
    came = parts()
    first, rows = next(came), 0
    schema = _schema(table, _timed(table, check(first)[0], zone), first)
    spilled = pa.schema([(f"c{number}", kind) for number, kind in enumerate(schema.types)])
    spilled = spilled.append(pa.field("place", pa.int64())).append(pa.field("reason", TEXT))
    with pq.ParquetWriter(path, spilled, compression="lz4", use_dictionary=False) as writer:
        for part in came:
            typed, reasons = check(part)
            places = np.arange(rows, rows + len(typed))
            frame = _timed(table, typed, zone).assign(place=places, reason=reasons).set_axis(spilled.names, axis=1)
            writer.write_table(pa.Table.from_pandas(frame, schema=spilled, preserve_index=False))
            rows += len(frame)
    names, types = schema.names, [pa.string() if kind == TEXT else kind for kind in schema.types]
    return Staged(table, pa.schema(list(zip(names, types, strict=True))), rows, path, parts, made_ids)


def _timed(table: Table, typed: pd.DataFrame, zone: ZoneInfo) -> pd.DataFrame:
    time = happened(table)
    if time is None:
        return typed
    local = typed[time].dt.tz_convert(fast_zone(zone, typed[time])).dt.tz_localize(None)
    return typed.drop(columns=LOCAL_TIME, errors="ignore").assign(**{LOCAL_TIME: local})


def _schema(table: Table, typed: pd.DataFrame, came: pa.RecordBatch) -> pa.Schema:
    kinds = {name: came.schema.field(name).type for name in came.schema.names} | {CURRENCY: TEXT}
    kinds |= {LOCAL_TIME: pa.timestamp("us")} if happened(table) else {}
    kinds |= {column.name: TYPES[column.kind] for column in table.columns}
    return pa.schema([(str(name), kinds[str(name)]) for name in typed.columns])
