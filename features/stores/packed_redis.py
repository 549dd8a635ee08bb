"""Packed vectors on Redis, one server or a cluster: a string per member, which expires unless it is written again.

A key is `<prefix>:<view>:{<bucket>}:<member_id>`; the bucket, a hash of the id, is what a cluster places keys by, so
that a script or an MGET over one bucket stays in one slot. The script compares times where the rows are, so that no
writer, however late, replaces a newer row. A row is seen whole or not at all; of two members, one may be seen as before
a write and one as after it.
"""

import json
import re
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain
from typing import Final, TypeVar

import numpy as np

from features.errors import CorruptError, NotFoundError
from features.stores.packed import Batch, Row, Schema, Vectors, text, vectors
from features.stores.servers import Command, Servers

T = TypeVar("T")

_BUCKETS: Final = 256
_TAG: Final = [b"%02x}:" % bucket for bucket in range(_BUCKETS)]
_ASKED: Final = 1_000  # keys in one MGET: half a millisecond, for which everybody else waits
_HEAD: Final = struct.Struct(">qq16s")  # event_timestamp, created, the schema's code
_WRITE_SECONDS: Final = 5.0  # a write may wait for the disk of the server
_DAY: Final = 86_400
# Lua's numbers count microseconds exactly until the year 2255
_WRITE: Final = """
for place, key in ipairs(KEYS) do
  local row, stands = ARGV[place + 1], redis.call('GETRANGE', key, 0, 15)
  local newer = true
  if #stands == 16 then
    local event, created = struct.unpack('>i8i8', row)
    local its_event, its_created = struct.unpack('>i8i8', stands)
    newer = event > its_event or event == its_event and created >= its_created
  end
  if newer then redis.call('SET', key, row, 'EX', ARGV[1]) end
end
"""


class RedisTable:
    """Keep packed vectors in Redis."""

    def __init__(self, address: str, *, prefix: str, days: int, timeout_ms: int) -> None:
        self._prefix, self._seconds = prefix, days * _DAY
        self._reader, self._writer = Servers(address, timeout_ms / 1000), Servers(address, _WRITE_SECONDS)
        self._schemas: dict[str, Schema] = {}

    def create(self) -> None:
        """Note that there is a table, so that one that holds nobody yet is not taken for one that was lost."""
        self._writer.send(self._notes(Schema((), ())))

    def write(self, view: str, schema: Schema, batches: Iterable[Batch]) -> None:
        """Store rows; one older than the one that stands is left out.

        Raises
        ------
        UnavailableError
            If a server doesn't answer; what was written until then stands, and writing it again does no harm.
        """
        with ThreadPoolExecutor(1) as sending:  # the next rows are packed while the servers take these
            sent: Future[list[None]] | None = None
            for batch in batches:
                commands = [*self._notes(schema), *self._scripts(view, schema, batch)]
                if sent:
                    sent.result()
                sent = sending.submit(self._writer.send, commands)
            if sent:
                sent.result()

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
        found = {i: value for i, value in zip(ids, self._values(view, ids), strict=True) if value is not None}
        if not found:
            self._check_made()
        rows = self._rows(found)
        return vectors(rows, self._schemas, member_ids, numbers=numbers, words=words)

    def members(self, view: str) -> Iterator[list[str]]:
        """Name who has a row, each once, some at a time: a server that makes room meanwhile names some twice."""
        start, named = f"{self._prefix}:{view}:{{", set[bytes]()
        for keys in self._writer.keys(f"{_literally(start)}*"):
            names = {key[len(start) + len(_TAG[0]) :] for key in keys} - named
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

    def _scripts(self, view: str, schema: Schema, batch: Batch) -> Iterator[Command]:
        """Pack rows, and give a script for each bucket of them."""
        keys, buckets = _keys(self._prefix, view, batch.member_ids)
        for part in _by_bucket(zip(keys, _records(schema, batch), strict=True), buckets):
            names, rows = zip(*part, strict=True)
            yield Command(names[0], ("EVAL", _WRITE, len(names), *names, self._seconds, *rows))

    def _values(self, view: str, member_ids: Sequence[str]) -> list[bytes | None]:
        keys, buckets = _keys(self._prefix, view, member_ids)
        parts = _by_bucket(keys, buckets) if self._reader.clustered else _by_size(keys)
        answers = self._reader.send([Command(part[0], ("MGET", *part)) for part in parts])
        value = dict(zip(chain.from_iterable(parts), chain.from_iterable(answers), strict=True))
        return [value[key] for key in keys]

    def _rows(self, found: Mapping[str, bytes]) -> list[Row]:
        heads = [_HEAD.unpack_from(value) for value in found.values()]
        self._learn({code.decode() for _, _, code in heads})
        ends = {code: _HEAD.size + self._schemas[code.decode()].width for code in {code for _, _, code in heads}}
        return [
            Row(member_id, event, code.decode(), value[_HEAD.size : ends[code]], value[ends[code] :].decode(), created)
            for (member_id, value), (event, created, code) in zip(found.items(), heads, strict=True)
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


def _records(schema: Schema, batch: Batch) -> list[bytes]:
    """Pack rows: times and the schema's code big-endian, so that the script finds them, then numbers, then words."""
    numbers = ("numbers", "<f8", (len(schema.numbers),))
    layout = np.dtype([("event_timestamp", ">i8"), ("created", ">i8"), ("schema", "S16"), numbers])
    records = np.empty(len(batch.member_ids), layout)
    records["event_timestamp"], records["created"] = batch.event_timestamp, batch.created
    records["schema"], records["numbers"] = schema.code, batch.numbers
    packed, width = records.tobytes(), layout.itemsize
    return [packed[width * place : width * (place + 1)] + text(said).encode() for place, said in enumerate(batch.words)]


def _keys(prefix: str, view: str, member_ids: Iterable[str]) -> tuple[list[bytes], list[int]]:
    """Give the key of each member, and the bucket that it names."""
    start = f"{prefix}:{view}:{{".encode()
    names = [member_id.encode() for member_id in member_ids]
    buckets = [zlib.crc32(name) % _BUCKETS for name in names]
    return [start + _TAG[bucket] + name for bucket, name in zip(buckets, names, strict=True)], buckets


def _by_bucket(items: Iterable[T], buckets: Sequence[int]) -> list[list[T]]:
    parts: dict[int, list[T]] = {}
    for item, bucket in zip(items, buckets, strict=True):
        parts.setdefault(bucket, []).append(item)
    return list(parts.values())


def _by_size(items: list[T]) -> list[list[T]]:
    return [items[start : start + _ASKED] for start in range(0, len(items), _ASKED)]


def _literally(text: str) -> str:
    """Write text as a pattern that only itself matches."""
    return re.sub(r"([*?\[\]\\^-])", r"\\\1", text)
