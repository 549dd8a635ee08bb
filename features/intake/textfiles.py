"""A text file's rows, part by part, every value as the text it is.

Arrow reads what is regular, at the speed of the disk. Where it refuses, pandas goes on from that row: it fills short
lines with missing values, or says what is wrong and on which line. Both give the same rows of what both can read.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pandas as pd
import pyarrow as pa
import pyarrow.csv

from features.errors import ContractError
from features.intake.mapping import TableMapping
from features.intake.values import TEXT

BLOCK: Final = 2**22  # bytes that are parsed at once
ROWS: Final = 100_000  # that pandas reads at once
SEPARATORS: Final = {";": "';'", "\t": "a tab", "|": "'|'"}
MARKS: Final = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


def text_parts(path: Path, form: TableMapping) -> Iterator[pa.RecordBatch]:
    """Read a text file; at least one part comes, if only to say what the columns are called.

    Raises
    ------
    ContractError
        Saying what came, when it is not what the mapping says: another encoding, another separator, no table at all.
    """
    try:
        _check_separator(path, form)
        names = [str(name) for name in _pandas(path, form, nrows=0, engine="python").columns]  # line by line
        yield pa.RecordBatch.from_pylist([], _text_schema(names))
        yield from _rows(path, form, names)
    except UnicodeError as error:
        raise ContractError(f"{path} could not be read: {error}; {_encoding_hint(path, form)}") from error
    except (ValueError, OSError, LookupError) as error:
        raise ContractError(f"{path} could not be read: {error}; wanted UTF-8, commas, and a header line") from error


def _rows(path: Path, form: TableMapping, names: list[str]) -> Iterator[pa.RecordBatch]:
    done = 0
    try:
        if len(form.separator or ",") == 1:
            for part in _strict(path, form, names):
                yield part
                done += part.num_rows
            return
    except pa.ArrowInvalid as error:
        if "straddling" in str(error) and path.stat().st_size > BLOCK:
            raise ContractError(f"a value is longer than {BLOCK:,} bytes: is a quote never closed?") from error
    yield from _forgiving(path, form, names, done)


def _strict(path: Path, form: TableMapping, names: list[str]) -> Iterator[pa.RecordBatch]:
    encoding = form.encoding or "utf8"
    header = 0 if form.names else 1
    read = pa.csv.ReadOptions(
        block_size=BLOCK, column_names=names, skip_rows_after_names=header, encoding=encoding.replace("utf-8", "utf8")
    )
    parse = pa.csv.ParseOptions(delimiter=form.separator or ",", newlines_in_values=True)
    missing = {"null_values": [""], "strings_can_be_null": True, "quoted_strings_can_be_null": True}
    convert = pa.csv.ConvertOptions(column_types=_text_schema(names), **missing)
    with pa.csv.open_csv(path, read_options=read, parse_options=parse, convert_options=convert) as reader:
        yield from (part for part in reader if part.num_rows)


def _forgiving(path: Path, form: TableMapping, names: list[str], done: int) -> Iterator[pa.RecordBatch]:
    """Go on where `done` rows were read."""
    with _pandas(path, form, chunksize=ROWS) as frames:
        for frame in frames:
            if not isinstance(frame.index, pd.RangeIndex):
                raise ContractError(f"its rows have more values than the {len(names)} columns that are named")
            rest = frame.loc[frame.index >= done]
            if len(rest):
                yield pa.RecordBatch.from_pandas(rest, preserve_index=False).cast(_text_schema(names))


def _pandas(path: Path, form: TableMapping, **how: Any) -> Any:  # noqa: ANN401 (a frame, or frames one by one)
    return pd.read_csv(
        path,
        dtype="string[pyarrow]",
        keep_default_na=False,
        na_values=[""],
        sep=r"\s+" if form.separator == "whitespace" else form.separator or ",",
        encoding=form.encoding or "utf-8-sig",
        names=list(form.names) or None,
        header=None if form.names else 0,
        **how,
    )


def _text_schema(names: list[str]) -> pa.Schema:
    return pa.schema([(name, TEXT) for name in names])


def _check_separator(path: Path, form: TableMapping) -> None:
    """Refuse a file whose first line has no comma but another separator."""
    with path.open("rb") as file:
        line = file.readline(65_536).decode(form.encoding or "utf-8", errors="replace")
    if form.separator or "," in line:
        return
    found = [mark for mark in SEPARATORS if mark in line]
    if found:
        raise ContractError(
            f"its first line has {SEPARATORS[found[0]]} between the columns and no comma ({line.strip()[:80]!r}); "
            f"type --separator {found[0]!r}"
        )


def _encoding_hint(path: Path, form: TableMapping) -> str:
    with path.open("rb") as file:
        other = MARKS.get(file.read(2), "cp1252")
    return f"wanted {form.encoding or 'UTF-8'}; save it so, or type --encoding {other} if that is what it is"
