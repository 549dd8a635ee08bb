"""Where tables come from: files in a folder, files named one by one, or a database that DuckDB attaches."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from features.errors import ContractError, NotFoundError
from features.intake.mapping import SourceMapping
from features.schema import TABLES

SERVERS: Final = ("postgres", "postgresql", "mysql")


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
            return bare(self.database)
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
    ContractError
        If a folder holds both.
    NotFoundError
        If a file that was named, or a table that is required, is missing.
    """
    folder = source.folder
    paths = dict(source.files)
    for name in TABLES:
        if folder and name not in paths and (path := _find(folder, name, mapping)):
            paths[name] = path
    for name, path in paths.items():
        if not path.is_file() and (folder is None or folder.is_dir()):
            raise NotFoundError(f"{path} is no file; name the one that holds {name}")
    missing = missing_tables(set(paths), mapping)
    if folder is None and missing:
        raise NotFoundError(f"{' and '.join(missing)} not given; type {' '.join(f'--{name} FILE' for name in missing)}")
    if missing or (folder and not folder.is_dir()):
        raise NotFoundError(_lacking(Path(str(folder)), missing or ["members", "transactions"]))
    return {name: paths[name] for name in TABLES if name in paths}


def _find(folder: Path, name: str, mapping: SourceMapping) -> Path | None:
    told = mapping.table(name).file
    if told:  # an addition may come without it
        return None if mapping.adds and not (folder / told).exists() else folder / told
    there = [path for path in (folder / f"{name}.csv", folder / f"{name}.parquet") if path.exists()]
    if len(there) > 1:
        both = " and ".join(map(str, there))
        raise ContractError(f"{both} are both there; take one away, or type --{name} with the one that counts")
    return there[0] if there else None


def missing_tables(there: set[str], mapping: SourceMapping) -> list[str]:
    """Name the required tables that are not there and are not made from others; of an addition any table will do."""
    if mapping.adds and there:
        return []
    free = {"members"} if mapping.derives_members else set()
    return [name for name, table in TABLES.items() if table.required and name not in there | free]


def _lacking(folder: Path, missing: list[str]) -> str:
    came = ", ".join(sorted(path.name for path in folder.glob("*"))) or "nothing"
    return (
        f"{folder} lacks {' and '.join(f'{name}.csv or {name}.parquet' for name in missing)} (there: "
        f"{came if folder.is_dir() else 'no such folder'}); name the files after their tables ({', '.join(TABLES)}), "
        f"let `holdfast ingest --init {folder}` propose a mapping, or type 'complete-journey' for the built-in data"
    )


def bare(url: str) -> str:
    """Name a database without its password."""
    scheme = re.split("[:/]", url)[0]
    return f"{scheme} database" if scheme in SERVERS else url
