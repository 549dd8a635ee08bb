"""Decisions of batches on members: found, and made nobody's, in Parquet files that the log vouches for."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.decisions import Part, Renewed, read_parts
from features.files import sha256, write_whole
from features.home import Home
from features.log.erasing import ERASED, nobody
from features.privacy.rows import MEMBER, count_rows, rewrite

AGAIN: Final = "~"  # before the number of times a part was written anew
STAYS: Final = frozenset({"outcome", "treatment", "propensity", "probabilities", "refusals", "cost"})


def renewed_parts(home: Home, member_ids: Collection[str], *, now: datetime) -> Iterator[Renewed]:
    """Write each part that decided on one of the members anew, beside the old one.

    The new one counts once the log names it.
    """
    for _, part in read_parts(home.decisions) if home.decisions.exists() else []:
        path = home.root / part.path
        if path.exists() and count_rows(path, member_ids):
            yield renew(home, part, member_ids, now=now)


def named_parts(home: Home, *, before: datetime) -> Iterator[tuple[Part, list[str]]]:
    """Give the parts that were decided before a time and still say on whom, with the members."""
    for batch, part in read_parts(home.decisions) if home.decisions.exists() else []:
        path = home.root / part.path
        if batch.decided_at < before and path.exists():
            ids = pq.read_table(path, columns=[MEMBER])[MEMBER].cast(pa.string())
            named = ids.filter(pc.invert(pc.starts_with(ids, ERASED))).to_pylist()
            if named:
                yield part, named


def drop_replaced(home: Home) -> None:
    """Delete the files of parts in whose place the log names others."""
    for _, part in read_parts(home.decisions) if home.decisions.exists() else []:
        path = home.root / part.path
        stem = path.stem.partition(AGAIN)[0]
        for other in (*path.parent.glob(f"{stem}{AGAIN}*{path.suffix}"), path.with_name(f"{stem}{path.suffix}")):
            if other != path:
                other.unlink(missing_ok=True)


def renew(home: Home, part: Part, member_ids: Collection[str], *, now: datetime) -> Renewed:
    """Write a part anew, beside the old one, with nobody in the place of members."""
    path, names = home.root / part.path, dict[str, str]()
    stem, _, turn = path.stem.partition(AGAIN)
    new = path.with_name(f"{stem}{AGAIN}{int(turn or 0) + 1}{path.suffix}")
    write_whole(new, lambda beside: rewrite(path, beside, member_ids, partial(_blank, names=names, now=now)))
    place = str(new.relative_to(home.root))
    return Renewed(replace(part, path=place, sha256=sha256(new)), names)


def _blank(rows: pa.Table, of_them: pa.Array, *, names: dict[str, str], now: datetime) -> pa.Table:
    """Leave of their rows what an experiment counts."""
    if not pc.any(of_them).as_py():
        return rows
    ids = rows["decision_id"].filter(of_them).to_pylist()
    names |= {decision_id: nobody(now) for decision_id in ids}
    columns = {
        "decision_id": _put(rows["decision_id"], of_them, [names[one] for one in ids]),
        "member_id": _put(rows["member_id"], of_them, [nobody(now) for _ in ids]),
    }
    for name in rows.column_names:
        if name not in columns:
            columns[name] = rows[name] if name in STAYS else _nulled(rows[name], of_them)
    return pa.table(columns, schema=rows.schema)


def _put(column: pa.ChunkedArray, where: pa.Array, values: list[str]) -> pa.Array:
    return pc.replace_with_mask(column.combine_chunks(), where, pa.array(values, column.type))


def _nulled(column: pa.ChunkedArray, where: pa.Array) -> pa.Array:
    """Make values missing; of a list of one size and of a struct what is inside, as Arrow reads no missing list."""
    whole: Any = column.combine_chunks()
    if pa.types.is_struct(whole.type):
        fields = [_nulled(pa.chunked_array([whole.field(place)]), where) for place in range(whole.type.num_fields)]
        return pa.StructArray.from_arrays(fields, names=[field.name for field in whole.type])
    if pa.types.is_fixed_size_list(whole.type):
        size = whole.type.list_size
        flags = pa.array(where.to_numpy(zero_copy_only=False).repeat(size))
        return pa.FixedSizeListArray.from_arrays(
            pc.if_else(flags, pa.scalar(None, whole.type.value_type), whole.flatten()), size
        )
    return pc.if_else(where, pa.scalar(None, whole.type), whole)
