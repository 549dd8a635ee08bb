"""A chapter of history: the rows of one Parquet file, sorted by member, event time and creation, memory-mapped.

A folder of arrays, whole or absent:

numbers.npy  (n_rows, n_numbers) float64, NaN where missing    words.npy  (n_rows, n_words) int32, -1 where missing
event.npy, created.npy  (n_rows,) int64, microseconds          first.npy  (n_members + 1,) int64
members.arrow  the ids, ascending                              vocabulary.arrow  the words

A member's rows are those from its `first` up to the next one's.
"""

import glob
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.errors import ContractError
from features.files import write_folder_whole
from features.stores.packed import Schema

NEVER: Final = np.iinfo(np.int64).min
_PART: Final = 100_000  # rows read at once
_STRETCH: Final = 1_000_000  # rows put in order at once, and so in memory

Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Columns:
    """Name what a source calls the member, the time of an event and the time it became known."""

    member: str
    event: str
    created: str


@dataclass(frozen=True)
class Chapter:
    """Hold the rows of one file."""

    members: pa.Array
    first: Integers
    event: Integers
    created: Integers
    numbers: NDArray[np.float64]
    words: NDArray[np.int32]
    vocabulary: pa.Array
    begins: int  # the first event time
    ends: int  # the last one

    def latest(self, member: NDArray[np.int32], at: Integers, *, known: bool) -> Integers:
        """Find the row of each member that was the latest at a time; of one time the one created last; -1 for none.

        Parameters
        ----------
        member : places among the members, -1 for who is not there
        known : whether a row counts only from its creation on
        """
        lowest = self.first[member]
        row = _last_up_to(self.event, at, lowest, np.where(member < 0, lowest, self.first[member + 1]))
        hidden = np.flatnonzero((row >= lowest) & (self.created[row] > at)) if known else np.empty(0, np.int64)
        while hidden.size:  # a step back at a time: few rows wait long to become known
            row[hidden] -= 1
            hidden = hidden[row[hidden] >= lowest[hidden]]
            hidden = hidden[self.created[row[hidden]] > at[hidden]]
        row[row < lowest] = -1
        return row


def _last_up_to(event: Integers, at: Integers, low: Integers, high: Integers) -> Integers:
    """Find the last row from `low` up to before `high` whose event is not after `at`; `low - 1` if none is."""
    low, searched = low.copy(), np.arange(len(low))
    while (searched := searched[low[searched] < high[searched]]).size:
        middle = (low[searched] + high[searched]) // 2
        past = event[middle] <= at[searched]
        low[searched[past]] = middle[past] + 1
        high[searched[~past]] = middle[~past]
    return low - 1


def state_of(file: Path) -> tuple[int, ...]:
    """Give what changes when a file is replaced."""
    state = file.stat()
    return state.st_size, state.st_mtime_ns, state.st_ino


def open_chapter(folder: Path) -> Chapter:
    """Map what was written."""
    arrays = {path.stem: np.asarray(np.load(path, mmap_mode="r")) for path in folder.glob("*.npy")}
    texts = {path.stem: _read_texts(path) for path in folder.glob("*.arrow")}
    begins, ends = arrays.pop("span").tolist()
    return Chapter(**arrays, **texts, begins=begins, ends=ends)


def write_chapter(folder: Path, file: Path, *, schema: Schema, columns: Columns, db: duckdb.DuckDBPyConnection) -> None:
    """Sort the rows of a file into a folder, whole or not at all.

    A file that is sorted already is copied. Of any other only the keys are sorted in memory: as its rows are read, each
    goes to the stretch where it belongs, and one stretch after the other is then put in order.

    Raises
    ------
    ContractError
        If the file lacks a column, or a row its member or a time, or if another took its place meanwhile.
    """
    state = state_of(file)
    source = db.read_parquet(glob.escape(str(file)))
    absent = {*asdict(columns).values(), *schema.numbers, *schema.words} - set(source.columns)
    if absent:
        raise ContractError(f"{file} lacks {', '.join(sorted(absent))}; every file of a view holds all of it")

    def write(beside: Path) -> None:
        order = _write_keys(beside, source, columns)
        _write_features(beside, source, schema, order=order)
        if state_of(file) != state:  # it is read twice: its keys, then its features
            raise ContractError(f"{file} was replaced while it was read; ask again when it is written")

    write_folder_whole(folder, write)


def _write_keys(folder: Path, source: duckdb.DuckDBPyRelation, columns: Columns) -> Integers:
    """Write whose the rows are and their times, sorted, and give the sorted order of the file's rows."""
    expressions = (f'"{columns.member}"::VARCHAR', f'epoch_us("{columns.event}")', f'epoch_us("{columns.created}")')
    keys = source.project(", ".join(f"{e} AS key{place}" for place, e in enumerate(expressions))).to_arrow_table()
    if any(column.null_count for column in keys.columns):
        raise ContractError(f"a row lacks one of {', '.join(asdict(columns).values())}; every row needs them")
    members, member = _numbered(keys.column(0))
    event, created = (keys.column(place).to_numpy() for place in (1, 2))
    order = _order(member, event, created)
    member, event, created = member[order], event[order], created[order]
    _write_texts(folder / "members.arrow", members)
    np.save(folder / "first.npy", np.searchsorted(member, np.arange(len(members) + 1)))
    np.save(folder / "event.npy", event)
    np.save(folder / "created.npy", created)
    np.save(folder / "span.npy", [event.min(initial=-NEVER - 1), event.max(initial=NEVER)])
    return order


def _numbered(column: pa.ChunkedArray) -> tuple[pa.Array, Integers]:
    """Give the distinct texts, ascending, and of each row the place of its text among them."""
    encoded = column.dictionary_encode().combine_chunks()
    ascending = pc.sort_indices(encoded.dictionary)
    place = np.empty(len(ascending), dtype=np.int64)
    place[ascending] = np.arange(len(ascending))
    return encoded.dictionary.take(ascending), place[encoded.indices]


def _is_sorted(*keys: Integers) -> bool:
    ascends = np.ones(max(len(keys[0]) - 1, 0), dtype=bool)
    for key in reversed(keys):
        ascends = (key[:-1] < key[1:]) | ((key[:-1] == key[1:]) & ascends)
    return bool(ascends.all())


def _order(*keys: Integers) -> Integers:
    """Sort rows by one key after the other; rows that are sorted already cost a look."""
    if _is_sorted(*keys):
        return np.arange(len(keys[0]))
    table = pa.table({str(place): key for place, key in enumerate(keys)})
    order: Integers = pc.sort_indices(table, sort_keys=[(name, "ascending") for name in table.column_names]).to_numpy()
    return order.view(np.int64)


def _write_features(folder: Path, source: duckdb.DuckDBPyRelation, schema: Schema, *, order: Integers) -> None:
    numbers = np.lib.format.open_memmap(folder / "numbers.npy", "w+", "<f8", (len(order), len(schema.numbers)))
    words = np.lib.format.open_memmap(folder / "words.npy", "w+", "<i4", (len(order), len(schema.words)))
    landing, vocabulary, start = _landing(order), dict[str, int](), 0
    casts = [*(f'"{name}"::DOUBLE' for name in schema.numbers), *(f'"{name}"::VARCHAR' for name in schema.words)]
    for part in source.project(", ".join(casts)).to_arrow_reader(_PART):
        here = landing[start : start + part.num_rows]
        columns = iter(part.columns)
        values = (column.to_numpy(zero_copy_only=False) for column in islice(columns, len(schema.numbers)))
        numbers[here] = _side_by_side(values, np.empty((len(here), len(schema.numbers))))
        codes = (_codes(column, vocabulary) for column in columns)
        words[here] = _side_by_side(codes, np.empty((len(here), len(schema.words)), dtype=np.int32))
        start += part.num_rows
    for stretch in range(0, len(order), _STRETCH):
        rows = slice(stretch, stretch + _STRETCH)
        now = landing[order[rows]]
        if not _is_sorted(now):
            numbers[rows], words[rows] = numbers[now], words[now]
    _write_texts(folder / "vocabulary.arrow", pa.array(vocabulary, pa.string()))


def _side_by_side(columns: Iterable[NDArray[Any]], rows: NDArray[Any]) -> NDArray[Any]:
    """Fill rows column by column: in memory, which a mapped file is not."""
    for place, column in enumerate(columns):
        rows[:, place] = column
    return rows


def _landing(order: Integers) -> Integers:
    """Tell where the rows of a file land: in their stretch, in the order in which they come."""
    stretch = np.empty(len(order), dtype=np.uint16)
    stretch[order] = np.arange(len(order)) // _STRETCH
    landing = np.empty(len(order), dtype=np.int64)
    landing[np.argsort(stretch, kind="stable")] = np.arange(len(order))
    return landing


def _codes(column: pa.Array, vocabulary: dict[str, int]) -> NDArray[np.int32]:
    encoded = column.dictionary_encode()
    codes = [vocabulary.setdefault(word, len(vocabulary)) for word in encoded.dictionary.to_pylist()]
    places = encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
    numbered: NDArray[np.int32] = np.array([*codes, -1], dtype=np.int32)[places]
    return numbered


def _write_texts(path: Path, texts: pa.Array) -> None:
    table = pa.table({"text": texts})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def _read_texts(path: Path) -> pa.Array:
    with pa.memory_map(str(path)) as file:
        return pa.ipc.open_file(file).read_all().column("text").combine_chunks()
