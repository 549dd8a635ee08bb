"""What a panel says where there is nothing to show yet, and how few members are too few to be counted out loud."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from features.errors import HoldfastError, NotFoundError

FEWEST: Final = 5  # members: of fewer the page says no more than that

T = TypeVar("T")


@dataclass(frozen=True)
class Missing:
    """Say by a word of the catalogue why there is nothing, and what to type.

    `detail` is in English: the words of an error that is more than that.
    """

    why: str
    command: str
    detail: str = ""


def or_missing(gather: Callable[[], T], why: str, command: str) -> T | Missing:
    """Gather a panel, or say why it can't be: one that fails never takes the others with it."""
    try:
        return gather()
    except NotFoundError:
        return Missing(why, command)
    except (HoldfastError, LookupError, OSError, ValueError) as error:  # ValueError: a snapshot lacks a column
        return Missing(why, command, str(error))


def counted(members: int) -> int | None:
    """Count members; None stands for fewer than `FEWEST`, but not for nobody.

    >>> counted(0), counted(4), counted(5)
    (0, None, 5)
    """
    return members if members >= FEWEST or members == 0 else None
