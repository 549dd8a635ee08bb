"""Who is champion, who made it so, and when: the ledger of promotions.

The ledger, `releases/ledger.jsonl`, is the truth about who is champion: one line per change, appended under a lock and
flushed. A change has happened once its line ends in a newline; a torn last line never happened, and the next change
cuts it off. `releases/champion.json` is a copy for people and other programs, written after the ledger and mended by
the next change.

Where homes share object storage, a change has happened once it stands there, under the number that comes next; each
home's own ledger is a copy that follows it, and what a home's service heeds.
"""

import json
import logging
import os
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from features.errors import ContractError, CorruptError, HoldfastError, NotFoundError
from features.files import changing, write_json
from features.home import Home
from features.saying import Saying, saying
from features.stores.objects import objects_of
from training.releases.manifest import RELEASE, no_release
from training.releases.shared import SharedLedger
from training.releases.shelf import MANIFEST, bring

if TYPE_CHECKING:
    from training.promotion import Verdict

logger: Final = logging.getLogger("holdfast")

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
    return tuple(_read_change(line, ledger_path(home)) for line in ledger_lines(home))


def follow(home: Home) -> None:
    """Take down the changes that other homes made; nothing happens where there is no object storage.

    Raises
    ------
    UnavailableError
        If the storage doesn't answer.
    CorruptError
        If what stands there is no change of the champion that serves.
    ContractError
        If this home has changes of its own.
    """
    if objects := objects_of(home):
        with changing(ledger_path(home)):
            take_down(home, SharedLedger(objects))


def keep_up(home: Home) -> None:
    """Follow, and have the champion here; go on with what is here where that can't be done, and say so."""
    if objects_of(home) is None:
        return
    try:
        follow(home)
        if champion := champion_id(home):
            bring(home, champion)
    except HoldfastError as error:
        logger.warning("this home goes on with what it has: %s", error)


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
    UnavailableError
        If homes share object storage, and it doesn't answer.
    """
    if not verdict.promote:
        raise ContractError(f"the gate refused release {release_id}: {'; '.join(verdict.reasons)}; train another")
    if not (home.releases / release_id / MANIFEST).exists():
        raise no_release(release_id)
    with changing(ledger_path(home)):
        shared = _shared(home)
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
        _enter(home, change, shared)
        return change


def rollback(home: Home, *, who: str, now: datetime) -> str:
    """Go back to the champion before the last promotion that still stands, and name it; twice goes back two.

    Raises
    ------
    NotFoundError
        If there is none before, or its folder is gone.
    UnavailableError
        As `promote`.
    """
    with changing(ledger_path(home)):
        shared = _shared(home)
        standing = champions(home)
        if len(standing) < 2:  # noqa: PLR2004 (one to leave, one to return to)
            raise NotFoundError("there is no champion before this one to go back to; `holdfast releases` lists all")
        serving, before = standing[-1], standing[-2]
        bring(home, before)
        if not (home.releases / before / MANIFEST).exists():
            raise NotFoundError(f"release {before}, the champion before, is gone; `holdfast promote` another one")
        at = now.astimezone(UTC).isoformat()
        said = (saying("{release} was taken back", release=serving),)
        _enter(home, Change("rollback", at, who, serving, before, said), shared)
        return before


def ledger_path(home: Home) -> Path:
    """Say where a home's ledger is."""
    return home.releases / "ledger.jsonl"


def ledger_lines(home: Home) -> tuple[bytes, ...]:
    """Give the whole lines of a home's ledger."""
    path = ledger_path(home)
    whole = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
    return tuple(whole.splitlines())


def _read_change(line: bytes, path: Path | str) -> Change:
    try:
        value = json.loads(line)
        if not RELEASE.fullmatch(value["to_release"]) or line.splitlines() != [line]:
            raise ValueError(f"it leads to {value['to_release']!r}")  # noqa: TRY301 (said below)
        return Change(**value | {"said": tuple(map(Saying.read, value["said"]))})
    except (ValueError, TypeError, KeyError) as error:
        raise CorruptError(f"{path} has a line that is no change of champion: {error}; restore a copy") from error


def _shared(home: Home) -> SharedLedger | None:
    """Give the ledger that homes share, if they do, once this home has all of it."""
    if (objects := objects_of(home)) is None:
        return None
    shared = SharedLedger(objects)
    take_down(home, shared)
    return shared


def take_down(home: Home, shared: SharedLedger) -> None:
    """Append the changes that other homes made, as `follow`; whoever calls holds the ledger."""
    for line in shared.after(ledger_lines(home)):
        change, serving = _read_change(line, shared.objects.place), champion_id(home)
        back = champions(home)[-2:-1] if change.action == "rollback" else (change.to_release,)
        if change.from_release != serving or back != (change.to_release,):
            raise CorruptError(
                f"{shared.objects.place} has a {change.action} from {change.from_release} to {change.to_release}, "
                f"which can't follow {serving}; restore a copy"
            )
        _append(home, change, line)


def _enter(home: Home, change: Change, shared: SharedLedger | None) -> None:
    line = json.dumps(asdict(change), sort_keys=True).encode()
    if shared and not shared.enter(len(ledger(home)) + 1, line):
        raise ContractError("another machine changed the champion meanwhile; compare with it, then do it again")
    _append(home, change, line)


def _append(home: Home, change: Change, line: bytes) -> None:
    path = ledger_path(home)
    written = path.read_bytes() if path.exists() else b""
    with path.open("ab") as file:
        file.truncate(written.rfind(b"\n") + 1)  # a torn last line never happened
        file.write(line + b"\n")
        file.flush()
        os.fsync(file.fileno())
    _copy_champion(home, change)


def _copy_champion(home: Home, change: Change) -> None:
    write_json(
        home.releases / "champion.json", {"release_id": change.to_release, "since": change.at, "who": change.who}
    )
