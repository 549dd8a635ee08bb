"""The quarantine: refused rows as they came, each with its source, its number there and every reason."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

from duckdb import DuckDBPyConnection as Queries

from features.files import write_whole
from features.home import Home
from features.intake.staged import Staged


def quarantine(home: Home, queries: Queries, staged: Staged, *, source: str, key: str) -> None:
    """Write a table's refused rows, one JSON object a line; the source is read again for them."""

    def write(path: Path) -> None:
        origin = {"table": staged.table.name, "source": source}
        encode = json.JSONEncoder(default=str, allow_nan=False).encode
        with path.open("w", encoding="utf-8") as file:
            file.writelines(f"{encode(origin | record)}\n" for record in _refused(queries, staged))

    write_whole(home.quarantine / f"{staged.table.name}-{key}.jsonl", write)


def _refused(queries: Queries, staged: Staged) -> Iterator[dict[str, object]]:
    bad = f"SELECT place, reason FROM {staged.table.name}_bad WHERE place BETWEEN ? AND ? ORDER BY place"
    first = 0
    for part in staged.parts():
        found = queries.execute(bad, [first, first + part.num_rows - 1]).fetchall()
        rows = part.take([place - first for place, _ in found]).to_pylist() if found else []
        for (place, reason), row in zip(found, rows, strict=True):
            yield {"row": place, "reason": reason, "values": {name: _shown(value) for name, value in row.items()}}
        first += part.num_rows


def _shown(value: object) -> object:
    """Make a value fit for JSON, which knows no infinity; what is no number is missing."""
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
