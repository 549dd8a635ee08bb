"""How far apart two windows come by chance alone: the reference, resampled by member and by block of weeks.

The same members stand in every snapshot and weeks differ by season, so rows are not independent and textbook p-values
are wrong. A resample draws members with replacement for a pretended reference and, independently, for a pretended
current window, which stands at a random block of consecutive snapshots that the pretended reference leaves out (cluster
bootstrap: Field and Welsh, "Bootstrapping clustered data", JRSS B 2007; blocks: Künsch, Annals of Statistics 1989). The
threshold holds for the whole run: the largest standardised statistic over all columns and tests exceeds it as rarely as
asked (max-T: Westfall and Young, "Resampling-based multiple testing", 1993).

Members who stand in both real windows bring them closer together than the pretended ones: thresholds err to the quiet
side.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from monitoring.distances import Bins, Codes
from monitoring.verdict import Test

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REPLICATES: Final = 999
MOST_MEMBERS: Final = 10_000  # of a pretended current window: thresholds of a larger one err to the quiet side
MOST_BLOCKS: Final = 40
FEWEST_SNAPSHOTS: Final = 4  # fewer say nothing of how weeks differ: then members alone are resampled
CAUTION: Final = 2  # a small sample has lighter tails than what it is of: asked for 1 %, runs alarmed in 2 % to 3 %
FLOOR_IN_LEVELS: Final = 4  # what is too small to matter is four standard deviations or more
TOO_SMALL_TO_MATTER: Final[dict[Test, float]] = {
    "wasserstein": 0.05,  # standard deviations
    "psi": 0.02,
    "missing": 0.01,  # share of rows
    "new_category": 0.005,  # share of rows
}


@dataclass(frozen=True)
class Design:
    """Say how the sampled rows of the reference hang together, and how large the current window is."""

    member: Ints  # (n_sampled,) 0 … n_members - 1
    snapshot: Ints  # (n_sampled,) 0 … n_snapshots - 1, in order of time
    current_members: int
    current_snapshots: int


def thresholds(
    columns: Sequence[Bins], codes: Sequence[Codes], design: Design, *, rate: float, rng: np.random.Generator
) -> list[Floats]:
    """Find for each column the thresholds `(n_tests,)` above which at most `rate` of clean runs have any statistic.

    Parameters
    ----------
    codes : (n_sampled,) each, the bin of every sampled row
    """
    blocks = _blocks(design)
    block_of = rng.integers(len(blocks), size=REPLICATES)
    null = resample(columns, codes, design, blocks=blocks, block_of=block_of, rng=rng)
    tests = [test for column in columns for test in column.tests]
    # PSI grows with the square of a shift, the others with the shift
    power = np.array([0.5 if test == "psi" else 1.0 for test in tests])
    null, floor = null**power, np.array([TOO_SMALL_TO_MATTER[test] for test in tests]) ** power
    least = floor / FLOOR_IN_LEVELS
    scores = _standardised(null, least, blocks, block_of)
    unsteady = np.maximum(np.sqrt(np.mean(scores**2, axis=0)), 1.0)
    largest = (scores / unsteady).max(axis=1)
    if len(blocks) > 1:
        apart = len(np.unique(design.snapshot)) / blocks[0].size
        largest = _of_other_weeks(largest, block_of, apart, rng)
    reach = float(np.sort(largest)[ceil((1 - rate / CAUTION) * (REPLICATES + 1)) - 1]) * unsteady
    found = np.maximum(floor, null.mean(axis=0) + reach * _level(null, least)) ** (1 / power)
    return np.split(found, np.cumsum([len(column.tests) for column in columns])[:-1])


def resample(
    columns: Sequence[Bins],
    codes: Sequence[Codes],
    design: Design,
    *,
    blocks: Sequence[Ints],
    block_of: Ints,
    rng: np.random.Generator,
) -> Floats:
    """Measure every test `(REPLICATES, n_tests)` on pairs of windows drawn from the reference.

    `blocks` lists snapshots; the pretended current window of a replicate stands at `blocks[block_of[replicate]]`.
    """
    members = int(design.member.max()) + 1
    rows_of = [np.flatnonzero(np.isin(design.snapshot, block)) for block in blocks]
    drawn = [_drawn(members, size, rng) for size in (members, min(design.current_members, MOST_MEMBERS))]
    counts = []
    for column, coded in zip(columns, codes, strict=True):
        whole = _table(design.member, coded, slice(None), (column.n_bins, members))
        counts.append(((whole @ drawn[0]).astype(np.float64), np.zeros((column.n_bins, REPLICATES))))
    for number, rows in enumerate(rows_of):
        here = np.flatnonzero(block_of == number)
        picked = [np.ascontiguousarray(times[:, here]) for times in drawn]
        for column, coded, (before, after) in zip(columns, codes, counts, strict=True):
            inside = _table(design.member, coded, rows, (column.n_bins, members))
            after[:, here] = inside @ picked[1]
            if len(blocks) > 1:
                before[:, here] -= inside @ picked[0]
    pairs = zip(columns, counts, strict=True)
    return np.hstack([column.measure_counts(before.T, after.T) for column, (before, after) in pairs])


def _drawn(members: int, size: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw so many members with replacement, `(n_members, REPLICATES)` times each."""
    chosen = rng.integers(members, size=(REPLICATES, size), dtype=np.int32)
    return np.array([np.bincount(row, minlength=members) for row in chosen], dtype=np.float32).T


def _level(null: Floats, least: Floats) -> Floats:
    return np.asarray(np.maximum(null.std(axis=0), least))


def _standardised(null: Floats, least: Floats, blocks: Sequence[Ints], block_of: Ints) -> Floats:
    """Standardise each replicate's statistics `(n_replicates, n_tests)` by the replicates of other weeks.

    Standardised by its own weeks too, no statistic of six blocks could exceed 2.1, however far a seventh may lie. A
    column that changes from season to season comes out large, and is given room of its own instead of all columns'.
    """
    scores = np.empty_like(null)
    for number, block in enumerate(blocks):
        others = [k for k, other in enumerate(blocks) if len(blocks) == 1 or not np.isin(other, block).any()]
        seen, here = null[np.isin(block_of, others)], block_of == number
        scores[here] = (null[here] - seen.mean(axis=0)) / _level(seen, least)
    return scores


def _of_other_weeks(largest: Floats, block_of: Ints, apart: float, rng: np.random.Generator) -> Floats:
    """Redraw the largest statistics as of a block of weeks not seen yet, of which those seen are a small sample.

    A window never seen beats the worst of six seen once in seven, so quantiles of what was seen are no bound. The mean
    of a new block is predicted by Student's t from the means seen, of which `apart` do not overlap; chance within a
    block is kept.
    """
    numbers, block = np.unique(block_of, return_inverse=True)
    means = np.bincount(block, weights=largest) / np.bincount(block)
    between = float(means.std(ddof=1)) * np.sqrt(1 + 1 / apart) if len(numbers) > 1 else 0.0
    return np.asarray(means.mean() + between * rng.standard_t(apart - 1, size=len(largest)) + largest - means[block])


def _blocks(design: Design) -> list[Ints]:
    """List blocks of consecutive snapshots as long as the current window, overlapping; one of all if they are few."""
    times = np.unique(design.snapshot)
    if len(times) < FEWEST_SNAPSHOTS:
        return [times]
    length = min(design.current_snapshots, len(times) // FEWEST_SNAPSHOTS)
    firsts = np.unique(np.linspace(0, len(times) - length, MOST_BLOCKS).astype(np.int64))
    return [times[first : first + length] for first in firsts]


def _table(member: Ints, coded: Codes, rows: Ints | slice, shape: tuple[int, int]) -> csr_array:
    """Count rows `(n_bins, n_members)`: nearly all of it is 0."""
    once = np.ones(len(member[rows]), dtype=np.float32)
    return csr_array((once, (coded[rows], member[rows])), shape=shape)
