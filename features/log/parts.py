"""The parts of batches: decisions by the million stand in Parquet files that the log vouches for.

What every decision of a part shares stands once in the file's metadata, as JSON under `holdfast`; the rest are columns.
Both are named as the fields of `features.decisions.Decision`.
"""

import json
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.errors import CorruptError
from features.files import sha256
from features.log.entries import Part
from features.log.rows import TIMES

KEY: Final = b"holdfast"
BY_OFFER: Final = frozenset({"uplift", "cost", "net_value"})
_READ: Final = 65_536  # rows turned into Python values at once


def read_part(folder: Path, part: Part, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Read the decisions of a part as rows of the log.

    Raises
    ------
    CorruptError
        If the file is gone or is not what was written.
    """
    with pq.ParquetFile(intact(folder, part)) as file:
        blank = {**dict.fromkeys(columns), **_shared(file.schema_arrow)}
        for batch in file.iter_batches(batch_size=_READ):
            for row in batch.to_pylist():
                whole = {**blank, **row}
                yield {name: _plain(name, whole[name]) for name in columns}


def intact(folder: Path, part: Part) -> Path:
    """Give the file of a part, once it is what was written.

    Raises
    ------
    CorruptError
        If the file is gone or is not that.
    """
    path = folder / part.path
    if not path.exists() or sha256(path) != part.sha256:
        raise CorruptError(f"{path} is not the part of batch {part.batch_id} that was decided; put that file back")
    return path


def find_in_part(folder: Path, part: Part, columns: Sequence[str], decision_id: str) -> dict[str, Any] | None:
    """Look one decision up."""
    found = pq.read_table(folder / part.path, filters=pc.field("decision_id") == decision_id)
    if not len(found):
        return None
    whole = {**dict.fromkeys(columns), **_shared(found.schema), **found.to_pylist()[0]}
    return {name: _plain(name, whole[name]) for name in columns}


def rows_of_member(folder: Path, part: Part, member_id: str) -> list[dict[str, Any]]:
    """Read the decisions of a part on one member."""
    found = pq.read_table(folder / part.path, filters=pc.field("member_id") == member_id)
    return [{**_shared(found.schema), **row} for row in found.to_pylist()]


def held_by_part(folder: Path, part: Part, decision_ids: Collection[str]) -> list[str]:
    """Say which of some decisions a part holds."""
    among = pc.field("decision_id").isin(list(decision_ids))
    found: list[str] = pq.read_table(folder / part.path, columns=["decision_id"], filters=among)[
        "decision_id"
    ].to_pylist()
    return found


def _shared(schema: pa.Schema) -> dict[str, Any]:
    shared: dict[str, Any] = json.loads(schema.metadata[KEY])
    return {name: datetime.fromisoformat(value) if name in TIMES else value for name, value in shared.items()}


def _plain(name: str, value: Any) -> Any:  # noqa: ANN401 (any column)
    if name == "features":
        return np.frombuffer(value or b"", dtype="<f4")
    if name in BY_OFFER and None in value:  # nothing is made of who opted out
        return []
    if name == "scores":  # batches ask the models alone
        return b""
    return value.astimezone(UTC) if isinstance(value, datetime) else value
