"""The current window's columns, sorted into those to judge and those that are a finding already: the gate.

A window is a frame with one row per member and snapshot: `member_id` and `as_of` (either may be absent: then rows count
as independent, or as of one time) beside feature columns. What is wrong with it becomes a finding, never a traceback.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.saying import Saying, saying
from monitoring.verdict import Finding

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Kind = Literal["number", "text", "missing", "mixed"]
Window = Literal["reference", "current"]

KEYS: Final = ("member_id", "as_of")
KIND_OF: Final[dict[str, Kind]] = {
    "string": "text",
    "empty": "missing",
    "boolean": "number",
    "integer": "number",
    "floating": "number",
    "mixed-integer-float": "number",
    "decimal": "number",
}
_SAID: Final[dict[Kind, Saying]] = {
    "number": saying("numbers"),
    "text": saying("text"),
    "missing": saying("nothing"),
    "mixed": saying("mixed values"),
}
WINDOWS: Final = {"reference": saying("reference"), "current": saying("current")}
UPLIFT: Final = "uplift of "  # what columns of a release's scores begin with, before the offer's name
SCORES: Final = {"churn probability": saying("churn probability"), "value": saying("value")}


@dataclass(frozen=True)
class Gate:
    """Hold which columns may be judged, what was found of the others, and what is left out without being wrong."""

    columns: tuple[str, ...]
    broken: tuple[Finding, ...]
    not_judged: tuple[tuple[str, str], ...]  # (column, reason)


def pass_gate(before: Mapping[str, Kind], current: pd.DataFrame, *, ageing: Collection[str]) -> Gate:
    """Compare the current window's columns with the kinds of the reference's.

    Columns in `ageing` grow as time passes whatever members do (tenure, lifetime totals): they pass the gate, no more.
    """
    if broken := faults("current", current):
        return Gate((), broken, ())
    after = columns_of(current)
    found = [_lost(column) for column in before if column not in set(after)]
    found += [_new(column) for column in after if column not in before]
    judged: list[str] = []
    not_judged: list[tuple[str, str]] = []
    for column in (name for name in before if name in set(after)):
        kinds = before[column], kind_of(current[column])
        wrong = _changed(column, kinds) or (infinite("current", current[column]) if kinds[1] == "number" else None)
        if wrong:
            found.append(wrong)
        elif kinds[0] == "missing":
            not_judged.append((column, "empty in the reference"))
        elif column in ageing:
            not_judged.append((column, "grows with time"))
        elif "mixed" in kinds:
            not_judged.append((column, "neither numbers nor text"))
        else:
            judged.append(column)
    return Gate(tuple(judged), tuple(found), tuple(not_judged))


def faults(name: Window, frame: pd.DataFrame) -> tuple[Finding, ...]:
    """Say what is wrong with a window as a whole."""
    if frame.empty:
        words = "the {window} window is empty: {rows} rows of {columns} columns came"
        shape = {"rows": str(len(frame)), "columns": str(frame.shape[1])}
        return (Finding("", "empty", saying(words, window=WINDOWS[name], **shape)),)
    words = "{column} comes more than once in the {window} window"
    twice = sorted({str(column) for column in frame.columns[frame.columns.duplicated()]})
    return tuple(Finding(one, "twice", saying(words, column=named(one), window=WINDOWS[name])) for one in twice)


def infinite(name: Window, column: "pd.Series[Any]") -> Finding | None:
    """Say how many rows of a column of numbers are infinite, if any."""
    rows = int(np.isinf(floats(column)).sum())
    if not rows:
        return None
    words, told = "{column} is infinite in {rows} rows of the {window} window", str(column.name)
    return Finding(told, "infinite", saying(words, column=named(told), rows=f"{rows:,}", window=WINDOWS[name]))


def columns_of(frame: pd.DataFrame) -> list[str]:
    """Name the columns beside the keys."""
    return [str(column) for column in frame.columns if column not in KEYS]


def named(column: str) -> str | Saying:
    """Name a column in a sentence: what a release's scores are called has a word in every language.

    >>> str(named("uplift of mail")), named("spend_28d")
    ('uplift of mail', 'spend_28d')
    """
    if column.startswith(UPLIFT):
        return saying("uplift of {offer}", offer=column.removeprefix(UPLIFT))
    return SCORES.get(column, column)


def members_of(frame: pd.DataFrame) -> int:
    """Count the members of a window; without ids each row is one."""
    return int(frame["member_id"].nunique(dropna=False)) if "member_id" in frame else len(frame)


def codes_of(frame: pd.DataFrame, key: str) -> Ints:
    """Count off the members or the times of the rows `(n_rows,)`; without it each row is a member, of one time."""
    if key in frame:
        return np.asarray(pd.factorize(frame[key], sort=key == "as_of")[0], dtype=np.int64)
    return np.arange(len(frame)) if key == "member_id" else np.zeros(len(frame), dtype=np.int64)


def kind_of(column: "pd.Series[Any]") -> Kind:
    """Name what a column holds, by its values where its type does not say.

    >>> kind_of(pd.Series([1, None])), kind_of(pd.Series(["a", None])), kind_of(pd.Series([None, None]))
    ('number', 'text', 'missing')
    """
    if column.isna().all():
        return "missing"
    values = column.astype(object) if isinstance(column.dtype, pd.CategoricalDtype) else column
    return KIND_OF.get(pd.api.types.infer_dtype(values, skipna=True), "mixed")


def floats(column: "pd.Series[Any]") -> Floats:
    """Take a column's values as float64 `(n_rows,)`, NaN where missing."""
    return np.asarray(column.to_numpy(dtype=np.float64, na_value=np.nan))


def _lost(column: str) -> Finding:
    words = "{column} is gone: the reference has it, the current window does not"
    return Finding(column, "lost_column", saying(words, column=named(column)))


def _new(column: str) -> Finding:
    return Finding(column, "new_column", saying("{column} is new: the reference does not have it", column=column))


def _changed(column: str, kinds: tuple[Kind, Kind]) -> Finding | None:
    if kinds[1] == "missing" and kinds[0] != "missing":
        words = "{column} is missing in every row of the current window"
        return Finding(column, "all_missing", saying(words, column=named(column)))
    if kinds[0] not in (kinds[1], "missing"):
        words, told = "{column} held {before} and now holds {after}", {"column": named(column)}
        return Finding(column, "retyped", saying(words, **told, before=_SAID[kinds[0]], after=_SAID[kinds[1]]))
    return None
