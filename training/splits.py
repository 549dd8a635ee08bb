"""Splits by time with an embargo, and folds by member.

No label window of the training dates reaches into the test period; no member is both learnt from and judged on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.errors import ContractError
from features.programme import Programme

Flags = NDArray[np.bool_]
Fold = tuple[Flags, Flags]  # rows to learn from, rows to be judged on; each (n_rows,)


@dataclass(frozen=True)
class Split:
    """Hold the `as_of` dates to learn from and, one horizon later at the earliest, those to be judged on."""

    train: tuple[datetime, ...]
    test: tuple[datetime, ...]


def split_by_time(dates: Sequence[datetime], *, programme: Programme) -> Split:
    """Keep the last `test_days` of dates for the test, and train on those whose label windows end before it.

    Raises
    ------
    ContractError
        If nothing is left to train on.
    """
    ordered = sorted(dates)
    test = (
        [as_of for as_of in ordered if as_of >= programme.days_before(ordered[-1], programme.test_days)]
        if ordered
        else []
    )
    train = (
        [as_of for as_of in ordered if programme.days_before(as_of, -programme.label_days) <= test[0]] if test else []
    )
    if not train:
        raise ContractError(
            f"{len(ordered)} snapshots with labels are too few for {programme.test_days} days of test and "
            f"{programme.label_days} days until a label is known before it; ingest a longer history, or say a smaller "
            "test_days in holdfast.toml"
        )
    return Split(tuple(train), tuple(test))


def time_folds(dates: Sequence[datetime], n: int, *, programme: Programme) -> list[Split]:
    """Cut the later two thirds of the dates into `n` blocks, each judged by what was known a horizon before it.

    Raises
    ------
    ContractError
        If no date is a horizon after another.
    """
    ordered = sorted(dates)
    first = len(ordered) // 3
    size = max(1, -(-(len(ordered) - first) // n))
    blocks = [ordered[start : start + size] for start in range(first, len(ordered), size)]
    splits = [
        Split(tuple(a for a in ordered if programme.days_before(a, -programme.label_days) <= block[0]), tuple(block))
        for block in blocks
    ]
    folds = [split for split in splits if split.train]
    if not folds:
        raise ContractError(
            f"{len(ordered)} snapshots to learn from are too few for time-respecting folds: none comes "
            f"{programme.label_days} days after another; ingest a longer history, train at a later --as-of, or say a "
            "smaller history_days, test_days or horizon_days in holdfast.toml"
        )
    return folds


def disjoint(dates: Sequence[datetime], *, programme: Programme) -> list[datetime]:
    """Thin dates, from the last backwards, until no two label windows overlap."""
    kept: list[datetime] = []
    for as_of in sorted(dates, reverse=True):
        if not kept or programme.days_before(as_of, -programme.label_days) <= kept[-1]:
            kept.append(as_of)
    return kept[::-1]


def row_folds(folds: Sequence[Split], as_of: pd.Series) -> list[Fold]:
    """Give for each split which rows, by their `as_of`, are learnt from and which are judged on, each `(n_rows,)`."""
    return [(_among(as_of, fold.train), _among(as_of, fold.test)) for fold in folds]


def _among(as_of: pd.Series, dates: Sequence[datetime]) -> Flags:
    return as_of.isin(list(dates)).to_numpy()


def folds_of(
    members: NDArray[Any], n: int, rng: np.random.Generator, *, outcome: NDArray[Any] | None = None
) -> NDArray[np.int64]:
    """Draw a fold, 0 to n - 1, for every row: the same for all rows of a member, the folds equally many members.

    Parameters
    ----------
    members : (n_rows,) the member of each row
    outcome : (n_rows,) 0 or 1; if given, members who ever had it are spread evenly over the folds
    """
    _, member = np.unique(members, return_inverse=True)
    ever = np.zeros(int(member.max()) + 1, dtype=np.bool_) if outcome is None else np.bincount(member, outcome) > 0
    order = np.argsort(ever[shuffled := rng.permutation(len(ever))], kind="stable")
    fold = np.empty(len(ever), dtype=np.int64)
    fold[shuffled[order]] = np.arange(len(ever)) % n
    return fold[member]


def each_held_out(fold: NDArray[np.int64]) -> list[Fold]:
    """Give, for each fold in turn, which rows are learnt from and which are judged on."""
    return [(fold != k, fold == k) for k in range(int(fold.max()) + 1)]
