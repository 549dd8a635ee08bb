"""What is moved: the parts of one home, from where one profile keeps them to where the other does."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

from features.engine import BEYOND, Engine, masked
from features.errors import ContractError, UnavailableError
from features.home import Home
from features.migration.tally import Compared
from features.sheet import Progress

Profile = Literal["local", "cluster"]


@dataclass(frozen=True)
class Move:
    """Say whose parts are moved, and between which engines."""

    home: Home
    source: Engine
    target: Engine

    def moves(self, part: str) -> bool:
        """Whether a part is kept elsewhere afterwards."""
        return bool(getattr(self.source, part) != getattr(self.target, part))


@dataclass(frozen=True)
class Part:
    """Hold how one part is moved; `check` and `compare` change nothing that anybody wrote."""

    name: str  # as under [engine]
    check: Callable[[Move], int]  # counts what the target holds and the source does not
    copy: Callable[[Move, Progress], None]  # goes on where a copy ended
    compare: Callable[[Move], list[Compared]]


def between(home: Home, engine: Engine, source: Profile, target: Profile) -> Move:
    """Say what moves between a home's own files and the servers that its settings name.

    Raises
    ------
    ContractError
        If both are the same, or the settings name no server.
    """
    if source == target:
        raise ContractError(f"{source} and {target} are one profile; `holdfast migrate local cluster` was wanted")
    if not any(getattr(engine, part) != getattr(Engine(), part) for part in KEPT):
        example = f'online = "{BEYOND["online"]}"'
        raise ContractError(
            f"[engine] in {home.settings} names no server, so that there is nothing to move; wanted such as {example}"
        )
    return Move(home, Engine(), engine) if target == "cluster" else Move(home, engine, Engine())


def refuse_strangers(move: Move, parts: Sequence[Part]) -> None:
    """Let nothing be mixed with what is somebody else's.

    Raises
    ------
    ContractError
        If a target holds something that the source does not.
    """
    for part in parts:
        if strangers := part.check(move):
            place = masked(getattr(move.target, part.name))
            raise ContractError(
                f"{part.name} at {place} holds {strangers:,} things that the source does not, so that nothing was "
                f"moved; name an empty place under [engine] in holdfast.toml, or empty this one"
            )


def refuse_servers(move: Move, parts: Sequence[Part], clock: Callable[[], datetime]) -> None:
    """Begin nothing that a server would leave half-done.

    Raises
    ------
    UnavailableError
        If a server does not answer, or takes no writes.
    """
    from features.stores.health import health_of

    for part in parts:
        for engine in (move.source, move.target):
            address: Any = getattr(engine, part.name)
            if address == getattr(Engine(), part.name):
                continue
            health = health_of(part.name, engine, clock)
            if health.state not in {"answers", "slow"}:
                raise UnavailableError(
                    f"{part.name} at {masked(address)}: {health.words}; nothing was moved; `holdfast doctor` says how "
                    f"to mend it"
                )


# in the order in which they are moved
KEPT: Final = ("registry", "online", "objects", "tracking", "studies", "decisions")
