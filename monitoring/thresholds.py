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

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitoring.distances import Binned
from monitoring.verdict import Test

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

REPLICATES: Final = 999
MOST_MEMBERS: Final = 10_000  # more are sampled down to so many: thresholds then err to the quiet side
MOST_BLOCKS: Final = 40
TOO_SMALL_TO_MATTER: Final[dict[Test, float]] = {
    "wasserstein": 0.05,  # standard deviations
    "psi": 0.02,
    "missing": 0.01,  # share of rows
    "new_category": 0.005,  # share of rows
}


@dataclass(frozen=True)
class Design:
    """Say how the rows of the reference hang together, and how large the current window is."""

    member: Ints  # (n_rows,) 0 … n_members - 1
    snapshot: Ints  # (n_rows,) 0 … n_snapshots - 1, in order of time
    current_members: int
    current_snapshots: int


def thresholds(columns: Sequence[Binned], design: Design, *, rate: float, rng: np.random.Generator) -> list[Floats]:
    """Find for each column the thresholds `(n_tests,)` above which at most `rate` of clean runs have any statistic."""
    null = resample(columns, design, rng=rng)
    floor = np.array([TOO_SMALL_TO_MATTER[test] for column in columns for test in column.tests])
    level = np.maximum(null.std(axis=0), 1e-12)
    standardised = np.where(null > floor, (null - null.mean(axis=0)) / level, -np.inf)
    rank = ceil((1 - rate) * (len(null) + 1))
    largest = float(np.sort(standardised.max(axis=1))[rank - 1])
    found = np.maximum(floor, null.mean(axis=0) + largest * level)
    return np.split(found, np.cumsum([len(column.tests) for column in columns])[:-1])


def resample(columns: Sequence[Binned], design: Design, *, rng: np.random.Generator) -> Floats:
    """Measure every test `(REPLICATES, n_tests)` on pairs of windows drawn from the reference."""
    kept = _members(design, rng)
    order = np.argsort(design.snapshot, kind="stable")
    order = order[np.isin(design.member[order], kept)]
    member, snapshot = np.searchsorted(kept, design.member[order]), design.snapshot[order]
    blocks = _blocks(snapshot, design.current_snapshots)
    block_of = rng.integers(len(blocks), size=REPLICATES)
    chance = np.full(len(kept), 1 / len(kept))
    drawn = [
        rng.multinomial(size, chance, size=REPLICATES).astype(np.float32)
        for size in (len(kept), min(design.current_members, MOST_MEMBERS))
    ]
    measured = []
    for column in columns:
        counts = np.zeros((2, REPLICATES, column.n_bins))
        for picked, (inside, outside) in _tables(column, column.reference[order], member, blocks, block_of):
            counts[0, picked], counts[1, picked] = drawn[0][picked] @ outside, drawn[1][picked] @ inside
        measured.append(column.measure_counts(counts[0], counts[1]))
    return np.hstack(measured)


def _members(design: Design, rng: np.random.Generator) -> Ints:
    members = np.unique(design.member)
    return members if len(members) <= MOST_MEMBERS else np.sort(rng.choice(members, MOST_MEMBERS, replace=False))


def _blocks(snapshot: Ints, length: int) -> list[slice]:
    """Slice the rows, sorted by snapshot, into overlapping blocks; a single time gives one block of everything."""
    times, starts = np.unique(snapshot, return_index=True)
    if len(times) == 1:
        return [slice(0, len(snapshot))]
    length = min(length, len(times) // 2)
    ends = np.append(starts, len(snapshot))
    firsts = np.unique(np.linspace(0, len(times) - length, MOST_BLOCKS).astype(np.int64))
    return [slice(int(ends[first]), int(ends[first + length])) for first in firsts]


def _tables(
    column: Binned, codes: Ints, member: Ints, blocks: Sequence[slice], block_of: Ints
) -> Iterator[tuple[NDArray[np.bool_], tuple[NDArray[np.float32], NDArray[np.float32]]]]:
    """Count rows `(n_members, n_bins)` inside and outside each block, with the replicates that stand there."""
    n_members = int(member.max()) + 1
    cell = member * column.n_bins + codes

    def count(cells: Ints) -> NDArray[np.float32]:
        table = np.bincount(cells, minlength=n_members * column.n_bins).astype(np.float32)
        return table.reshape(n_members, column.n_bins)

    whole = count(cell)
    for number, block in enumerate(blocks):
        inside = whole if len(blocks) == 1 else count(cell[block])
        yield block_of == number, (inside, whole if len(blocks) == 1 else whole - inside)
