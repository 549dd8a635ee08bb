"""Which release decides beside the champion, on the same requests, and is obeyed by nobody: `releases/shadow.json`.

No ledger: who was champion has to be known forever, a shadow only while it is one. What it would have decided says so
itself, in `features.shadow`.
"""

import json
from datetime import UTC, datetime
from pathlib import Path

from features.errors import ContractError, CorruptError, NotFoundError
from features.files import write_json
from features.home import Home
from training.releases.ledger import champion_id


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
        raise NotFoundError(f"there is no release {release_id!r}; `holdfast releases` lists those that exist")
    since = now.astimezone(UTC).isoformat()
    write_json(shadow_path(home), {"release_id": release_id, "since": since, "who": who})


def end_shadow(home: Home) -> bool:
    """Let there be no shadow; False if there was none."""
    path = shadow_path(home)
    stood = path.exists()
    path.unlink(missing_ok=True)
    return stood


def shadow_path(home: Home) -> Path:
    """Say where it is written down."""
    return home.releases / "shadow.json"
