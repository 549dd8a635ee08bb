"""Who is champion, who made it so, and when: the ledger of promotions.

The ledger, `releases/ledger.jsonl`, is the truth about who is champion: one line per change, appended under a lock and
flushed. A change has happened once its line ends in a newline; a torn last line never happened, and the next change
cuts it off. `releases/champion.json` is a copy for people and other programs, written after the ledger and mended by
the next change.
"""

import json
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from features.errors import ContractError, CorruptError, NotFoundError
from features.files import changing, write_json
from features.home import Home
from features.saying import Saying, saying

if TYPE_CHECKING:
    from training.promotion import Verdict

Action = Literal["promotion", "rollback"]


@dataclass(frozen=True)
class Change:
    """Hold one line of the ledger; `at` is ISO 8601 UTC."""

    action: Action
    at: str
    who: str
    from_release: str | None
    to_release: str
    said: tuple[Saying, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        """The reasons in English."""
        return tuple(map(str, self.said))


def champion_id(home: Home) -> str | None:
    """Name the release that serves, if any: where the last whole line of the ledger leads."""
    changes = ledger(home)
    return changes[-1].to_release if changes else None


def champions(home: Home) -> tuple[str, ...]:
    """Name the releases whose promotion stands, the champion last; those that were taken back are left out."""
    standing: list[str] = []
    for change in ledger(home):
        if change.action == "promotion":
            standing.append(change.to_release)
        else:
            standing.pop()
    return tuple(standing)


def ledger(home: Home) -> tuple[Change, ...]:
    """Read every promotion and rollback, oldest first.

    Raises
    ------
    CorruptError
        If a line that was written whole can't be read: somebody else wrote here.
    """
    path = _ledger_path(home)
    whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    return tuple(_read_change(line, path) for line in whole.splitlines())


def promote(
    home: Home, release_id: str, *, expected: str | None, who: str, now: datetime, verdict: "Verdict"
) -> Change:
    """Make a release champion if `expected` still is (None: if there is none); of several at once exactly one succeeds.

    Repeating a promotion that stands changes nothing.

    Raises
    ------
    ContractError
        If the verdict is against it, or another release is champion by now.
    NotFoundError
        If there is no such release.
    """
    if not verdict.promote:
        raise ContractError(f"the gate refused release {release_id}: {'; '.join(verdict.reasons)}; train another")
    if not (home.releases / release_id / "manifest.json").exists():
        raise NotFoundError(f"there is no release {release_id!r}; `holdfast releases` lists those that exist")
    with changing(_ledger_path(home)):
        changes = ledger(home)
        serving = changes[-1].to_release if changes else None
        if serving != expected:
            raise ContractError(
                f"the champion is {serving}, not {expected} as was expected: another promotion came between; "
                "compare with it, then `holdfast promote` again"
            )
        if changes and serving == release_id:
            _copy_champion(home, changes[-1])
            return changes[-1]
        change = Change("promotion", now.astimezone(UTC).isoformat(), who, serving, release_id, verdict.said)
        _append(home, change)
        return change


def rollback(home: Home, *, who: str, now: datetime) -> str:
    """Go back to the champion before the last promotion that still stands, and name it; twice goes back two.

    Raises
    ------
    NotFoundError
        If there is none before, or its folder is gone.
    """
    with changing(_ledger_path(home)):
        standing = champions(home)
        if len(standing) < 2:  # noqa: PLR2004 (one to leave, one to return to)
            raise NotFoundError("there is no champion before this one to go back to; `holdfast releases` lists all")
        serving, before = standing[-1], standing[-2]
        if not (home.releases / before / "manifest.json").exists():
            raise NotFoundError(f"release {before}, the champion before, is gone; `holdfast promote` another one")
        at = now.astimezone(UTC).isoformat()
        _append(
            home, Change("rollback", at, who, serving, before, (saying("{release} was taken back", release=serving),))
        )
        return before


def _ledger_path(home: Home) -> Path:
    return home.releases / "ledger.jsonl"


def _read_change(line: bytes, path: Path) -> Change:
    try:
        value = json.loads(line)
        return Change(**value | {"said": tuple(map(Saying.read, value["said"]))})
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptError(f"{path} has a line that is no change of champion: {error}; restore a copy") from error


def _append(home: Home, change: Change) -> None:
    path = _ledger_path(home)
    written = path.read_bytes() if path.exists() else b""
    with path.open("ab") as file:
        file.truncate(written.rfind(b"\n") + 1)  # a torn last line never happened
        file.write(json.dumps(asdict(change), sort_keys=True).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    _copy_champion(home, change)


def _copy_champion(home: Home, change: Change) -> None:
    write_json(
        home.releases / "champion.json", {"release_id": change.to_release, "since": change.at, "who": change.who}
    )
