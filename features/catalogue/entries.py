"""The catalogue of features: each is one function, named as the feature, registered with its unit, purpose and range.

The function's docstring is the feature's meaning, in the words that are shown to people. `features.transforms` brings
them all in.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from features.programme import Programme

if TYPE_CHECKING:
    import ibis.expr.types as ir

Source = Literal[
    "visits",
    "purchase_days",
    "categories",
    "channels",
    "contacts",
    "redemptions",
    "events",
    "terms",
    "member",
    "audience",
]
Purpose = Literal["lapse", "value", "response", "fatigue", "satisfaction", "rules"]
Definition = Callable[["ir.Table"], "ir.Value"]
Window = float | Callable[[Programme], float]
ProgrammeDefinition = Callable[["ir.Table", Programme], "ir.Value"]

PURPOSES: Final[dict[Purpose, str]] = {
    "lapse": "who is slipping away",
    "value": "what a member is worth",
    "response": "who answers which offer",
    "fatigue": "whom another contact would tire",
    "satisfaction": "how content a member is",
    "rules": "what people, rules and fallbacks speak of",
}
EVER: Final = math.inf  # a window that reaches back to the beginning
# of these units a member without a row has 0; of all others, nothing is known
COUNTED: Final = frozenset({"visits", "money", "weeks", "contacts", "redemptions", "categories", "events", "points"})


@dataclass(frozen=True)
class Feature:
    """Describe one feature."""

    name: str
    meaning: str
    unit: str
    purpose: Purpose
    source: Source
    minimum: float | None
    maximum: float | None
    window: Window  # days it looks back; 0 where that is no matter
    zero: bool  # whether a member without a row in the source has 0
    compute: ProgrammeDefinition

    @property
    def is_text(self) -> bool:
        """Whether it is a word (a stage, a segment) and not a number."""
        return self.unit == "word"

    def ageing(self, programme: Programme) -> bool:
        """Whether it grows with the length of the history, so that two windows of time differ by construction.

        A window is filled from the first snapshot on if it is no longer than the history that a snapshot has to have.
        """
        window = self.window(programme) if callable(self.window) else self.window
        return bool(window > programme.history_days)


CATALOGUE: Final[dict[str, Feature]] = {}


def programme_feature(
    source: Source,
    unit: str,
    purpose: Purpose,
    *,
    minimum: float | None = 0,
    maximum: float | None = None,
    window: Window | None = None,
    zero: bool | None = None,
) -> Callable[[ProgrammeDefinition], ProgrammeDefinition]:
    """Register a function of a table and the programme's settings as a feature.

    Parameters
    ----------
    source : what the function's table holds; see `features.as_of.known` for their columns. "member" computes from a
        member's other features; "audience" compares a member with all others at the same `as_of`; all others are
        aggregated per member.
    window : days; by default the number that the feature's name ends in, as in `spend_84d`
    zero : by default whether the unit is `COUNTED`
    """

    def register(compute: ProgrammeDefinition) -> ProgrammeDefinition:
        name, meaning = compute.__name__, (compute.__doc__ or "").strip().rstrip(".")
        CATALOGUE[name] = Feature(
            name=name,
            meaning=meaning,
            unit=unit,
            purpose=purpose,
            source=source,
            minimum=minimum,
            maximum=maximum,
            window=_window(name) if window is None else window,
            zero=unit in COUNTED if zero is None else zero,
            compute=compute,
        )
        return compute

    return register


def feature(
    source: Source,
    unit: str,
    purpose: Purpose,
    *,
    minimum: float | None = 0,
    maximum: float | None = None,
    window: float | None = None,
    zero: bool | None = None,
) -> Callable[[Definition], Definition]:
    """Register a function of a table alone; everything else is as for `programme_feature`."""
    add = programme_feature(source, unit, purpose, minimum=minimum, maximum=maximum, window=window, zero=zero)

    def register(compute: Definition) -> Definition:
        def of_table(table: "ir.Table", _: Programme) -> "ir.Value":
            return compute(table)

        of_table.__name__, of_table.__doc__ = compute.__name__, compute.__doc__
        add(of_table)
        return compute

    return register


def _window(name: str) -> int:
    """Read the days off a name.

    >>> _window("spend_84d"), _window("recency_days")
    (84, 0)
    """
    found = re.search(r"_(\d+)d$", name)
    return int(found[1]) if found else 0
