"""Two windows of one table, reference and current, and the gate they pass before anything is measured.

A window is a frame with one row per member and snapshot: `member_id` and `as_of` (either may be absent: then rows count
as independent, or as of one time) beside feature columns. What is wrong with it becomes a finding, never a traceback.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monitoring.verdict import Finding

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Kind = Literal["number", "text", "missing", "mixed"]

KEYS: Final = ("member_id", "as_of")
MINIMUM_REFERENCE: Final = 200  # members: below, resampling them says little of the tail
MINIMUM_CURRENT: Final = 50  # members: below, only a landslide could be told from chance
KIND_OF: Final[dict[str, Kind]] = {
    "string": "text",
    "empty": "missing",
    "boolean": "number",
    "integer": "number",
    "floating": "number",
    "mixed-integer-float": "number",
    "decimal": "number",
}


@dataclass(frozen=True)
class Windows:
    """Hold what passed the gate, and what did not."""

    reference: pd.DataFrame
    current: pd.DataFrame
    numbers: tuple[str, ...]
    texts: tuple[str, ...]
    broken: tuple[Finding, ...]
    not_judged: tuple[tuple[str, str], ...]  # (column, reason)

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns to judge, numbers first."""
        return self.numbers + self.texts


def open_windows(reference: pd.DataFrame, current: pd.DataFrame, *, ageing: Collection[str] = ()) -> Windows:
    """Sort the columns of both windows into those to judge, those not judged, and findings.

    Columns in `ageing` grow as time passes whatever members do (tenure, lifetime totals): they pass the gate, no more.
    """
    windows = {"reference": reference, "current": current}
    broken = [finding for name, frame in windows.items() for finding in _whole(name, frame)]
    if broken:
        return Windows(reference, current, (), (), tuple(broken), ())
    before, after = ([str(name) for name in frame.columns if name not in KEYS] for frame in (reference, current))
    broken += [_lost(column) for column in before if column not in set(after)]
    broken += [_new(column) for column in after if column not in set(before)]
    numbers: list[str] = []
    texts: list[str] = []
    not_judged: list[tuple[str, str]] = []
    for column in (name for name in before if name in set(after)):
        kinds = kind_of(reference[column]), kind_of(current[column])
        found = _column(reference[column], current[column], kinds)
        if found:
            broken.append(found)
        elif kinds[0] == "missing":
            not_judged.append((column, "empty in the reference"))
        elif column in ageing:
            not_judged.append((column, "grows with time"))
        elif "mixed" in kinds:
            not_judged.append((column, "neither numbers nor text"))
        else:
            (numbers if kinds[0] == "number" else texts).append(column)
    return Windows(reference, current, tuple(numbers), tuple(texts), tuple(broken), tuple(not_judged))


def too_few(windows: Windows) -> Finding | None:
    """Say which window holds too few members to judge by, if one does."""
    for name, frame, wanted in (
        ("reference", windows.reference, MINIMUM_REFERENCE),
        ("current", windows.current, MINIMUM_CURRENT),
    ):
        members = len(np.unique(codes_of(frame, "member_id")))
        if members < wanted:
            sentence = f"the {name} window holds {members} members; at least {wanted} are needed to judge by"
            return Finding("", "too_few", sentence, statistic=float(members), threshold=float(wanted))
    return None


def codes_of(frame: pd.DataFrame, key: str) -> Ints:
    """Count off the members or the times of the rows `(n_rows,)`; without it each row is a member, of one time."""
    if key in frame:
        return np.asarray(pd.factorize(frame[key], sort=True)[0], dtype=np.int64)
    return np.arange(len(frame)) if key == "member_id" else np.zeros(len(frame), dtype=np.int64)


def kind_of(column: pd.Series) -> Kind:
    """Name what a column holds, by its values where its type does not say.

    >>> kind_of(pd.Series([1, None])), kind_of(pd.Series(["a", None])), kind_of(pd.Series([None, None]))
    ('number', 'text', 'missing')
    """
    if column.isna().all():
        return "missing"
    values = column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column
    return KIND_OF.get(pd.api.types.infer_dtype(values, skipna=True), "mixed")


def numbers_of(column: pd.Series) -> Floats:
    """Take a column's values as float64 `(n_rows,)`, NaN where missing."""
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))


def _whole(name: str, frame: pd.DataFrame) -> list[Finding]:
    if frame.empty:
        return [Finding("", "empty", f"the {name} window is empty: {len(frame)} rows of {frame.shape[1]} columns came")]
    twice = sorted({str(column) for column in frame.columns[frame.columns.duplicated()]})
    return [Finding(column, "twice", f"{column} comes more than once in the {name} window") for column in twice]


def _lost(column: str) -> Finding:
    return Finding(column, "lost_column", f"{column} is gone: the reference has it, the current window does not")


def _new(column: str) -> Finding:
    return Finding(column, "new_column", f"{column} is new: the reference does not have it")


def _column(reference: pd.Series, current: pd.Series, kinds: tuple[Kind, Kind]) -> Finding | None:
    column = str(reference.name)
    if kinds[1] == "missing" and kinds[0] != "missing":
        return Finding(column, "all_missing", f"{column} is missing in every row of the current window")
    if kinds[0] not in (kinds[1], "missing"):
        return Finding(column, "retyped", f"{column} held {_plural(kinds[0])} and now holds {_plural(kinds[1])}")
    for name, values in (("reference", reference), ("current", current)):
        infinite = int(np.isinf(numbers_of(values)).sum()) if set(kinds) == {"number"} else 0
        if infinite:
            return Finding(column, "infinite", f"{column} is infinite in {infinite:,} rows of the {name} window")
    return None


def _plural(kind: Kind) -> str:
    return {"number": "numbers", "text": "text", "missing": "nothing", "mixed": "mixed values"}[kind]
