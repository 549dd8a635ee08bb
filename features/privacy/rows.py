"""Rows of members in files: found, and taken out; a file is replaced whole, or stays as it is."""

import json
import re
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.files import write_whole

MEMBER: Final = "member_id"
Change = Callable[[pa.Table, pa.Array], pa.Table]  # a group of rows, and which are theirs -> what stays of it


def theirs(rows: pa.Table, member_ids: Collection[str]) -> pa.Array:
    """Say which rows are of the members."""
    return pc.is_in(rows[MEMBER].cast(pa.string()), value_set=pa.array(list(member_ids), pa.string())).combine_chunks()


def count_rows(path: Path, member_ids: Collection[str]) -> int:
    """Count the rows of members in a Parquet file; 0 where it is of nobody."""
    if MEMBER not in pq.read_schema(path).names:
        return 0
    return int(pc.sum(theirs(pq.read_table(path, columns=[MEMBER]), member_ids)).as_py() or 0)


def read_rows(path: Path, member_ids: Collection[str]) -> list[dict[str, Any]]:
    """Read the rows of members in a Parquet file."""
    among = pc.field(MEMBER).isin(list(member_ids))
    rows: list[dict[str, Any]] = (
        pq.read_table(path, filters=among).to_pylist() if MEMBER in pq.read_schema(path).names else []
    )
    return rows


def drop(rows: pa.Table, of_them: pa.Array) -> pa.Table:
    """Leave the members' rows out."""
    return rows.filter(pc.invert(of_them))


def rewrite(path: Path, to: Path, member_ids: Collection[str], change: Change = drop) -> None:
    """Write a Parquet file anew, group by group as it was, with what `change` makes of the members' rows."""
    with pq.ParquetFile(path) as file:
        codec = file.metadata.row_group(0).column(0).compression if file.num_row_groups else "zstd"
        with pq.ParquetWriter(to, file.schema_arrow, compression=codec.lower()) as writer:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group)
                kept = change(rows, theirs(rows, member_ids))
                writer.write_table(kept, row_group_size=max(len(kept), 1))


def drop_rows(path: Path, member_ids: Collection[str]) -> int:
    """Take members' rows out of a Parquet file, in its place; give how many there were."""
    found = count_rows(path, member_ids)
    if found:
        write_whole(path, lambda beside: rewrite(path, beside, member_ids))
    return found


def naming(member_ids: Collection[str]) -> re.Pattern[str]:
    """Give what finds any of the ids in a text, not as a piece of a longer one."""
    ids = "|".join(re.escape(member_id) for member_id in member_ids)
    return re.compile(rf"(?<![\w-])(?:{ids})(?![\w-])")


def lines_naming(path: Path, member_ids: Collection[str]) -> Iterator[dict[str, Any]]:
    """Read the JSON lines that name one of the members anywhere."""
    found = naming(member_ids)
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            row = json.loads(line)
            if found.search(json.dumps(row["values"], ensure_ascii=False, default=str)):
                yield row


def drop_lines(path: Path, member_ids: Collection[str]) -> int:
    """Take the lines that name members out of a JSON lines file, in its place; give how many there were."""
    dropped = sum(1 for _ in lines_naming(path, member_ids))
    if dropped:
        found = naming(member_ids)

        def write(beside: Path) -> None:
            with path.open(encoding="utf-8") as lines, beside.open("w", encoding="utf-8") as kept:
                for line in lines:
                    if not found.search(json.dumps(json.loads(line)["values"], ensure_ascii=False, default=str)):
                        kept.write(line)

        write_whole(path, write)
    return dropped
