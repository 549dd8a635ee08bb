"""Tables of a database, spilled as Parquet as they are read, so that they can be fingerprinted and read again."""

import re
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import ContractError, NotFoundError
from features.files import fingerprint
from features.intake.mapping import SourceMapping
from features.intake.parts import ROWS, Parts, file_parts
from features.intake.sources import bare, missing_tables
from features.schema import TABLES

if TYPE_CHECKING:
    from features.intake.workbench import Workbench

SQLITE: Final = {".db", ".sqlite", ".sqlite3"}
POSTGRES: Final = ("postgres", "postgresql")
ATTACHED: Final = ("mysql",)  # by DuckDB, where its extension is installed
KINDS: Final = {"text": pa.string(), "blob": pa.string(), "real": pa.float64(), "integer": pa.int64()}  # first wins
THERE: Final = "SELECT table_name FROM information_schema.tables WHERE table_schema = ANY(current_schemas(false))"
QUOTE: Final = "'"

Place = Callable[[str], Path]  # a table's name -> the file it is spilled into


def database_parts(url: str, mapping: SourceMapping, bench: "Workbench") -> tuple[dict[str, Parts], str]:
    """Read each table by the mapping's query, or by its own name where the database has it; give their fingerprint too.

    SQLite is read by the standard library and Postgres by ADBC: DuckDB's extensions would have to be downloaded.

    Raises
    ------
    ContractError, NotFoundError
        Without the database's password, whatever went wrong.
    """
    scheme = re.split("[:/]", url)[0]
    if url.startswith("sqlite:") or Path(url).suffix in SQLITE:
        spill = partial(_spill_sqlite, Path(url.removeprefix("sqlite:")))
    elif scheme in POSTGRES:
        spill = partial(_spill_postgres, url)
    else:
        spill = partial(_spill_duckdb, url, bench)

    def path(name: str) -> Path:
        return bench.folder / f"{name}.came.parquet"

    names = spill(mapping, path)
    prints = {name: _content_key(bench.queries, path(name)) for name in names}
    return {name: file_parts(path(name), mapping.table(name)) for name in names}, fingerprint(prints)


def _content_key(queries: duckdb.DuckDBPyConnection, path: Path) -> list[str]:
    """Fingerprint rows whatever their order: a database has none."""
    rows = queries.read_parquet(str(path)).set_alias("t")
    return [
        str(pq.read_schema(path)),
        *map(str, rows.aggregate("count(*), sum(hash(t)), bit_xor(hash(t))").fetchall()[0]),
    ]


def _write(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    with pq.ParquetWriter(path, schema, compression="lz4") as writer:
        for batch in batches:
            writer.write_batch(batch)


def _spill_sqlite(file: Path, mapping: SourceMapping, path: Place) -> list[str]:
    if not file.is_file():
        raise NotFoundError(f"{file} is no file; wanted such as --from sqlite:shop.db")
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("BEGIN")  # every query sees the same rows
            there = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
            queries = _queries({str(name) for (name,) in there}, mapping, file.name)
            for name, query in queries.items():
                schema = _sqlite_schema(connection, query)
                _write(path(name), schema, _sqlite_batches(connection.execute(query), schema))
    except sqlite3.Error as error:
        raise ContractError(f"{file} could not be read: {error}") from error
    return list(queries)


def _sqlite_schema(connection: sqlite3.Connection, query: str) -> pa.Schema:
    """Find one type for each column: SQLite may mix kinds in one, a Parquet column has one."""
    names = [column[0] for column in connection.execute(query).description]
    places = [f"c{number}" for number in range(len(names))]
    seen = ", ".join(f"max(typeof({place}) = '{kind}')" for place in places for kind in KINDS)
    (found,) = connection.execute(f"WITH rows({', '.join(places)}) AS ({query}) SELECT {seen} FROM rows")
    each = [found[start : start + len(KINDS)] for start in range(0, len(found), len(KINDS))]
    types = [next((kind for kind, there in zip(KINDS.values(), of, strict=True) if there), pa.null()) for of in each]
    return pa.schema(list(zip(names, types, strict=True)))


def _sqlite_batches(cursor: sqlite3.Cursor, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while rows := cursor.fetchmany(ROWS):
        columns = zip(schema.types, zip(*rows, strict=True), strict=True)
        arrays = [pa.array(_text(values) if kind == pa.string() else values, kind) for kind, values in columns]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _text(values: Iterable[object]) -> list[str | None]:
    return [None if value is None else str(value) for value in values]


def _spill_postgres(url: str, mapping: SourceMapping, path: Place) -> list[str]:
    try:
        from adbc_driver_postgresql import dbapi
    except ImportError as error:
        raise ContractError(f"{bare(url)} could not be read: type pip install 'holdfast[cluster]' first") from error
    where = url if "://" in url else url.partition(":")[2]
    try:
        with dbapi.connect(where) as connection, connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")
            cursor.execute(THERE)
            queries = _queries({str(name) for (name,) in cursor.fetchall()}, mapping, bare(url))
            for name, query in queries.items():
                cursor.execute(query)
                reader = cursor.fetch_record_batch()
                _write(path(name), reader.schema, reader)
    except dbapi.Error as error:
        raise ContractError(f"{bare(url)} could not be read: {_said(error, where)}") from error
    return list(queries)


def _spill_duckdb(url: str, bench: "Workbench", mapping: SourceMapping, path: Place) -> list[str]:
    scheme = re.split("[:/]", url)[0]
    where = url if scheme in ATTACHED and "://" in url else url.removeprefix("duckdb:").removeprefix(f"{scheme}:")
    if scheme not in ATTACHED and not Path(where).is_file():
        raise NotFoundError(f"{url} is no file; wanted a DuckDB or SQLite file, postgres:..., or mysql:...")
    form = f"READ_ONLY, TYPE {scheme}" if scheme in ATTACHED else "READ_ONLY"
    try:
        with bench.connect() as connection:
            connection.execute(f"ATTACH '{where.replace(QUOTE, QUOTE * 2)}' AS source ({form})")
            connection.execute("USE source")
            there = connection.execute(
                "SELECT table_name FROM information_schema.tables WHERE table_catalog = 'source'"
            )
            queries = _queries({str(name) for (name,) in there.fetchall()}, mapping, bare(url))
            for name, query in queries.items():
                reader = connection.sql(query).to_arrow_reader(ROWS)
                _write(path(name), reader.schema, reader)
    except duckdb.Error as error:
        hint = f"; nothing is downloaded by itself: `INSTALL {scheme}` once in DuckDB" if scheme in ATTACHED else ""
        raise ContractError(f"{bare(url)} could not be read: {_said(error, where)}{hint}") from error
    return list(queries)


def _queries(there: set[str], mapping: SourceMapping, title: str) -> dict[str, str]:
    told = {name: mapping.table(name).query or name for name in TABLES}
    told = {name: query for name, query in told.items() if mapping.table(name).query or name in there}
    missing = missing_tables(set(told), mapping)
    if missing:
        raise NotFoundError(
            f"{title} has no table {' or '.join(missing)} (there: {', '.join(sorted(there)) or 'nothing'}); type "
            f"{' '.join(f'--query {name}=TABLE' for name in missing)}, or a SELECT in the table's place"
        )
    return {
        name: query.rstrip("; \n") if " " in query.strip() else f'SELECT * FROM "{query}"'
        for name, query in told.items()
    }


def _said(error: Exception, where: str) -> str:
    """Give the first line of an error, without any password."""
    said = str(error).replace(where, "...").splitlines()[0]
    found = re.search(r"password\s*=\s*('[^']*'|[^\s&]+)", where)
    words = [found[1].strip("'")] if found else []
    if "://" in where and (password := urlsplit(where).password):
        words += [password]
    for word in words:
        said = said.replace(word, "...").replace(unquote(word), "...")
    return said
