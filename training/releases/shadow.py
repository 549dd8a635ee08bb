"""Which release decides beside the champion, on the same requests, and is obeyed by nobody: `releases/shadow.json`.

Where homes share object storage it stands there, too, and each home's file follows it.

No ledger: who was champion has to be known forever, a shadow only while it is one. What it would have decided says so
itself, in `features.shadow`.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from features.errors import ContractError, CorruptError, NotFoundError
from features.files import write_json
from features.home import Home
from features.stores.objects import objects_of
from training.releases.ledger import champion_id
from training.releases.manifest import no_release
from training.releases.sealed import parse
from training.releases.shelf import put

SHARED: Final = "shadow.json"
SHARED_BYTES: Final = 1 << 16


def shadow_id(home: Home) -> str | None:
    """Name the shadow, if there is one; who became champion meanwhile is none.

    Raises
    ------
    CorruptError
        If the file was written by somebody else.
    """
    path = shadow_path(home)
    if not path.exists():
        return None
    try:
        release_id = json.loads(path.read_bytes())["release_id"]
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptError(f"{path} names no release ({error}); `holdfast shadow --end` takes it away") from error
    return None if release_id == champion_id(home) else str(release_id)


def begin_shadow(home: Home, release_id: str, *, who: str, now: datetime) -> None:
    """Let a release be the shadow from now on, in place of another.

    Raises
    ------
    ContractError
        If it is the champion.
    NotFoundError
        If there is no such release, or no champion to be beside.
    """
    champion = champion_id(home)
    if champion is None:
        raise NotFoundError("there is no champion to be the shadow of; `holdfast promote` makes one")
    if release_id == champion:
        raise ContractError(f"release {release_id} is the champion; name another: `holdfast releases` lists them")
    if not (home.releases / release_id / "manifest.json").exists():
        raise no_release(release_id)
    since = now.astimezone(UTC).isoformat()
    told = {"release_id": release_id, "since": since, "who": who}
    if objects := objects_of(home):
        put(home, release_id)
        objects.write(SHARED, json.dumps(told).encode())
    write_json(shadow_path(home), told)


def end_shadow(home: Home) -> bool:
    """Let there be no shadow; False if there was none."""
    path = shadow_path(home)
    if objects := objects_of(home):
        objects.remove(SHARED)
    stood = path.exists()
    path.unlink(missing_ok=True)
    return stood


def follow_shadow(home: Home) -> None:
    """Have the shadow that another home named, if homes share object storage, or none any more.

    Raises
    ------
    UnavailableError
        If the storage doesn't answer.
    CorruptError
        If what stands there was written by somebody else.
    """
    if (objects := objects_of(home)) is None:
        return
    path, body = shadow_path(home), objects.find(SHARED, most=SHARED_BYTES)
    if body is None:
        path.unlink(missing_ok=True)
        return
    try:
        told = parse(body)
    except (ValueError, TypeError) as error:
        raise CorruptError(f"{objects.place}/{SHARED} names no release ({error}); `holdfast shadow --end`") from error
    if not path.exists() or json.loads(path.read_bytes()) != told:
        write_json(path, told)


def shadow_path(home: Home) -> Path:
    """Say where it is written down."""
    return home.releases / "shadow.json"
