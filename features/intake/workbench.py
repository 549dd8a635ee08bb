"""Where an ingest works: a folder beside the warehouse, held by one process at a time, gone when it ends.

What a killed one left behind is cleared away by the next.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from features.errors import ContractError
from features.files import clear_parts
from features.home import Home
from features.memory import Settings, query_memory

FOLDER: Final = "ingest"
THREAD: Final = 2**28  # bytes that one thread needs to sort what is larger


@dataclass(frozen=True)
class Workbench:
    """Hold the folder, and the connection whose queries keep to their memory and spill into the folder."""

    folder: Path
    queries: duckdb.DuckDBPyConnection
    memory: int

    def connect(self) -> duckdb.DuckDBPyConnection:
        """Open another connection that keeps to the same."""
        return _connect(self.folder, self.memory)


@contextmanager
def hold_workbench(home: Home) -> Iterator[Path]:
    """Let no ingest be at work meanwhile, with the folder cleared of what a killed one left; give the folder.

    Raises
    ------
    ContractError
        If another process is at it.
    """
    with _held(home.root):
        _clear(home)
        try:
            yield home.root / FOLDER
        finally:
            _clear(home)


@contextmanager
def open_workbench(home: Home, memory: int | None = None) -> Iterator[Workbench]:
    """Hold the workbench; queries may take so many bytes, by default a share of what there is.

    Raises
    ------
    ContractError
        If another process is at it, or the memory does not do.
    """
    with hold_workbench(home) as folder:
        (folder / "spilled").mkdir(parents=True)
        try:
            with _connect(folder, memory or query_memory()) as queries:
                yield Workbench(folder, queries, memory or query_memory())
        except duckdb.OutOfMemoryException as error:
            said = str(error).splitlines()[0]
            raise ContractError(f"the memory or the disk does not do: {said}; give more with --memory") from error


def _connect(folder: Path, memory: int) -> duckdb.DuckDBPyConnection:
    settings: Settings = {
        "memory_limit": f"{memory}B",
        "temp_directory": str(folder / "spilled"),
        "threads": max(1, min(os.cpu_count() or 1, memory // THREAD)),
        "preserve_insertion_order": False,
        "autoinstall_known_extensions": False,
    }
    connection = duckdb.connect(config=settings)
    connection.execute("SET enable_progress_bar = false")  # it would be printed between what the program says
    return connection


def _clear(home: Home) -> None:
    shutil.rmtree(home.root / FOLDER, ignore_errors=True)
    clear_parts(home.warehouse)


@contextmanager
def _held(root: Path) -> Iterator[None]:
    """Lock a folder, making it if need be; one that was made and is empty at the end goes again."""
    made = not root.exists()
    root.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ContractError(f"another ingest is at work in {root}; wait until it is done") from error
    finally:
        os.close(descriptor)
        if made and not any(root.iterdir()):
            root.rmdir()
