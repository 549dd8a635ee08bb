"""The online format: per member and view one packed vector, its words, when it was true and when it became known.

Numbers are float64, little-endian, in the order of the row's schema, NaN where missing; words are a JSON list. A row
names its schema, and a reader takes features out by name, so that after a change of features a row is refused, never
misread. `packed_sqlite` and `packed_redis` keep such rows.
"""

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from features.errors import ContractError, CorruptError
from features.files import fingerprint

Words = tuple[str | None, ...]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Schema:
    """Name the features of a row, in the order in which they are packed."""

    numbers: tuple[str, ...]
    words: tuple[str, ...]

    @cached_property
    def code(self) -> str:
        """What rows of this schema carry."""
        return fingerprint(self.numbers, self.words)

    @property
    def width(self) -> int:
        """How many bytes a row's numbers take."""
        return 8 * len(self.numbers)

    def places(self, numbers: Sequence[str], words: Sequence[str]) -> tuple[list[int], list[int]]:
        """Find features by their names.

        Raises
        ------
        ContractError
            If one is not among them.
        """
        try:
            return [self._number[name] for name in numbers], [self.words.index(name) for name in words]
        except (KeyError, ValueError) as error:
            absent = [*(n for n in numbers if n not in self.numbers), *(w for w in words if w not in self.words)]
            raise ContractError(
                f"the online store was filled with other features, without {', '.join(absent)}; "
                f"`holdfast features materialize` fills it anew"
            ) from error

    @cached_property
    def _number(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.numbers)}


@dataclass(frozen=True)
class Batch:
    """Hold rows to write; times are microseconds since 1970 in UTC."""

    member_ids: Sequence[str]
    numbers: NDArray[np.float64]  # (n_members, n_numbers), in the order of the schema
    words: Sequence[Words]  # a tuple per member, in the order of the schema
    event_timestamp: Sequence[int]
    created: Sequence[int]


@dataclass(frozen=True)
class Vectors:
    """Hold rows as read, one per id asked for and in that order, features in the order asked."""

    numbers: NDArray[np.float64]  # (n_members, n_numbers), NaN where missing
    words: tuple[Words, ...]
    known: NDArray[np.bool_]  # (n_members,)
    event_timestamp: tuple[datetime | None, ...]  # UTC


class Row(NamedTuple):
    """Hold a row as it is kept."""

    member_id: str
    event_timestamp: int
    schema: str
    numbers: bytes
    words: str
    created: int


class PackedTable(Protocol):
    """Write and read packed vectors; one object may be used by many threads."""

    def create(self) -> None:
        """Make the table where there is none."""
        ...

    def fill(self, view: str, schema: Schema, batches: Iterable[Batch]) -> None:
        """Store rows of all members, as `write` does, and let all of them be seen at once, or none."""
        ...

    def write(self, view: str, schema: Schema, batches: Iterable[Batch]) -> None:
        """Store rows.

        A row whose (event_timestamp, created) is older than that of the one that stands is left out; one as new
        replaces it, so that a snapshot that is computed again counts.
        """
        ...

    def forget(self, view: str) -> None:
        """Delete every row of a view."""
        ...

    def erase(self, view: str, member_ids: Sequence[str]) -> int:
        """Delete the rows of members, and say how many there were."""
        ...

    def read(self, view: str, member_ids: Sequence[str], *, numbers: Sequence[str], words: Sequence[str]) -> Vectors:
        """Read features of members.

        Raises
        ------
        ContractError
            If a row was written without one of the features.
        NotFoundError
            If there is no table yet.
        """
        ...

    def members(self, view: str) -> Iterator[list[str]]:
        """Name who has a row, each once, some at a time; nobody where there is no table."""
        ...

    def rows(self, view: str, member_ids: Sequence[str]) -> list[tuple[Schema, Row]]:
        """Give the rows of members as they are kept, of those that have one."""
        ...

    def close(self) -> None:
        """Let go of file or server."""
        ...


def microseconds(time: datetime) -> int:
    """Count microseconds since 1970; a time without a zone is UTC, as in Feast's contract.

    >>> microseconds(datetime(1970, 1, 1, 0, 0, 1, 5))
    1000005
    """
    aware = time if time.tzinfo else time.replace(tzinfo=UTC)
    return (aware - _EPOCH) // timedelta(microseconds=1)


@lru_cache(maxsize=65_536)  # they are categories, so that few are different
def text(words: Words) -> str:
    """Give a member's words as they are kept.

    >>> text(("new", None))
    '["new", null]'
    """
    return json.dumps(words, ensure_ascii=False)


def repacked(kept: Sequence[tuple[Schema, Row]]) -> Iterator[tuple[Schema, Batch]]:
    """Give rows as they are kept as batches to write, one for each schema."""
    for schema in {schema.code: schema for schema, _ in kept}.values():
        rows = [row for its, row in kept if its.code == schema.code]
        packed = np.frombuffer(b"".join(row.numbers for row in rows), dtype="<f8")
        yield (
            schema,
            Batch(
                member_ids=[row.member_id for row in rows],
                numbers=packed.reshape(len(rows), len(schema.numbers)),
                words=[tuple(json.loads(row.words)) for row in rows],
                event_timestamp=[row.event_timestamp for row in rows],
                created=[row.created for row in rows],
            ),
        )


def vectors(
    rows: Sequence[Row],
    schemas: Mapping[str, Schema],
    member_ids: Sequence[str],
    *,
    numbers: Sequence[str],
    words: Sequence[str],
) -> Vectors:
    """Lay rows out as they were asked for.

    Parameters
    ----------
    schemas : of every row, by code

    Raises
    ------
    ContractError
        If a row was written without one of the features.
    CorruptError
        If a row has another length than its schema.
    """
    place = {row.member_id: number for number, row in enumerate(rows)}
    order = np.array([place.get(member_id, -1) for member_id in member_ids], dtype=np.intp)
    known = order >= 0
    X, said = _decode(rows, schemas, numbers=numbers, words=words)
    times = {row.event_timestamp: _EPOCH + timedelta(microseconds=row.event_timestamp) for row in rows}
    values = np.full((len(member_ids), len(numbers)), np.nan)
    values[known] = X[order[known]]
    nothing: Words = (None,) * len(words)
    return Vectors(
        numbers=values,
        words=tuple(said[at] if at >= 0 else nothing for at in order.tolist()),
        known=known,
        event_timestamp=tuple(times[rows[at].event_timestamp] if at >= 0 else None for at in order.tolist()),
    )


def _decode(
    rows: Sequence[Row], schemas: Mapping[str, Schema], *, numbers: Sequence[str], words: Sequence[str]
) -> tuple[NDArray[np.float64], list[Words]]:
    """Unpack rows; those of one schema, mostly all, in one go."""
    X = np.empty((len(rows), len(numbers)))
    said: list[Words] = [()] * len(rows)
    for code in {row.schema for row in rows}:
        schema = schemas[code]
        columns, places = schema.places(numbers, words)
        chosen = [at for at, row in enumerate(rows) if row.schema == code]
        packed = b"".join([rows[at].numbers for at in chosen])
        if len(packed) != schema.width * len(chosen):
            raise CorruptError(
                "a vector in the online store has another length than its schema; empty the store, then "
                "`holdfast features materialize`"
            )
        X[chosen] = np.frombuffer(packed, dtype="<f8").reshape(len(chosen), -1)[:, columns]
        picked = _picked({rows[at].words for at in chosen}, places)
        for at in chosen:
            said[at] = picked[rows[at].words]
    return X, said


def _picked(distinct: Collection[str], places: Sequence[int]) -> dict[str, Words]:
    spoken = json.loads(f"[{','.join(distinct)}]")
    return {said: tuple(all_words[place] for place in places) for said, all_words in zip(distinct, spoken, strict=True)}
