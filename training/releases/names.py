"""What releases are called: by id, by a name somebody gave, `champion` and `challenger`."""

import json
import re
from contextlib import suppress
from typing import Any, Final

from features.errors import ContractError, NotFoundError
from features.files import write_json
from features.home import Home
from training.releases.ledger import champion_id
from training.releases.manifest import RELEASE, no_release
from training.releases.shelf import bring

CHAMPION: Final = "champion"  # the one that serves
CHALLENGER: Final = "challenger"  # the one that was trained last
NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


def resolve(home: Home, which: str) -> str:
    """Give the id of a release, which may be called by any of its names.

    Raises
    ------
    NotFoundError
        If nothing serves yet, was trained yet, or is called so.
    """
    if which == CHAMPION:
        serving = champion_id(home)
        if serving is None:
            raise NotFoundError("there is no champion yet; `holdfast promote` lets the gate judge the one trained last")
        return serving
    if which == CHALLENGER:
        return last_trained(home)
    found = _names(home).get(which, which)
    with suppress(NotFoundError):  # said below
        bring(home, found)
    if not RELEASE.fullmatch(found) or not (home.releases / found / "manifest.json").exists():
        raise no_release(which)
    return found


def check(name: str) -> None:
    """Refuse a name that could be taken for something else.

    Raises
    ------
    ContractError
        If it is reserved, or no plain word.
    """
    if name and (name in {CHAMPION, CHALLENGER} or not NAME.fullmatch(name)):
        raise ContractError(
            f"--challenger {name!r} came; wanted a word of letters, digits, '.', '_' and '-', that begins with a "
            f"letter and is neither {CHAMPION} nor {CHALLENGER}"
        )


def give(home: Home, name: str, release_id: str) -> None:
    """Call a release so from now on; no name changes nothing."""
    if name:
        write_json(home.releases / "names.json", _names(home) | {name: release_id})


def names_of(home: Home, release_id: str) -> list[str]:
    """Give what somebody called a release."""
    return [name for name, called in _names(home).items() if called == release_id]


def record_trained(home: Home, release_id: str, *, inputs: str, champion: str | None, run_id: str) -> None:
    """Write down which release was trained last, from what, against whom, and its run in MLflow."""
    record = {"inputs": inputs, "champion": champion, "release_id": release_id, "run_id": run_id}
    write_json(home.releases / "trained.json", record)


def trained(home: Home) -> dict[str, Any]:
    """Read what `record_trained` wrote; nothing if nothing was trained."""
    path = home.releases / "trained.json"
    record: dict[str, Any] = json.loads(path.read_bytes()) if path.exists() else {}
    return record


def last_trained(home: Home) -> str:
    """Name the release that was trained last.

    Raises
    ------
    NotFoundError
        If none was.
    """
    release_id = trained(home).get("release_id")
    if not release_id:
        raise NotFoundError("nothing was trained yet; `holdfast train` writes a release")
    return str(release_id)


def _names(home: Home) -> dict[str, str]:
    path = home.releases / "names.json"
    found: dict[str, str] = json.loads(path.read_bytes()) if path.exists() else {}
    return found
