"""What was known of members at many times: chapters of sorted rows, one per source file, searched by halving.

A join asks the chapter that ends last first, and another only for who may have a later row in it. Chapters may overlap
in time; the more they do, the more of them are asked.
"""

import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.files import alone, fingerprint
from features.memory import within
from features.stores import chapters
from features.stores.chapters import NEVER, Chapter, Columns, Integers, open_chapter, state_of, write_chapter
from features.stores.packed import Schema

_WRITERS: Final = 2  # chapters written at once: one sorts while the other waits for the disk
_BLOCK: Final = 16_384  # questions answered at once: what they touch stays in the processor's cache


@dataclass(frozen=True)
class History:
    """Hold every row of a source, the chapter that ends last first."""

    schema: Schema
    chapters: tuple[Chapter, ...]

    def as_known(
        self, names: Sequence[str], member_ids: pa.Array, at: Integers, *, known: bool, max_age: int | None
    ) -> list[pa.Array]:
        """Read features as they were at a time, an array per feature, null where missing or where there is no row.

        A row counts from its event time on. The latest event counts, and of one time the row created last.

        Parameters
        ----------
        member_ids, at : (n_asked,) whom, and when in microseconds
        known : whether a row counts only from its creation on: created at `at` it does, a microsecond later never
        max_age : microseconds after its event from which on a row counts no longer; just as old it does
        """
        numbers = [name for name in names if name in self.schema.numbers]
        words = [name for name in names if name in self.schema.words]
        number_places, word_places = self.schema.places(numbers, words)
        floats = np.empty((len(numbers), len(at)))
        codes = np.empty((len(words), len(at)), dtype=np.int32)
        vocabulary, codebooks = self._vocabulary()
        member, places = self._places(member_ids)

        def answer(start: int) -> None:
            block = slice(start, start + _BLOCK)
            floats[:, block], codes[:, block] = np.nan, -1
            which, row = self._latest(places, member[block], at[block], known=known, max_age=max_age)
            for number in np.unique(which[which >= 0]):
                asked = np.flatnonzero(which == number)
                chapter, found = self.chapters[number], row[asked]
                floats[:, start + asked] = chapter.numbers[found][:, number_places].T
                codes[:, start + asked] = codebooks[number][chapter.words[found][:, word_places]].T

        with ThreadPoolExecutor() as pool:
            list(pool.map(answer, range(0, len(at), _BLOCK)))
        values = dict(zip(numbers, (pa.array(column, from_pandas=True) for column in floats), strict=True))
        texts = (vocabulary.take(pa.array(column, mask=column < 0)) for column in codes)
        values |= zip(words, texts, strict=True)
        return [values[name] for name in names]

    def _latest(
        self, places: Sequence[NDArray[np.int32]], member: Integers, at: Integers, *, known: bool, max_age: int | None
    ) -> tuple[Integers, Integers]:
        """Find the chapter and the row in it that answer each question; a chapter of -1 where none does."""
        which, row = np.full(len(at), -1), np.full(len(at), -1)
        event, created = np.full(len(at), NEVER), np.full(len(at), NEVER)
        for number, chapter in enumerate(self.chapters):
            asked = np.flatnonzero((chapter.begins <= at) & (event <= chapter.ends))
            found = chapter.latest(places[number][member[asked]], at[asked], known=known)
            asked, found = asked[found >= 0], found[found >= 0]
            times, creations = chapter.event[found], chapter.created[found]
            later = (times > event[asked]) | ((times == event[asked]) & (creations > created[asked]))
            asked = asked[later]
            which[asked], row[asked] = number, found[later]
            event[asked], created[asked] = times[later], creations[later]
        if max_age is not None:
            which[(which >= 0) & (at - event > max_age)] = -1
        return which, row

    def _places(self, member_ids: pa.Array) -> tuple[Integers, list[NDArray[np.int32]]]:
        """Find the number of each question's member, and the place of each number in every chapter, -1 for none."""
        encoded = member_ids.dictionary_encode()
        nobody, places = len(encoded.dictionary), []
        members = pa.chunked_array([chapter.members for chapter in self.chapters], pa.string())
        # of all chapters in one call: it hashes whom is asked about, and that once
        numbers = pc.index_in(members, encoded.dictionary).fill_null(nobody).to_numpy()
        for start, stop in pairwise(np.cumsum([0, *(len(chapter.members) for chapter in self.chapters)])):
            place = np.full(nobody + 1, -1, dtype=np.int32)
            place[numbers[start:stop]] = np.arange(stop - start)
            place[nobody] = -1
            places.append(place)
        return encoded.indices.fill_null(nobody).to_numpy().astype(np.int64), places

    def _vocabulary(self) -> tuple[pa.Array, list[NDArray[np.int32]]]:
        """Give the words of all chapters, and what each chapter's codes are among them; -1 stays -1."""
        vocabularies = [chapter.vocabulary for chapter in self.chapters]
        vocabulary = pa.chunked_array(vocabularies, pa.string()).unique()
        places = (pc.index_in(words, vocabulary).to_numpy() for words in vocabularies)
        return vocabulary, [np.append(place, np.int32(-1)) for place in places]


def open_history(files: Sequence[Path], schema: Schema, columns: Columns, *, folder: Path) -> History:
    """Open the chapters of Parquet files; those of files that are new or changed are written first, and no others."""
    with alone(folder):
        wanted = {folder / _name(file, schema, columns): file for file in files}
        for old in set(folder.glob("*/")) - set(wanted):  # of files that are gone, and what a killed writer left
            shutil.rmtree(old)
        missing = {place: file for place, file in wanted.items() if not place.exists()}
        if missing:
            _write_chapters(missing, schema, columns, folder)
        opened = [open_chapter(place) for place in wanted]
    return History(schema, tuple(sorted(opened, key=lambda chapter: chapter.ends, reverse=True)))


def _write_chapters(files: dict[Path, Path], schema: Schema, columns: Columns, folder: Path) -> None:
    with duckdb.connect(config=within(folder)) as db, ThreadPoolExecutor(_WRITERS) as pool:

        def write(place: Path) -> None:
            write_chapter(place, files[place], schema=schema, columns=columns, db=db.cursor())

        list(pool.map(write, files))


def _name(file: Path, schema: Schema, columns: Columns) -> str:
    """Name a chapter after all that it depends on."""
    return fingerprint(str(file), state_of(file), schema.code, asdict(columns), Path(chapters.__file__))
