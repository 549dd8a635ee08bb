"""The rows of one table as they came, part by part, so that no table has to fit into memory.

`Parts` can be asked again and gives the same rows each time. The first part has no rows: it says the columns.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import ContractError
from features.intake.mapping import TableMapping
from features.intake.textfiles import text_parts
from features.intake.values import TEXT

Parts = Callable[[], Iterator[pa.RecordBatch]]
ROWS, BYTES = 2**17, 2**24  # of a part, at most: of narrow rows so many, of wide ones so much

BYTES_TYPES: Final = (pa.binary(), pa.large_binary(), pa.binary_view())  # text whose writer did not say so


def file_parts(path: Path, form: TableMapping) -> Parts:
    """Read a file: text as text, Parquet with its types."""
    return partial(_parquet_parts, path) if path.suffix == ".parquet" else partial(text_parts, path, form)


def table_parts(table: pa.Table) -> Parts:
    """Read a table that is in memory."""
    return partial(_plainly, table.schema, table.to_batches(max_chunksize=ROWS))


def part_rows(file: pq.FileMetaData) -> int:
    """Give how many rows of a Parquet file make a part."""
    size = sum(file.row_group(number).total_byte_size for number in range(file.num_row_groups))
    return int(min(ROWS, max(1, BYTES * file.num_rows // max(size, 1))))


def _parquet_parts(path: Path) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(path) as file:
            yield from _plainly(file.schema_arrow, file.iter_batches(batch_size=part_rows(file.metadata)))
    except (ValueError, OSError) as error:
        raise ContractError(f"{path} could not be read: {error}; wanted a Parquet file that is whole") from error


def _plainly(schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    plain = pa.schema([(field.name, _plain(field.type)) for field in schema])
    yield pa.RecordBatch.from_pylist([], plain)
    for batch in batches:
        columns = [_cast(values, to) for values, to in zip(batch.columns, plain.types, strict=True)]
        yield pa.RecordBatch.from_arrays(columns, schema=plain)


def _plain(kind: pa.DataType) -> pa.DataType:
    """Give the one type in which the rest of an ingest meets all types of a kind."""
    if pa.types.is_dictionary(kind):
        return _plain(kind.value_type)
    if kind in {pa.string(), pa.string_view(), *BYTES_TYPES} or isinstance(kind, pa.BaseExtensionType):
        return TEXT
    if pa.types.is_decimal(kind):
        return pa.float64()
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz=getattr(kind, "tz", None) and "UTC")
    return kind


def _cast(values: pa.Array, to: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ExtensionArray):  # such as a UUID
        return pa.array([None if value is None else str(value) for value in values.to_pylist()], to)
    if values.type in BYTES_TYPES:
        return pa.array([None if v is None else v.decode(errors="backslashreplace") for v in values.to_pylist()], to)
    return values.cast(to, safe=False)  # nanoseconds and the last digits of a decimal are more than anything here has
