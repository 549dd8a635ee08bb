"""Where tables come from: files in a folder, files named one by one, or a database that DuckDB attaches."""

import re
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pandas as pd

from features.errors import ContractError, NotFoundError
from features.files import fingerprint
from features.mapping import SourceMapping, TableMapping
from features.schema import TABLES

SEPARATORS: Final = {";": "';'", "\t": "a tab", "|": "'|'"}
SQLITE: Final = {".db", ".sqlite", ".sqlite3"}
ATTACHED: Final = ("postgres", "postgresql", "mysql")
MARKS: Final = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}


@dataclass(frozen=True)
class Source:
    """Name what is ingested: a folder, files by table (they win over the folder's), or a database."""

    folder: Path | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    database: str | None = None

    @property
    def title(self) -> str:
        """Say it in words, without a database's password."""
        if self.database:
            return _bare(self.database)
        return str(self.folder) if self.folder else ", ".join(str(path) for path in self.files.values())


def open_source(folder: str, files: Sequence[Path | None], database: str | None) -> Source:
    """Name a source from what was typed; `files` in the contract's order of tables."""
    if database and (folder or any(files)):
        raise ContractError("--from came beside files; type one or the other")
    named = {name: path for name, path in zip(TABLES, files, strict=True) if path}
    return Source(Path(folder) if folder else None, named, database)


def table_paths(source: Source, mapping: SourceMapping) -> dict[str, Path]:
    """Find each table's file: the one named, the mapping's, else `<table>.parquet` or `<table>.csv` in the folder.

    Raises
    ------
    NotFoundError
        If a file that was named, or a table that is required, is missing.
    """
    folder = source.folder
    paths = dict(source.files)
    for name in TABLES:
        told = mapping.table(name).file
        if name in paths or folder is None:
            continue
        if told:
            paths[name] = folder / told
        else:
            for path in (folder / f"{name}.csv", folder / f"{name}.parquet"):  # Parquet wins
                if path.exists():
                    paths[name] = path
    for name, path in paths.items():
        if not path.is_file() and (folder is None or folder.is_dir()):
            raise NotFoundError(f"{path} is no file; name the one that holds {name}")
    missing = _missing(set(paths), mapping)
    if folder is None and missing:
        raise NotFoundError(f"{' and '.join(missing)} not given; type {' '.join(f'--{name} FILE' for name in missing)}")
    if missing or (folder and not folder.is_dir()):
        raise NotFoundError(_lacking(Path(str(folder)), missing or ["members", "transactions"]))
    return {name: paths[name] for name in TABLES if name in paths}


def read_file(path: Path, form: TableMapping) -> pd.DataFrame:
    """Read one file, every value of a text file as the text it is.

    Raises
    ------
    ContractError
        Saying what came, when it is not what the mapping says: another encoding, another separator, no table at all.
    """
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        _check_separator(path, form)
        return pd.read_csv(
            path,
            dtype="string",
            keep_default_na=False,
            na_values=[""],
            sep=r"\s+" if form.separator == "whitespace" else form.separator or ",",
            encoding=form.encoding or "utf-8-sig",
            names=list(form.names) or None,
            header=None if form.names else 0,
        )
    except UnicodeError as error:
        raise ContractError(f"{path} could not be read: {error}; {_encoding_hint(path, form)}") from error
    except (ValueError, OSError, LookupError) as error:
        raise ContractError(f"{path} could not be read: {error}; wanted UTF-8, commas, and a header line") from error


def read_database(url: str, mapping: SourceMapping) -> dict[str, pd.DataFrame]:
    """Read each table by the mapping's query, or by its own name where the database has it.

    SQLite is read by the standard library: DuckDB's extension for it would have to be downloaded.
    """
    path = Path(url.removeprefix("sqlite:"))
    if url.startswith("sqlite:") or path.suffix in SQLITE:
        return _read_sqlite(path, mapping)
    return _read_duckdb(url, mapping)


def content_key(frames: Mapping[str, pd.DataFrame]) -> str:
    """Fingerprint rows that come from no file."""
    prints = {
        name: [list(frame.columns), pd.util.hash_pandas_object(frame.astype("string"), index=False).tolist()]
        for name, frame in frames.items()
    }
    return fingerprint(prints)


def _missing(there: set[str], mapping: SourceMapping) -> list[str]:
    free = {"members"} if mapping.derives_members else set()
    return [name for name, table in TABLES.items() if table.required and name not in there | free]


def _lacking(folder: Path, missing: list[str]) -> str:
    came = ", ".join(sorted(path.name for path in folder.glob("*"))) or "nothing"
    return (
        f"{folder} lacks {' and '.join(f'{name}.csv or {name}.parquet' for name in missing)} (there: "
        f"{came if folder.is_dir() else 'no such folder'}); name the files after their tables ({', '.join(TABLES)}), "
        f"let `holdfast ingest --init {folder}` propose a mapping, or type 'complete-journey' for the built-in data"
    )


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
    start = path.read_bytes()[:2]
    other = MARKS.get(start, "cp1252")
    return f"wanted {form.encoding or 'UTF-8'}; save it so, or type --encoding {other} if that is what it is"


def _read_sqlite(path: Path, mapping: SourceMapping) -> dict[str, pd.DataFrame]:
    if not path.is_file():
        raise NotFoundError(f"{path} is no file; wanted such as --from sqlite:shop.db")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            rows = connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")
            queries = _queries({str(name) for (name,) in rows}, mapping, path.name)
            return {name: _one_kind(pd.read_sql_query(query, connection)) for name, query in queries.items()}
    except (sqlite3.Error, pd.errors.DatabaseError) as error:
        raise ContractError(f"{path} could not be read: {error}") from error


def _read_duckdb(url: str, mapping: SourceMapping) -> dict[str, pd.DataFrame]:
    import duckdb

    scheme = re.split("[:/]", url)[0]
    form = f"READ_ONLY, TYPE {scheme.removesuffix('ql') if scheme == 'postgresql' else scheme}"
    where = url if scheme not in ATTACHED or "://" in url else url.removeprefix(f"{scheme}:")
    if scheme not in ATTACHED and not Path(url.removeprefix("duckdb:")).is_file():
        raise NotFoundError(f"{url} is no file; wanted a DuckDB or SQLite file, postgres:..., or mysql:...")
    try:
        with duckdb.connect(config={"autoinstall_known_extensions": False}) as connection:
            place = (where if scheme in ATTACHED else url.removeprefix("duckdb:")).replace("'", "''")
            connection.execute(f"ATTACH '{place}' AS source ({form if scheme in ATTACHED else 'READ_ONLY'})")
            connection.execute("USE source")
            rows = connection.execute("SELECT table_name FROM information_schema.tables WHERE table_catalog = 'source'")
            queries = _queries({str(name) for (name,) in rows.fetchall()}, mapping, _bare(url))
            return {name: connection.execute(query).df() for name, query in queries.items()}
    except duckdb.Error as error:
        said = str(error).replace(where, "...").splitlines()[0]
        hint = f"; nothing is downloaded by itself: `INSTALL {scheme}` once in DuckDB" if scheme in ATTACHED else ""
        raise ContractError(f"{_bare(url)} could not be read: {said}{hint}") from error


def _queries(there: set[str], mapping: SourceMapping, title: str) -> dict[str, str]:
    told = {name: mapping.table(name).query or name for name in TABLES}
    told = {name: query for name, query in told.items() if mapping.table(name).query or name in there}
    missing = _missing(set(told), mapping)
    if missing:
        raise NotFoundError(
            f"{title} has no table {' or '.join(missing)} (there: {', '.join(sorted(there)) or 'nothing'}); type "
            f"{' '.join(f'--query {name}=TABLE' for name in missing)}, or a SELECT in the table's place"
        )
    return {name: query if " " in query.strip() else f'SELECT * FROM "{query}"' for name, query in told.items()}  # noqa: S608 (the user's own query of their own database, attached read-only)


def _one_kind(frame: pd.DataFrame) -> pd.DataFrame:
    """Make text of columns in which SQLite mixes kinds, since a Parquet column has one."""
    mixed = [name for name, values in frame.items() if values.dtype == object]
    return frame.assign(**{str(name): frame[name].astype("string") for name in mixed})


def _bare(url: str) -> str:
    scheme = re.split("[:/]", url)[0]
    return f"{scheme} database" if scheme in ATTACHED else url
