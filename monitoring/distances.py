"""How far two windows of one column lie apart: exact statistics over all rows.

* Normed Wasserstein distance: the area between both distribution functions, in standard deviations of the reference.
* Population stability index, PSI = Σ (p - q)·ln(p / q) over the deciles of the reference, or over categories.
* Change of the share that is missing, and the share of categories the reference does not know.

Each is also a function of counts in fine bins, which is what makes thousands of resamples cheap.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from monitoring.verdict import Test

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

FINE: Final = np.append(np.arange(1, 100) / 100, (0.995, 0.999))  # the tail of spend is long: two bins more for it
SMALLEST_SHARE: Final = 1e-4  # an empty bin counts as so much, as in Evidently: the logarithm stays finite
SMALLEST_SPREAD: Final = 1e-3  # a constant column counts as spread so far, as in Evidently
HEAVY_TAIL: Final = 10  # kurtosis
MOST_CATEGORIES: Final = 50  # rarer ones are counted together
RARER, NEW = "a rarer value", "a new value"
NUMBER_TESTS: Final[tuple[Test, ...]] = ("wasserstein", "psi", "missing")
TEXT_TESTS: Final[tuple[Test, ...]] = ("new_category", "psi", "missing")


@dataclass(frozen=True)
class Binned:
    """Hold one column of both windows as bin numbers; the last bin is for missing values."""

    name: str
    tests: tuple[Test, ...]
    reference: Ints  # (n_reference,)
    current: Ints  # (n_current,)
    coarse: Ints  # (n_bins - 1,) the PSI bin of each bin but the last
    centres: Floats  # (n_bins - 1,) mean of the reference in each bin; empty for text
    cuts: tuple[float, ...] = ()  # upper edges of the PSI bins but the last, in the column's own unit; none for text
    categories: tuple[str, ...] = ()  # of the PSI bins; none for numbers
    unit: float | None = None  # of the signed logarithmic scale it is measured on; none for a linear one
    distance: float | None = None  # the exact Wasserstein distance; none for text

    @property
    def n_bins(self) -> int:
        """The number of bins, that for missing values included."""
        return len(self.coarse) + 1

    def measure(self) -> Floats:
        """Measure the column's statistics `(n_tests,)`, over all rows."""
        reference, current = (np.bincount(codes, minlength=self.n_bins) for codes in (self.reference, self.current))
        measured: Floats = self.measure_counts(reference[None], current[None])[0]
        if self.distance is not None:
            measured[0] = self.distance
        return measured

    def measure_counts(self, reference: NDArray[np.generic], current: NDArray[np.generic]) -> Floats:
        """Measure the statistics `(n_samples, n_tests)` from counts in bins `(n_samples, n_bins)`.

        The Wasserstein distance takes every value for the mean of its bin. What cannot be measured is 0.
        """
        p, q = _shares(reference[:, :-1]), _shares(current[:, :-1])
        missing = np.abs(_shares(reference)[:, -1] - _shares(current)[:, -1])
        folds = np.equal.outer(self.coarse, np.arange(self.coarse[-1] + 1)).astype(np.float64)
        if len(self.centres):
            variance = p @ self.centres**2 - (p @ self.centres) ** 2
            apart = np.abs(np.cumsum(p - q, axis=1)[:, :-1]) @ np.diff(self.centres)
            apart /= np.maximum(np.sqrt(np.maximum(variance, 0)), SMALLEST_SPREAD)
        else:
            apart = q[:, -1] * (p[:, -1] == 0)
        return np.column_stack([apart, psi(p @ folds, q @ folds), missing])


def bin_numbers(name: str, reference: Floats, current: Floats, *, money: bool = False) -> Binned:
    """Bin numbers by the percentiles of the reference; money and heavy tails on a signed logarithmic scale."""
    unit = unit_of(reference) if money or is_heavy_tailed(reference) else None
    before, after = (values if unit is None else signed_log(values, unit=unit) for values in (reference, current))
    known, seen = before[~np.isnan(before)], after[~np.isnan(after)]
    values = np.unique(known)
    fine = values if len(values) <= len(FINE) else np.unique(np.quantile(known, FINE, method="inverted_cdf"))
    deciles = np.unique(np.quantile(known, FINE[9:99:10], method="inverted_cdf"))
    codes = np.searchsorted(fine, known)
    rows, sums = (np.bincount(codes, weights=w, minlength=len(fine) + 1) for w in (None, known))
    edges = np.append(fine, values[-1])
    coded = [np.where(np.isnan(x), len(fine) + 1, np.searchsorted(fine, x)) for x in (before, after)]
    spread = max(float(np.std(known)), SMALLEST_SPREAD)
    return Binned(
        name,
        NUMBER_TESTS,
        coded[0],
        coded[1],
        coarse=np.append(np.searchsorted(deciles, fine), len(deciles)),
        centres=np.where(rows > 0, sums / np.maximum(rows, 1), edges),
        cuts=tuple((deciles if unit is None else signed_exp(deciles, unit=unit)).tolist()),
        unit=unit,
        distance=wasserstein(known, seen) / spread if len(seen) else 0.0,
    )


def bin_texts(name: str, reference: pd.Series, current: pd.Series) -> Binned:
    """Bin text by the categories of the reference, the rarest together; the last bin but one is for new ones."""
    known = reference.dropna().astype(str).value_counts().sort_index().sort_values(ascending=False, kind="stable").index
    kept = min(len(known), MOST_CATEGORIES)
    of = {category: min(number, kept) for number, category in enumerate(known)}
    n_known = kept + (len(known) > kept)
    codes = [
        np.where(column.isna(), n_known + 1, column.astype(str).map(of).fillna(n_known)).astype(np.int64)
        for column in (reference.astype(object), current.astype(object))
    ]
    categories = (*known[:kept], *([RARER] if len(known) > kept else []), NEW)
    return Binned(
        name, TEXT_TESTS, codes[0], codes[1], coarse=np.arange(n_known + 1), centres=np.empty(0), categories=categories
    )


def wasserstein(reference: Floats, current: Floats) -> float:
    """Compute the first Wasserstein distance, the area between both distribution functions.

    >>> wasserstein(np.array([0.0, 1.0]), np.array([2.0, 3.0]))
    2.0
    """
    before, after = np.sort(reference), np.sort(current)
    both = np.sort(np.concatenate([before, after]), kind="stable")
    share = (np.searchsorted(window, both[:-1], side="right") / len(window) for window in (before, after))
    return float(np.abs(next(share) - next(share)) @ np.diff(both))


def psi(reference: Floats, current: Floats) -> Floats:
    """Compute the population stability index of shares `(..., n_bins)`.

    >>> round(float(psi(np.array([0.5, 0.5]), np.array([0.25, 0.75]))), 4)
    0.2747
    """
    return np.asarray(psi_terms(reference, current).sum(axis=-1))


def psi_terms(reference: Floats, current: Floats) -> Floats:
    """Compute what each bin adds to the population stability index."""
    p, q = np.maximum(reference, SMALLEST_SHARE), np.maximum(current, SMALLEST_SHARE)
    return np.asarray((p - q) * np.log(p / q))


def is_heavy_tailed(values: Floats) -> bool:
    """Tell whether a few rows decide the standard deviation (kurtosis above 10; the exponential's is 9).

    Resamples of such a column do not show how far its mean may wander (Athreya, Annals of Statistics 1987).
    """
    known = values[~np.isnan(values)]
    spread = float(np.std(known))
    return spread > 0 and float(np.mean(((known - known.mean()) / spread) ** 4)) > HEAVY_TAIL


def unit_of(values: Floats) -> float:
    """Find the size of what is not nothing, the median of |x| over x that is not 0."""
    sizes = np.abs(values[~np.isnan(values) & (values != 0)])
    return float(np.median(sizes)) if len(sizes) else 1.0


def signed_log(values: Floats, *, unit: float) -> Floats:
    """Compute sign(x)·ln(1 + |x| / unit): linear well below the unit, by ratios well above it."""
    return np.asarray(np.sign(values) * np.log1p(np.abs(values) / unit))


def signed_exp(values: Floats, *, unit: float) -> Floats:
    """Undo `signed_log`.

    >>> float(signed_exp(signed_log(np.array([-1999.0]), unit=100), unit=100)[0].round(6))
    -1999.0
    """
    return np.asarray(unit * np.sign(values) * np.expm1(np.abs(values)))


def _shares(counts: NDArray[np.generic]) -> Floats:
    total = counts.sum(axis=1, keepdims=True)
    return np.asarray(counts / np.maximum(total, 1), dtype=np.float64)
