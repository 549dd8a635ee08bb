"""Everybody of one snapshot, part by part, as Arrow and NumPy hold them: no member is a Python object."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.errors import ContractError
from features.home import Home
from features.snapshots import built


@dataclass(frozen=True)
class Population:
    """Hold on to a snapshot's file; a part is a group of its rows, the unit in which Parquet is read."""

    path: Path
    as_of: datetime

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """How many members each part has."""
        footer = pq.read_metadata(self.path)
        return tuple(footer.row_group(part).num_rows for part in range(footer.num_row_groups))

    def start(self, part: int) -> int:
        """Count the members before a part."""
        return sum(self.sizes[:part])

    def read(self, columns: Sequence[str], part: int | None = None) -> pa.Table:
        """Read columns of one part, or of all.

        Raises
        ------
        ContractError
            If the snapshot lacks one: it is older than the release, or than this program.
        """
        lacking = sorted({*columns} - {*self._schema.names})
        if lacking:
            raise ContractError(f"{self.path.name} lacks {', '.join(lacking)}; `holdfast features build` computes them")
        with pq.ParquetFile(self.path) as file:
            wanted = list(dict.fromkeys(columns))
            if part is None:
                return file.read(columns=wanted, use_threads=False)
            return file.read_row_group(part, columns=wanted, use_threads=False)

    @cached_property
    def _schema(self) -> pa.Schema:
        return pq.read_schema(self.path)


def latest_population(home: Home) -> Population:
    """Open the newest snapshot."""
    as_of = built(home)[-1]
    return Population(home.snapshot(as_of), as_of)


def matrix(rows: pa.Table, names: Sequence[str]) -> NDArray[np.float32]:
    """Lay number columns side by side, `(n_rows, n_names)`, NaN where missing."""
    columns = np.empty((len(names), rows.num_rows), dtype=np.float32)  # a column at a time: no row is jumped to
    for place, name in enumerate(names):
        columns[place] = rows[name].to_numpy()
    return np.ascontiguousarray(columns.T)


def facts(rows: pa.Table, names: Sequence[str]) -> dict[str, NDArray[np.generic]]:
    """Give columns by name, `(n_rows,)` each: numbers as float64, NaN where missing, words as objects, None there."""
    return {
        name: _words(rows[name]) if pa.types.is_string(rows[name].type) else rows[name].to_numpy() for name in names
    }


def _words(column: pa.ChunkedArray) -> NDArray[np.object_]:
    """Make one object per word, not one per row."""
    coded = column.combine_chunks().dictionary_encode()
    words = np.array([*coded.dictionary.to_pylist(), None], dtype=object)
    places: NDArray[np.int32] = coded.indices.fill_null(len(words) - 1).to_numpy()
    return words[places]
