"""Every feature, from the modules that define them: importing this one fills the catalogue.

What each function's table holds is said in `features.as_of.known`. Every table is already cut at `as_of`; `days_ago`
counts whole local days back from it. Sums are of integers, and floats appear only in a last division, so that DuckDB
and Spark agree to the bit.
"""

from pathlib import Path
from typing import Final

from features.as_of import known
from features.catalogue import (
    attributes,
    baskets,
    contact_history,
    engagement,
    entries,
    purchases,
    rhythm,
    segments,
    subscription,
    tiers,
)
from features.catalogue.entries import CATALOGUE, PURPOSES
from features.sheet import Sheet

_SUBJECTS: Final = (
    *(purchases, rhythm, baskets, engagement, contact_history),
    *(subscription, tiers, segments, attributes),
)
# what a snapshot's values follow from
CODE: Final = tuple(Path(module.__file__) for module in (entries, known, *_SUBJECTS) if module.__file__)


def catalogue_sheet() -> Sheet:
    """Show every feature with its meaning, unit, range and purpose."""
    rows = [
        (name, f.meaning, f.unit, "" if f.is_text else f"{_bound(f.minimum)} to {_bound(f.maximum)}", f.purpose)
        for name, f in CATALOGUE.items()
    ]
    return Sheet(
        f"{len(rows)} features",
        ("feature", "meaning", "unit", "range", "purpose"),
        tuple(rows),
        tuple(f"{purpose}: {meaning}" for purpose, meaning in PURPOSES.items()),
    )


def _bound(value: float | None) -> str:
    return "any" if value is None else f"{value:g}"
