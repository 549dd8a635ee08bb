"""How far the current distribution of a column lies from the reference's: exact statistics over all rows.

* Normed Wasserstein distance: the area between both distribution functions, in standard deviations of the reference.
* Population stability index, PSI = Σ (p - q)·ln(p / q) over the deciles of the reference, or over categories.
* Change of the share that is missing, and the share of categories the reference does not know.

Each is also a function of counts in fine bins, which is what makes thousands of resamples cheap.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from monitoring.distributions import Numbers, Words
from monitoring.verdict import Test

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Codes = NDArray[np.uint8]
Counts = Ints | Floats

FINE: Final = np.append(np.arange(1, 100) / 100, (0.995, 0.999))  # the tail of spend is long: two bins more for it
SMALLEST_SHARE: Final = 1e-4  # an empty bin counts as so much, as in Evidently: the logarithm stays finite
SMALLEST_SPREAD: Final = 1e-3  # a constant column counts as spread so far, as in Evidently
HEAVY_TAIL: Final = 10  # kurtosis
MOST_CATEGORIES: Final = 50  # rarer ones are counted together
RARER, NEW = "a rarer value", "a new value"
NUMBER_TESTS: Final[tuple[Test, ...]] = ("wasserstein", "psi", "missing")
TEXT_TESTS: Final[tuple[Test, ...]] = ("new_category", "psi", "missing")


@dataclass(frozen=True)
class NumberBins:
    """Measure a column of numbers by the reference's percentiles; the last bin is for missing values."""

    name: str
    reference: Numbers  # on the scale it is measured on
    unit: float | None  # of the signed logarithmic scale it is measured on; None for a linear one
    fine: Floats  # (n_bins - 2,) upper edges of the bins but the last
    coarse: Ints  # (n_bins - 1,) the PSI bin of each bin but the last
    centres: Floats  # (n_bins - 1,) mean of the reference in each bin
    cuts: tuple[float, ...]  # upper edges of the PSI bins but the last, in the column's own unit
    tests: tuple[Test, ...] = NUMBER_TESTS

    @property
    def n_bins(self) -> int:
        """The number of bins, that for missing values included."""
        return len(self.coarse) + 1

    def scaled(self, values: Floats) -> Floats:
        """Bring values to the scale they are measured on."""
        return values if self.unit is None else signed_log(values, unit=self.unit)

    def scaled_distribution(self, current: Numbers) -> Numbers:
        """Bring a distribution there: the scale keeps the order, so that no row has to be looked at again."""
        return current if self.unit is None else Numbers(self.scaled(current.points), current.up_to, current.missing)

    def codes(self, values: Floats) -> Codes:
        """Say in which bin each value is, `(n_rows,)`."""
        scaled = self.scaled(values)
        return np.asarray(np.where(np.isnan(scaled), self.n_bins - 1, np.searchsorted(self.fine, scaled)), np.uint8)

    def counts(self, scaled: Numbers) -> Ints:
        """Count the rows in each bin, `(n_bins,)`."""
        within = np.diff(scaled.rows_up_to(self.fine), prepend=0, append=scaled.known)
        return np.append(within, scaled.missing)

    def measure(self, current: Numbers) -> Floats:
        """Measure the column's statistics `(n_tests,)`, over all rows."""
        scaled = self.scaled_distribution(current)
        measured: Floats = self.measure_counts(self.counts(self.reference)[None], self.counts(scaled)[None])[0]
        spread = max(self.reference.spread, SMALLEST_SPREAD)
        measured[0] = wasserstein(self.reference, scaled) / spread if scaled.known else 0.0
        return measured

    def measure_counts(self, reference: Counts, current: Counts) -> Floats:
        """Measure the statistics `(n_samples, n_tests)` from counts in bins `(n_samples, n_bins)`.

        The Wasserstein distance takes every value for the mean of its bin. What cannot be measured is 0.
        """
        p, q = _shares(reference[:, :-1]), _shares(current[:, :-1])
        variance = p @ self.centres**2 - (p @ self.centres) ** 2
        apart = np.abs(np.cumsum(p - q, axis=1)[:, :-1]) @ np.diff(self.centres)
        apart /= np.maximum(np.sqrt(np.maximum(variance, 0)), SMALLEST_SPREAD)
        return np.column_stack([apart, _psi_of(p, q, self.coarse), _missing(reference, current)])


@dataclass(frozen=True)
class WordBins:
    """Measure a column of words by the reference's, the rarest together; the last two bins are new and missing ones."""

    name: str
    reference: Words
    categories: tuple[str, ...]  # of the bins but the last
    tests: tuple[Test, ...] = TEXT_TESTS

    @property
    def n_bins(self) -> int:
        """The number of bins, that for missing values included."""
        return len(self.categories) + 1

    @property
    def coarse(self) -> Ints:
        """The PSI bin of each bin but the last: its own."""
        return np.arange(len(self.categories))

    def codes(self, column: "pd.Series[Any]") -> Codes:
        """Say in which bin each word is, `(n_rows,)`."""
        of = self._bins
        known = column.astype(object).map(lambda word: of.get(str(word), len(self.categories) - 1))
        return np.asarray(np.where(column.isna(), self.n_bins - 1, known), np.uint8)

    def counts(self, words: Words) -> Ints:
        """Count the rows in each bin, `(n_bins,)`."""
        of = self._bins
        places = np.array([of.get(word, len(self.categories) - 1) for word in words.words], dtype=np.int64)
        counted = np.bincount(places, weights=words.counts, minlength=self.n_bins).astype(np.int64)
        counted[-1] = words.missing
        return counted

    def measure(self, current: Words) -> Floats:
        """Measure the column's statistics `(n_tests,)`, over all rows."""
        return np.asarray(self.measure_counts(self.counts(self.reference)[None], self.counts(current)[None])[0])

    def measure_counts(self, reference: Counts, current: Counts) -> Floats:
        """Measure the statistics `(n_samples, n_tests)` from counts in bins `(n_samples, n_bins)`."""
        p, q = _shares(reference[:, :-1]), _shares(current[:, :-1])
        new = q[:, -1] * (p[:, -1] == 0)
        return np.column_stack([new, _psi_of(p, q, self.coarse), _missing(reference, current)])

    @property
    def _bins(self) -> dict[str, int]:
        kept = min(len(self.reference.words), MOST_CATEGORIES)
        return {word: min(number, kept) for number, word in enumerate(self.reference.words)}


Bins = NumberBins | WordBins


def number_bins(name: str, reference: Numbers, *, money: bool = False) -> NumberBins:
    """Bin numbers by the percentiles of the reference; money and heavy tails on a signed logarithmic scale."""
    unit = unit_of(reference) if money or is_heavy_tailed(reference) else None
    if unit is not None:
        reference = Numbers(signed_log(reference.points, unit=unit), reference.up_to, reference.missing)
    values = reference.points
    fine = values if len(values) <= len(FINE) else np.unique(reference.quantiles(FINE))
    deciles = np.unique(reference.quantiles(FINE[9:99:10]))
    codes = np.searchsorted(fine, values)
    rows = np.bincount(codes, weights=reference.counts, minlength=len(fine) + 1)
    sums = np.bincount(codes, weights=reference.counts * values, minlength=len(fine) + 1)
    return NumberBins(
        name,
        reference,
        unit,
        fine=fine,
        coarse=np.append(np.searchsorted(deciles, fine), len(deciles)),
        centres=np.where(rows > 0, sums / np.maximum(rows, 1), np.append(fine, values[-1])),
        cuts=tuple((deciles if unit is None else signed_exp(deciles, unit=unit)).tolist()),
    )


def word_bins(name: str, reference: Words) -> WordBins:
    """Bin words by those of the reference."""
    kept = reference.words[:MOST_CATEGORIES]
    rarer = (RARER,) if len(reference.words) > len(kept) else ()
    return WordBins(name, reference, (*kept, *rarer, NEW))


def wasserstein(reference: Numbers, current: Numbers) -> float:
    """Compute the first Wasserstein distance, the area between both distribution functions.

    >>> from monitoring.distributions import numbers_of
    >>> wasserstein(numbers_of(np.array([0.0, 1.0])), numbers_of(np.array([2.0, 3.0])))
    2.0
    """
    before, after = reference.points, current.points
    # both in one order, by where the fewer of the reference fall among the others: nothing is sorted again
    place = np.arange(len(before)) + np.searchsorted(after, before, side="right")
    of_reference = np.zeros(len(before) + len(after), dtype=np.bool_)
    of_reference[place] = True
    both, height = np.empty(len(of_reference)), np.empty(len(of_reference))
    both[of_reference], both[~of_reference] = before, after
    height[of_reference] = reference.up_to / reference.known - current.rows_up_to(before) / current.known
    height[~of_reference] = reference.rows_up_to(after) / reference.known - current.up_to / current.known
    # of equal values the reference's stands last, and all of them have the same height
    return float(np.abs(height[:-1]) @ np.diff(both))


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


def is_heavy_tailed(values: Numbers) -> bool:
    """Tell whether a few rows decide the standard deviation (kurtosis above 10; the exponential's is 9).

    Resamples of such a column do not show how far its mean may wander (Athreya, Annals of Statistics 1987).
    """
    return values.kurtosis > HEAVY_TAIL


def unit_of(values: Numbers) -> float:
    """Find the size of what is not nothing, the median of |x| over x that is not 0."""
    something = values.points != 0
    sizes, counts = np.abs(values.points[something]), values.counts[something]
    if not len(sizes):
        return 1.0
    order = np.argsort(sizes)
    up_to = np.cumsum(counts[order])
    return float(sizes[order][np.searchsorted(up_to, up_to[-1] / 2)])


def signed_log(values: Floats, *, unit: float) -> Floats:
    """Compute sign(x)·ln(1 + |x| / unit): linear well below the unit, by ratios well above it."""
    return np.asarray(np.sign(values) * np.log1p(np.abs(values) / unit))


def signed_exp(values: Floats, *, unit: float) -> Floats:
    """Undo `signed_log`.

    >>> float(signed_exp(signed_log(np.array([-1999.0]), unit=100), unit=100)[0].round(6))
    -1999.0
    """
    return np.asarray(unit * np.sign(values) * np.expm1(np.abs(values)))


def _psi_of(p: Floats, q: Floats, coarse: Ints) -> Floats:
    folds = np.equal.outer(coarse, np.arange(coarse[-1] + 1)).astype(np.float64)
    return psi(p @ folds, q @ folds)


def _missing(reference: Counts, current: Counts) -> Floats:
    return np.asarray(np.abs(_shares(reference)[:, -1] - _shares(current)[:, -1]))


def _shares(counts: Counts) -> Floats:
    total = counts.sum(axis=1, keepdims=True)
    return np.asarray(counts / np.maximum(total, 1), dtype=np.float64)
