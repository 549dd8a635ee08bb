"""What was known of members at many times: rows sorted by member, event time and creation, searched by halving.

The files of a folder, each memory-mapped, so that a join reads only the rows it answers with:

numbers.f8     (n_rows, n_numbers) float64, NaN where missing      words.i4    (n_rows, n_words), -1 where missing
created.i8     (n_rows,) microseconds                              keys.i8     (n_rows,) member * n_times + time
members.parquet, about.json    the member ids, the distinct event times, the vocabulary, the schema
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.errors import ContractError
from features.files import fingerprint
from features.packed import Schema

_PART: Final = 100_000  # rows in memory at once while they are sorted into files
_BLOCK: Final = 8_192  # rows gathered at once: they stay in the processor's cache


@dataclass(frozen=True)
class Columns:
    """Name what a source calls the member, the time of an event and the time it became known."""

    member: str
    event: str
    created: str


@dataclass(frozen=True)
class History:
    """Hold every row of a source, sorted."""

    schema: Schema
    members: pa.Array
    times: NDArray[np.int64]  # the distinct event times, ascending, microseconds
    keys: NDArray[np.int64]
    created: NDArray[np.int64]
    numbers: NDArray[np.float64]
    words: NDArray[np.int32]
    vocabulary: tuple[str, ...]

    def latest(
        self, member_ids: pa.Array, at: NDArray[np.int64], *, known: bool, max_age: int | None
    ) -> NDArray[np.int64]:
        """Find the row of each member that was the latest at a time; of one time the one created last; -1 for none.

        Args:
            known: whether a row counts only from its creation on.
            max_age: microseconds after which a row counts no longer.
        """
        member = pc.fill_null(pc.index_in(member_ids, self.members), -1).to_numpy(zero_copy_only=False).astype(np.int64)
        time = np.searchsorted(self.times, at, side="right") - 1
        n_times = len(self.times)
        row: NDArray[np.int64] = np.searchsorted(self.keys, member * n_times + time, side="right") - 1
        row[(member < 0) | (time < 0)] = -1
        first = member * n_times  # the smallest key of the member
        row[(row >= 0) & (self.keys[row] < first)] = -1
        hidden = np.flatnonzero((row >= 0) & (self.created[row] > at)) if known else np.empty(0, np.int64)
        while len(hidden):  # a step back at a time: few rows wait long to become known
            row[hidden] -= 1
            row[hidden[(row[hidden] >= 0) & (self.keys[row[hidden]] < first[hidden])]] = -1
            hidden = hidden[(row[hidden] >= 0) & (self.created[row[hidden]] > at[hidden])]
        if max_age is not None:
            row[(row >= 0) & (at - self.times[self.keys[row] % n_times] > max_age)] = -1
        return row

    def take(self, row: NDArray[np.int64], names: Sequence[str]) -> list[pa.Array]:
        """Read features of rows, null where missing or where there is no row."""
        numbers, words = [n for n in names if n in self.schema.numbers], [n for n in names if n in self.schema.words]
        places = self.schema.places(numbers, words)
        floats = _gather(self.numbers, row, places[0], np.nan)
        codes = _gather(self.words, row, places[1], -1)
        values = {name: pa.array(column, from_pandas=True) for name, column in zip(numbers, floats, strict=True)}
        vocabulary = pa.array(self.vocabulary, pa.string())
        for name, column in zip(words, codes, strict=True):
            values[name] = vocabulary.take(pa.array(column, mask=column < 0))
        return [values[name] for name in names]


def open_history(files: Sequence[Path], schema: Schema, columns: Columns, *, folder: Path) -> History:
    """Open the sorted rows of Parquet files, and sort them first if a file changed since."""
    state = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    place = folder / fingerprint(state, asdict(schema), asdict(columns))
    if not place.exists():
        _sort_into(place, files, schema=schema, columns=columns)
    about = json.loads((place / "about.json").read_bytes())
    n = about["rows"]
    return History(
        schema=schema,
        members=pq.read_table(place / "members.parquet").column("member").combine_chunks(),
        times=np.array(about["times"], dtype=np.int64),
        keys=_mapped(place / "keys.i8", "<i8", (n,)),
        created=_mapped(place / "created.i8", "<i8", (n,)),
        numbers=_mapped(place / "numbers.f8", "<f8", (n, len(schema.numbers))),
        words=_mapped(place / "words.i4", "<i4", (n, len(schema.words))),
        vocabulary=tuple(about["vocabulary"]),
    )


def _mapped(path: Path, kind: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if not all(shape):
        return np.empty(shape, dtype=kind)
    return np.memmap(path, dtype=kind, mode="r", shape=shape)


def _gather(values: NDArray[Any], row: NDArray[np.int64], places: list[int], missing: float) -> NDArray[Any]:
    """Take columns of rows, as one contiguous array per column."""
    taken = np.full((len(places), len(row)), missing, dtype=values.dtype)
    if not places or not len(values):
        return taken
    for start in range(0, len(row), _BLOCK):
        part = slice(start, start + _BLOCK)
        found = row[part]
        taken[:, part] = values[np.maximum(found, 0)][:, places].T
        taken[:, part][:, found < 0] = missing
    return taken


def _sort_into(place: Path, files: Sequence[Path], *, schema: Schema, columns: Columns) -> None:
    """Sort rows into files beside the place, then name them; what was sorted before is deleted."""
    beside = place.with_name(f".{place.name}.{os.getpid()}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    try:
        _write(beside, files, schema=schema, columns=columns)
        for old in place.parent.glob("[!.]*"):
            shutil.rmtree(old)
        beside.rename(place)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _write(folder: Path, files: Sequence[Path], *, schema: Schema, columns: Columns) -> None:
    with duckdb.connect(config={"temp_directory": str(folder / "spill")}) as db:
        source = db.read_parquet([str(file) for file in files], union_by_name=True)
        member, event, created = (f'"{name}"' for name in (columns.member, columns.event, columns.created))
        absent = source.filter(f"{member} IS NULL OR {event} IS NULL OR {created} IS NULL").limit(1).fetchall()
        if absent:
            raise ContractError(f"a row lacks one of {', '.join(asdict(columns).values())}; every row needs them")
        times = [time for (time,) in source.project(f"epoch_us({event})").distinct().fetchall()]
        features = [f'"{name}"' for name in (*schema.numbers, *schema.words)]
        stamps = [f"{member} AS member", f"epoch_us({event}) AS event", f"epoch_us({created}) AS created"]
        parts = source.project(", ".join([*stamps, *features])).order("member, event, created")
        about = _write_parts(folder, parts.to_arrow_reader(_PART), schema=schema, times=np.array(sorted(times)))
    (folder / "about.json").write_text(json.dumps(about), encoding="utf-8")
    shutil.rmtree(folder / "spill", ignore_errors=True)


def _write_parts(
    folder: Path, parts: pa.RecordBatchReader, *, schema: Schema, times: NDArray[np.int64]
) -> dict[str, Any]:
    members: list[str] = []
    vocabulary: dict[str, int] = {}
    rows = 0
    names = ("numbers.f8", "words.i4", "created.i8", "keys.i8")
    numbers, words, created, keys = files = [(folder / name).open("wb") for name in names]
    for part in parts:
        values = [part.column(name).to_numpy(zero_copy_only=False) for name in schema.numbers]
        np.array(values, dtype="<f8").T.tofile(numbers)
        codes = [_codes(part.column(name), vocabulary) for name in schema.words]
        np.array(codes, dtype="<i4").T.tofile(words)
        part.column("created").to_numpy().astype("<i8").tofile(created)
        time = np.searchsorted(times, part.column("event").to_numpy())
        (_numbered(part.column("member"), members) * len(times) + time).astype("<i8").tofile(keys)
        rows += part.num_rows
    for file in files:
        file.close()
    pq.write_table(pa.table({"member": pa.array(members, pa.string())}), folder / "members.parquet")
    return {"rows": rows, "times": times.tolist(), "vocabulary": list(vocabulary)}


def _codes(column: pa.Array, vocabulary: dict[str, int]) -> NDArray[np.int32]:
    encoded = column.dictionary_encode()
    codes = [vocabulary.setdefault(word, len(vocabulary)) for word in encoded.dictionary.to_pylist()]
    places = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    numbered: NDArray[np.int32] = np.array([*codes, -1], dtype=np.int32)[places]
    return numbered


def _numbered(column: pa.Array, members: list[str]) -> NDArray[np.int64]:
    """Give each member its number; they come sorted, so that only the first may have come in the part before."""
    encoded = column.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    again = bool(members) and members[-1] == names[0]
    first = len(members) - again
    members += names[again:]
    numbered: NDArray[np.int64] = encoded.indices.to_numpy().astype(np.int64) + first
    return numbered
