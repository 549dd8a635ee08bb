"""Packed vectors on Redis, one server or a cluster: a string per member, which expires unless it is written again.

A key is `<prefix>:<view>:{<bucket>}:<member_id>`; the bucket, a hash of the id, is what a cluster places keys by, so
that a script or an MGET over one bucket stays in one slot. The script compares times where the rows are, so that no
writer, however late, replaces a newer row. A row is seen whole or not at all; of two members, one may be seen as before
a write and one as after it.

A filling is of all members, and shown at once: its rows carry its number and lie beside those that are seen until then.
A key in each bucket says up to which number rows are shown, and a reader asks for it with the rows: what one says holds
for all of them. What was filled and never shown, as whoever filled died, is replaced by the next filling.
"""

import json
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Any, Final, TypeVar

from features.errors import ContractError, CorruptError, NotFoundError
from features.stores.packed import Batch, Row, Schema, Vectors, vectors
from features.stores.redis_row import HEAD, SEEN, TIDY, WRITE, packed_rows, shown_row
from features.stores.servers import Command, Servers

T = TypeVar("T")

_BUCKETS: Final = 256
_TAG: Final = [b"%02x}:" % bucket for bucket in range(_BUCKETS)]
_ASKED: Final = 1_000  # keys in one MGET: half a millisecond, for which everybody else waits
_WRITE_SECONDS: Final = 5.0  # a write may wait for the disk of the server
_DAY: Final = 86_400
_TRIES: Final = 3  # of a read, while a filling begins to be shown
_FILLING_SECONDS: Final = 60  # after which one that no longer says that it goes on has died


class RedisTable:
    """Keep packed vectors in Redis."""

    def __init__(self, address: str, *, prefix: str, days: int, timeout_ms: int) -> None:
        self._prefix, self._seconds = prefix, days * _DAY
        self._reader, self._writer = Servers(address, timeout_ms / 1000), Servers(address, _WRITE_SECONDS)
        self._schemas: dict[str, Schema] = {}
        self._last = 0  # the filling that was shown when this looked last

    def create(self) -> None:
        """Note that there is a table, so that one that holds nobody yet is not taken for one that was lost."""
        self._writer.send(self._notes(Schema((), ())))

    def write(self, view: str, schema: Schema, batches: Iterable[Batch]) -> None:
        """Store rows, each shown at once; one older than the one that is shown is left out.

        Raises
        ------
        UnavailableError
            If a server doesn't answer; what was written until then stands, and writing it again does no harm.
        """
        self._send(view, schema, batches)

    def fill(self, view: str, schema: Schema, batches: Iterable[Batch]) -> None:
        """Store rows of all members, and show them all at once.

        Raises
        ------
        UnavailableError
            If a server doesn't answer; nothing of it is shown.
        ContractError
            If somebody else fills the view.
        """
        key = f"{self._prefix}:filling:{view}".encode()
        (alone,) = self._writer.send([Command(key, ("SET", key, b"", "NX", "EX", _FILLING_SECONDS))])
        if not alone:
            raise ContractError(
                f"another process fills the online store; let it end (one that died is given up after "
                f"{_FILLING_SECONDS} s), then once more"
            )
        try:
            number = 1 + max(int(shown or 0) for shown in self._at_all(view, lambda place: ("GET", place)))
            self._send(view, schema, batches, number, Command(key, ("EXPIRE", key, _FILLING_SECONDS)))
            self._at_all(view, lambda place: ("SET", place, number, "EX", 2 * self._seconds))
            self._tidy(view)
        finally:
            self._writer.send([Command(key, ("DEL", key))])

    def _send(self, view: str, schema: Schema, batches: Iterable[Batch], filling: int = 0, *notes: Command) -> None:
        with ThreadPoolExecutor(1) as sending:  # the next rows are packed while the servers take these
            sent: Future[list[None]] | None = None
            for batch in batches:
                commands = [*notes, *self._notes(schema), *self._scripts(view, schema, batch, filling)]
                if sent:
                    sent.result()
                sent = sending.submit(self._writer.send, commands)
            if sent:
                sent.result()

    def _tidy(self, view: str) -> None:
        """Let go of the rows that others stand for."""
        for _ in self._go_through(view, TIDY):
            pass

    def _go_through(self, view: str, script: str) -> Iterator[list[Any]]:
        """Run a script over the rows of a view, some at a time, and give its answers."""
        start = f"{self._prefix}:{view}:{{"
        for keys in self._writer.keys(f"{_literally(start)}*"):
            buckets = [int(key[len(start.encode()) :][:2], 16) for key in keys]
            parts = _by_bucket(keys, buckets)
            yield self._writer.send([self._script(view, script, part, bucket) for bucket, part in parts])

    def forget(self, view: str) -> None:
        """Delete every row of a view."""
        self._writer.delete(f"{_literally(f'{self._prefix}:{view}')}:{{*")

    def erase(self, view: str, member_ids: Sequence[str]) -> int:
        """Delete the rows of members, and say how many there were."""
        keys, _ = _keys(self._prefix, view, member_ids)
        return sum(self._writer.send([Command(key, ("DEL", key)) for key in keys]))

    def read(self, view: str, member_ids: Sequence[str], *, numbers: Sequence[str], words: Sequence[str]) -> Vectors:
        """Read features of members.

        Raises
        ------
        ContractError
            If a row was written without one of the features.
        NotFoundError
            If there is no table: none was made, or the server lost it.
        UnavailableError
            If a server doesn't answer in time.
        """
        ids = list(dict.fromkeys(member_ids))
        found = {i: row for i, row in zip(ids, self._values(view, ids), strict=True) if row is not None}
        if not found:
            self._check_made()
        rows = self._rows(found)
        return vectors(rows, self._schemas, member_ids, numbers=numbers, words=words)

    def members(self, view: str) -> Iterator[list[str]]:
        """Name who has a row, each once, some at a time: a server that makes room meanwhile names some twice.

        Who has only one that was filled and not shown yet has none.
        """
        named = set[bytes]()
        for seen in self._go_through(view, SEEN):
            names = {key.partition(b"}:")[2] for key in chain.from_iterable(seen)} - named
            named |= names
            yield [name.decode() for name in names]

    def rows(self, view: str, member_ids: Sequence[str]) -> list[tuple[Schema, Row]]:
        """Give the rows of members as they are kept, of those that have one."""
        values = zip(member_ids, self._values(view, member_ids), strict=True)
        rows = self._rows({member_id: value for member_id, value in values if value is not None})
        return [(self._schemas[row.schema], row) for row in rows]

    def close(self) -> None:
        """Let go of the servers."""
        self._reader.close()
        self._writer.close()

    @property
    def _catalogue(self) -> bytes:
        return f"{self._prefix}:schemas".encode()

    def _notes(self, schema: Schema) -> list[Command]:
        """Note a schema; it is let go of no earlier than the last row that names it."""
        names, key = json.dumps([schema.numbers, schema.words]), self._catalogue
        return [
            Command(key, ("HSET", key, schema.code, names)),
            Command(key, ("EXPIRE", key, self._seconds)),
        ]

    def _shown(self, view: str, bucket: int) -> bytes:
        """Name the key of a bucket that says up to which filling rows are shown."""
        return f"{self._prefix}:shown:{view}:{{".encode() + _TAG[bucket]

    def _at_all(self, view: str, words: Callable[[bytes], tuple[Any, ...]]) -> list[Any]:
        """Say the same of every bucket's key."""
        places = [self._shown(view, bucket) for bucket in range(_BUCKETS)]
        return self._writer.send([Command(place, words(place)) for place in places])

    def _script(self, view: str, script: str, keys: Sequence[bytes], bucket: int, *values: Any) -> Command:  # noqa: ANN401 (bytes and numbers)
        return Command(keys[0], ("EVAL", script, 1 + len(keys), self._shown(view, bucket), *keys, *values))

    def _scripts(self, view: str, schema: Schema, batch: Batch, filling: int) -> Iterator[Command]:
        """Pack rows, and give a script for each bucket of them."""
        keys, buckets = _keys(self._prefix, view, batch.member_ids)
        for bucket, part in _by_bucket(zip(keys, packed_rows(schema, batch, filling), strict=True), buckets):
            names, rows = zip(*part, strict=True)
            yield self._script(view, WRITE, names, bucket, self._seconds, *rows)

    def _values(self, view: str, member_ids: Sequence[str]) -> list[bytes | None]:
        """Give the rows that are shown; asked again where a filling was shown in between.

        Raises
        ------
        NotFoundError
            If the view is being filled for the first time.
        """
        keys, buckets = _keys(self._prefix, view, member_ids)
        parts = _by_bucket(keys, buckets) if self._reader.clustered else _by_size(keys, buckets)
        places = [self._shown(view, bucket) for bucket, _ in parts]  # asked first, as what is shown is there by then
        asked = [Command(place, ("GET", place)) for place in places]
        asked += [Command(part[0], ("MGET", *part)) for _, part in parts]
        known, names = self._last, [*chain.from_iterable(part for _, part in parts)]
        for _ in range(_TRIES):
            answers = self._reader.send(asked)
            said = [int(shown or 0) for shown in answers[: len(places)]]
            known, before = max(known, *said) if any(said) else 0, known
            value = dict(zip(names, chain.from_iterable(answers[len(places) :]), strict=True))
            rows = [shown_row(value[key] or b"", known) for key in keys]
            hidden = any(row is None and value[key] for key, row in zip(keys, rows, strict=True))
            if not hidden and (known == before or min(said) == known):  # else some were read before all was there
                break
        self._last = known
        if hidden and not known:
            raise NotFoundError("the online store in Redis is being filled for the first time; wait until it is whole")
        return rows

    def _rows(self, found: Mapping[str, bytes]) -> list[Row]:
        heads = [HEAD.unpack_from(value) for value in found.values()]
        codes = {head[-1] for head in heads}
        self._learn({code.decode() for code in codes})
        ends = {code: HEAD.size + self._schemas[code.decode()].width for code in codes}
        return [
            Row(member_id, event, code.decode(), value[HEAD.size : ends[code]], value[ends[code] :].decode(), created)
            for (member_id, value), (_, _, event, created, code) in zip(found.items(), heads, strict=True)
        ]

    def _learn(self, codes: Collection[str]) -> None:
        if absent := sorted(set(codes) - self._schemas.keys()):
            (found,) = self._reader.send([Command(self._catalogue, ("HMGET", self._catalogue, *absent))])
            if None in found:
                raise CorruptError(
                    "a vector in the online store names no schema that is kept there; "
                    "`holdfast features materialize` fills it anew"
                )
            for code, (numbers, words) in zip(absent, map(json.loads, found), strict=True):
                self._schemas[code] = Schema(tuple(numbers), tuple(words))

    def _check_made(self) -> None:
        (made,) = self._reader.send([Command(self._catalogue, ("EXISTS", self._catalogue))])
        if not made:
            raise NotFoundError("the online store in Redis is empty; `holdfast features materialize` fills it")


def _keys(prefix: str, view: str, member_ids: Iterable[str]) -> tuple[list[bytes], list[int]]:
    """Give the key of each member, and the bucket that it names."""
    start = f"{prefix}:{view}:{{".encode()
    names = [member_id.encode() for member_id in member_ids]
    buckets = [zlib.crc32(name) % _BUCKETS for name in names]
    return [start + _TAG[bucket] + name for bucket, name in zip(buckets, names, strict=True)], buckets


def _by_bucket(items: Iterable[T], buckets: Sequence[int]) -> list[tuple[int, list[T]]]:
    parts: dict[int, list[T]] = {}
    for item, bucket in zip(items, buckets, strict=True):
        parts.setdefault(bucket, []).append(item)
    return list(parts.items())


def _by_size(items: list[T], buckets: Sequence[int]) -> list[tuple[int, list[T]]]:
    """Cut into parts of any buckets: the first one's says what is shown."""
    return [(buckets[start], items[start : start + _ASKED]) for start in range(0, len(items), _ASKED)]


def _literally(text: str) -> str:
    """Write text as a pattern that only itself matches."""
    return re.sub(r"([*?\[\]\\^-])", r"\\\1", text)
