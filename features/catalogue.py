"""The catalogue of features: each is one function, named as the feature, registered with its unit and range.

The function's docstring is the feature's meaning, in the words that are shown to people.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    import ibis.expr.types as ir

Source = Literal["visits", "purchase_days", "categories", "contacts", "redemptions", "member", "audience"]
Definition = Callable[["ir.Table"], "ir.Value"]


@dataclass(frozen=True)
class Feature:
    """Describe one feature."""

    name: str
    meaning: str
    unit: str
    source: Source
    minimum: float | None
    maximum: float | None
    ageing: bool  # grows with the length of the history, so that two windows differ by construction
    compute: Definition

    @property
    def is_text(self) -> bool:
        """Whether it is a word (a stage, a segment) and not a number."""
        return self.unit == "word"


CATALOGUE: Final[dict[str, Feature]] = {}


def feature(
    source: Source, unit: str, *, minimum: float | None = 0, maximum: float | None = None, ageing: bool = False
) -> Callable[[Definition], Definition]:
    """Register a function as a feature.

    Parameters
    ----------
    source : what the function's table holds; see `features.snapshots` for their columns. "visits", "purchase_days",
        "categories", "contacts" and "redemptions" are aggregated per member; "member" computes from a member's other
        features; "audience" compares a member with all others at the same `as_of`.
    """

    def register(compute: Definition) -> Definition:
        name, meaning = compute.__name__, (compute.__doc__ or "").strip().rstrip(".")
        CATALOGUE[name] = Feature(name, meaning, unit, source, minimum, maximum, ageing, compute)
        return compute

    return register
