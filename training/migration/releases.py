"""Releases, their ledger and MLflow's files: from a home into object storage, or back into a home.

The rows of MLflow say where its files are: they are written anew with the files, so that whoever reads them finds them.
"""

from collections.abc import Iterator
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Final

from features.engine import Engine
from features.files import changing, write_whole
from features.home import Home
from features.migration.move import Move, Part
from features.migration.tally import Compared, tally
from features.sheet import Progress
from features.stores.objects import Objects
from training.migration.tracking import readdress
from training.registry import FILES
from training.releases.ledger import ledger, ledger_lines, ledger_path, take_down
from training.releases.manifest import read_manifest
from training.releases.sealed import FILE_BYTES
from training.releases.shared import FOLDER, SharedLedger, named
from training.releases.shelf import MANIFEST, SHELF, lay, take

_WHAT: Final = {SHELF: "releases", FOLDER: "promotions", FILES: "files of runs"}

Row = tuple[str, str]  # name, and sha256


def check(move: Move) -> int:
    """Count what the target holds and the source does not."""
    return len({*_rows(move.home, move.target)} - {*_rows(move.home, move.source)})


def copy(move: Move, progress: Progress) -> None:
    """Copy what is not there as it is here: releases, then what was promoted when, then files of runs."""
    there = {*_rows(move.home, move.target)}
    lacking = [name for name, digest in _rows(move.home, move.source) if (name, digest) not in there]
    if move.target.objects == "file":
        _fetch(move.home, Objects(move.source.objects), lacking)
    else:
        _put(move.home, Objects(move.target.objects), lacking)
    if not move.moves("tracking"):  # else its rows are written anew as they are copied
        readdress(move)
    progress("releases, and files of runs", len(lacking), len(lacking))


def compare(move: Move) -> list[Compared]:
    """Hold each kind of file here against those there."""
    here, there = ([*_rows(move.home, engine)] for engine in (move.source, move.target))
    return [
        Compared(f"objects: {what}", *(tally(row for row in rows if _kind(row[0]) == kind) for rows in (here, there)))
        for kind, what in _WHAT.items()
    ]


OBJECTS: Final = Part("objects", check, copy, compare)


def _put(home: Home, objects: Objects, names: list[str]) -> None:
    for release_id in dict.fromkeys(name.split("/")[1] for name in names if _kind(name) == SHELF):
        lay(objects, home.releases / release_id)
    shared = SharedLedger(objects)
    for number, line in enumerate(ledger_lines(home), 1):
        if named(number) in names:
            shared.enter(number, line)
    for name in names:
        if _kind(name) == FILES:
            objects.write(name, (home.artifacts / name.removeprefix(f"{FILES}/")).read_bytes())


def _fetch(home: Home, objects: Objects, names: list[str]) -> None:
    for release_id in dict.fromkeys(name.split("/")[1] for name in names if _kind(name) == SHELF):
        take(objects, home.releases / release_id)
    with changing(ledger_path(home)):
        take_down(home, SharedLedger(objects))
    for name in names:
        if _kind(name) == FILES:
            body = objects.read(name, most=FILE_BYTES)
            write_whole(home.artifacts / name.removeprefix(f"{FILES}/"), partial(Path.write_bytes, data=body))


def _rows(home: Home, engine: Engine) -> Iterator[Row]:
    held = _here(home) if engine.objects == "file" else _there(Objects(engine.objects))
    return ((name, sha256(body).hexdigest()) for name, body in held)


def _here(home: Home) -> Iterator[tuple[str, bytes]]:
    for manifest in sorted(home.releases.glob(f"*/{MANIFEST}")):
        for name in (*read_manifest(manifest.parent).files, MANIFEST):
            yield f"{SHELF}/{manifest.parent.name}/{name}", (manifest.parent / name).read_bytes()
    ledger(home)  # lines that are none are carried nowhere
    for number, line in enumerate(ledger_lines(home), 1):
        yield named(number), line
    for path in sorted(home.artifacts.rglob("*")):
        if path.is_file():
            yield f"{FILES}/{path.relative_to(home.artifacts).as_posix()}", path.read_bytes()


def _there(objects: Objects) -> Iterator[tuple[str, bytes]]:
    for name in objects.names():
        if _kind(name) in _WHAT:
            yield name, objects.read(name, most=FILE_BYTES)


def _kind(name: str) -> str:
    return name.partition("/")[0]
