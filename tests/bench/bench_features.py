"""Features of one `as_of` on the synthetic world, against SQL written by hand: `one_as_of.sql`, equal to the bit.

Run by `make bench` over a million transactions; `HOLDFAST_BENCH_TRANSACTIONS=10000000` and
`HOLDFAST_BENCH_MEMORY=1e9` (bytes, DuckDB's limit, of both) say otherwise. Each side runs in a process of its own.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import duckdb
import ibis
import numpy as np
import pytest

from features.as_of.computing import writer
from features.as_of.inputs import fingerprints
from features.as_of.known import READ
from features.catalogue.entries import CATALOGUE
from features.memory import query_memory, within
from features.programme import Programme
from features.warehouse import quietly
from features.world.history import write_history
from features.world.law import World

TRANSACTIONS = int(os.environ.get("HOLDFAST_BENCH_TRANSACTIONS", "1_000_000"))
MEMORY = int(float(os.environ.get("HOLDFAST_BENCH_MEMORY", "0"))) or None
PER_MEMBER = 35.6  # transactions, in a world of both shapes
AS_OF = datetime(2024, 1, 1, tzinfo=UTC)  # when the world's history ends
PROGRAMME = Programme(tracked_categories=("fresh",), tracked_offers=("win_back",))
ROUNDS = 5


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Write the world's tables as the warehouse has them: with the programme's wall clock, which here is UTC."""
    folder = tmp_path_factory.mktemp("world")
    write_history(World(round(TRANSACTIONS / PER_MEMBER), shape="both"), folder, np.random.default_rng(1))
    with duckdb.connect() as db:
        for name, (occurred, *_) in READ.items():
            path = folder / f"{name}.parquet"
            rows = f"SELECT *, {occurred} AT TIME ZONE 'UTC' AS local_time FROM '{path}'"  # noqa: S608 (our own names)
            db.sql(rows).write_parquet(str(path.with_suffix(".part")), compression="zstd")
            path.with_suffix(".part").replace(path)
    return folder


def bench_features(world):
    """One `as_of`: the first time with everything that comes before the query, then again, as every further week."""
    ours, hand = (measure(side, world) for side in ("ours", "hand"))
    assert differing(world / "ours.parquet", world / "hand.parquet") == {}
    for what in ("first", "again"):
        show(f"one as_of of {TRANSACTIONS:,} transactions, {what}", ours, hand, what)
    print(f"peak memory {ours['peak']:,} MiB, by hand {hand['peak']:,} MiB; limit {MEMORY or query_memory()} bytes")  # noqa: T201


def bench_inputs(world):
    """A year of weekly snapshots: finding out which of them changed, against computing one."""
    with quietly():
        tables = {name: ibis.read_parquet(world / f"{name}.parquet") for name in READ}
    dates = [AS_OF - timedelta(weeks=week) for week in reversed(range(52))]
    start = time.perf_counter()
    with quietly():
        fingerprints(tables, dates, programme=PROGRAMME, code=[])
    print(f"fingerprints of {len(dates)} snapshots: {time.perf_counter() - start:.2f} s")  # noqa: T201


def measure(side, world):
    command = [sys.executable, __file__, side, str(world)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def show(what, ours, rival, key):
    ratios = (
        f"{ours[key] / rival[key]:.2f} x the time, {ours[f'{key}_cpu'] / rival[f'{key}_cpu']:.2f} x the processor's"
    )
    print(f"{what:<48} {ours[key]:7.2f} s  by hand {rival[key]:7.2f} s  {ratios}")  # noqa: T201


def differing(ours, hand):
    """Count the values of each feature that are not the same to the bit; what no table here fills has to be missing."""
    with duckdb.connect() as db:
        written = set(db.read_parquet(str(hand)).columns)
        unequal = {
            name: f"count(*) FILTER (ours.{name} IS DISTINCT FROM {_by_hand(name) if name in written else 'NULL'})"
            for name in ("event_timestamp", *CATALOGUE)
        }
        counts = ", ".join(f"{count} AS {name}" for name, count in unequal.items())
        joined = f"FROM '{ours}' AS ours FULL JOIN '{hand}' AS hand USING (member_id)"
        (row,) = db.sql(f"SELECT {counts} {joined}").fetchall()
    return {name: count for name, count in zip(unequal, row, strict=True) if count}


def _by_hand(name):
    return f"hand.{name}" if name == "event_timestamp" or CATALOGUE[name].is_text else f"hand.{name}::DOUBLE"


def of_ours(world):
    paths = {name: world / f"{name}.parquet" for name in READ}
    return partial(writer(paths, PROGRAMME, folder=world, memory=MEMORY), AS_OF, world / "ours.parquet")


def by_hand(world):
    db = duckdb.connect(config=within(world, MEMORY))
    for name in READ:
        db.execute(f"CREATE VIEW {name} AS FROM '{world}/{name}.parquet'")
    db.execute("SET VARIABLE as_of = $1::TIMESTAMPTZ", [AS_OF])
    db.execute("SET VARIABLE today = $1::DATE", [AS_OF.date()])
    query = db.sql(Path(__file__).with_name("one_as_of.sql").read_text())
    return partial(query.write_parquet, str(world / "hand.parquet"))


def run(side, world):
    clocks = (time.perf_counter, time.process_time)
    times = [[clock() for clock in clocks]]
    with quietly():
        write = {"ours": of_ours, "hand": by_hand}[side](world)
        for _ in range(ROUNDS):
            write()
            times.append([clock() for clock in clocks])
    took = np.diff(times, axis=0)
    again, again_cpu = (statistics.median(column) for column in took[1:].T.tolist())
    # not `ru_maxrss`: a child starts with its parent's
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) // 1024
    first, first_cpu = took[0].tolist()
    return {"first": first, "first_cpu": first_cpu, "again": again, "again_cpu": again_cpu, "peak": peak}


if __name__ == "__main__":
    print(json.dumps(run(sys.argv[1], Path(sys.argv[2]))))  # noqa: T201 (the parent reads it)
