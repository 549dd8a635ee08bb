"""The machine: a home that can be written to, room on its disk, and the libraries as they are wanted."""

import platform
import shutil
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement

from features.home import Home
from monitoring.doctor.finding import Finding

ROOM: Final = 2**30  # bytes that ought to be free: below it an ingest or a log may end in the middle
_TOLD: Final = ("holdfast", "feast", "xgboost-cpu", "duckdb", "bentoml")


def place(home: Home) -> Finding:
    """Say whether the home, or the folder it will be made in, can be written to."""
    folder = _nearest(home.root)
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        mend = f"give the user that runs Holdfast the right to write there, or name another home: {error.strerror}"
        return Finding("home", str(home.root), "can't be written to", mend)
    there = "can be written to" if folder == home.root else "is not there yet, and can be made"
    return Finding("home", str(home.root), there)


def disk(home: Home, *, room: int = ROOM) -> Finding:
    """Say how much room is left where the home lies."""
    free = shutil.disk_usage(_nearest(home.root)).free
    found = f"free: {free / 2**30:,.1f} GiB"
    mend = f"make room: {room / 2**30:,.0f} GiB at least; `holdfast retention` lets go of what is old"
    return Finding("disk", str(home.root), found, mend if free < room else "")


def versions() -> Finding:
    """Hold the installed libraries against what Holdfast asks for."""
    wrong = [f"{one.name} is {came or 'missing'}, {one.specifier or 'any'} is wanted" for one, came in _differing()]
    setting = f"Python {platform.python_version()}"
    if not (3, 11) <= sys.version_info[:2] < (3, 14):
        wrong.insert(0, f"Python is {platform.python_version()}, 3.11 to 3.13 is wanted")
    if wrong:
        return Finding("versions", setting, "; ".join(wrong), "install anew from requirements.lock")
    return Finding("versions", setting, ", ".join(f"{name} {version(name)}" for name in _TOLD))


def _differing() -> list[tuple[Requirement, str | None]]:
    wanted = [Requirement(line) for line in requires("holdfast") or ()]
    needed = [one for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
    found = [(one, _version(one.name)) for one in needed]
    return [(one, came) for one, came in found if came is None or not one.specifier.contains(came, prereleases=True)]


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _nearest(folder: Path) -> Path:
    """Give the folder, or the nearest one above it that is there."""
    return next(one for one in (folder, *folder.absolute().parents) if one.exists())
