"""How the values of one column are distributed: distinct numbers in order, or words, with how many rows hold each.

All that monitoring measures is a function of two of these, so that a reference needs no rows, and no member.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MOST_VALUES: Final = 65_536  # of a distribution that is kept: it is exact at so many evenly spaced ranks


@dataclass(frozen=True)
class Numbers:
    """Hold distinct finite values in order, and how many rows have at most each."""

    points: Floats  # (n_points,)
    up_to: Ints  # (n_points,)
    missing: int

    @property
    def known(self) -> int:
        """Count the rows that have a value."""
        return int(self.up_to[-1]) if len(self.up_to) else 0

    @property
    def missing_share(self) -> float:
        """Give the share of rows without a value."""
        return self.missing / max(self.known + self.missing, 1)

    @property
    def counts(self) -> Ints:
        """Count the rows that have each value, `(n_points,)`."""
        return np.diff(self.up_to, prepend=0)

    @property
    def mean(self) -> float:
        """Give the mean; 0 where nothing is known."""
        return float(self.counts @ self.points) / max(self.known, 1)

    @property
    def median(self) -> float:
        """Give the middle value, or the mean of the two in the middle."""
        middle = np.searchsorted(self.up_to, ((self.known + 1) // 2, self.known // 2 + 1))
        return float(self.points[middle].mean())

    @property
    def spread(self) -> float:
        """Give the standard deviation."""
        return float(np.sqrt(self._moment(2)))

    @property
    def kurtosis(self) -> float:
        """Give the fourth central moment in squared variances; 0 for a constant."""
        variance = self._moment(2)
        return self._moment(4) / variance**2 if variance > 0 else 0.0

    def quantiles(self, shares: Floats) -> Floats:
        """Give the smallest values that at least these shares of rows do not exceed.

        >>> numbers_of(np.array([3.0, 1.0, 2.0, 2.0])).quantiles(np.array([0.25, 0.5, 1.0]))
        array([1., 2., 3.])
        """
        ranks = np.maximum(np.ceil(np.asarray(shares) * self.known - 1e-9), 1)  # 0.3 of 10 is 3, and not 3.0000000004
        return self.points[np.searchsorted(self.up_to, ranks)]

    def rows_up_to(self, edges: Floats) -> Ints:
        """Count the rows with at most these values."""
        places = np.searchsorted(self.points, edges, side="right")
        return np.append(0, self.up_to)[places]

    def thinned(self, most: int = MOST_VALUES) -> "Numbers":
        """Keep the values at evenly spaced ranks: what every one of them counts up to stays exact."""
        if len(self.points) <= most:
            return self
        ranks = np.ceil(np.arange(1, most + 1) * (self.known / most) - 1e-9)
        kept = np.unique(np.append(0, np.searchsorted(self.up_to, ranks)))
        return Numbers(self.points[kept], self.up_to[kept], self.missing)

    def _moment(self, order: int) -> float:
        return float(self.counts @ (self.points - self.mean) ** order) / max(self.known, 1)


@dataclass(frozen=True)
class Words:
    """Hold words, the most frequent first, and how many rows have each."""

    words: tuple[str, ...]
    counts: Ints  # (n_words,)
    missing: int

    @property
    def rows(self) -> int:
        """Count all rows."""
        return int(self.counts.sum()) + self.missing

    @property
    def missing_share(self) -> float:
        """Give the share of rows without a word."""
        return self.missing / max(self.rows, 1)


def numbers_of(values: Floats) -> Numbers:
    """Sort and count numbers; NaN is missing.

    >>> numbers_of(np.array([2.0, np.nan, 1.0, 2.0]))
    Numbers(points=array([1., 2.]), up_to=array([1, 3]), missing=1)
    """
    ordered = np.sort(values)  # NaN last
    known = len(ordered) - int(np.isnan(values).sum())
    ordered = ordered[:known]
    last = np.flatnonzero(np.append(ordered[1:] != ordered[:-1], known > 0)[:known])
    return Numbers(ordered[last], last + 1, len(values) - known)


def words_of(column: pd.Series) -> Words:
    """Count words, among equals in the order of the alphabet."""
    known = column.astype(object).dropna().value_counts()
    known.index = known.index.map(str)
    counted = known.groupby(level=0).sum().sort_values(ascending=False, kind="stable")
    return Words(tuple(counted.index), counted.to_numpy().astype(np.int64), len(column) - int(counted.sum()))
