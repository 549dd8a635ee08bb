"""The synthetic world's rate and memory: a larger one takes longer, not more room."""

import time

import numpy as np
import pyarrow as pa
import pytest

from features.world.history import BLOCK, chunks
from features.world.law import World


@pytest.mark.parametrize("members", [100_000, 1_000_000])
def bench_world(members):
    start, rows, peak, before = time.perf_counter(), 0, 0, pa.total_allocated_bytes()
    for chunk in chunks(World(members, shape="both"), np.random.default_rng(1), members=BLOCK):
        rows += sum(table.num_rows for table in chunk.tables.values())
        peak = max(peak, pa.total_allocated_bytes() - before)
    seconds = time.perf_counter() - start
    print(  # noqa: T201
        f"a year of {members:>9,} synthetic members  {seconds:6.1f} s  {members / seconds:8,.0f} members a second  "
        f"{rows / seconds:11,.0f} rows a second  tables in memory at once {peak / 2**20:,.0f} MiB"
    )
