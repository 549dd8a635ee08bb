"""A whole audience decided, beside `inplace_predict` of the same boosters on the same members in the same run.

`HOLDFAST_BENCH_MEMBERS` says how many members; they are those of the home's last snapshot, again and again, under new
names. The audience is everybody, so that each of them is read, scored, weighed, drawn, logged and written out.
"""

import os
import resource
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.home import Home
from features.population import Population, matrix
from features.snapshots import built
from training.artifacts import load_release
from training.releases.ledger import champion_id

MEMBERS = int(os.environ.get("HOLDFAST_BENCH_MEMBERS", "1000000"))
GROUP = 122_880  # rows of a group, as DuckDB writes them
GIB = 2**30


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    place = Home(Path(os.environ.get("HOLDFAST_HOME", ".holdfast")))
    if champion_id(place) is None:
        pytest.skip(f"{place.root} holds no champion; `make demo` first")
    copy = Home(tmp_path_factory.mktemp("decide") / "home")
    for folder in ("releases", "warehouse"):
        shutil.copytree(place.root / folder, copy.root / folder)
    if place.settings.exists():
        shutil.copy(place.settings, copy.settings)
    as_of = built(place)[-1]
    multiply(place.snapshot(as_of), copy.snapshot(as_of))
    yield copy
    shutil.rmtree(copy.root)


def multiply(snapshot, to):
    """Write so many members; each is one of the snapshot's under another name."""
    few, rng = pq.read_table(snapshot), np.random.default_rng(0)
    to.parent.mkdir(parents=True)
    with pq.ParquetWriter(to, few.schema) as writer:
        for first in range(0, MEMBERS, GROUP):
            number = np.arange(first, min(first + GROUP, MEMBERS))
            rows = few.take(pa.array(rng.integers(0, len(few), len(number))))
            names = pc.binary_join_element_wise("m", pc.utf8_lpad(pa.array(number).cast(pa.string()), 9, "0"), "")
            writer.write_table(rows.set_column(0, few.schema.field("member_id"), names), row_group_size=GROUP)


def predicting(home):
    """Predict by every booster, on all processors, part by part; give the seconds."""
    release = load_release(home.releases / champion_id(home))
    snapshot = Population(home.snapshot(built(home)[-1]), built(home)[-1])
    boosters = list(release.models.boosters.values())
    for booster in boosters:
        booster.set_param({"nthread": len(os.sched_getaffinity(0))})
    took = 0.0
    for part in range(len(snapshot.sizes)):
        X = matrix(snapshot.read(release.feature_names, part), release.feature_names)
        start = time.perf_counter()
        for booster in boosters:
            booster.inplace_predict(X)
        took += time.perf_counter() - start
    return took


def deciding(home, *options):
    """Decide everybody by the command; give the seconds and the memory at most."""
    command = [sys.executable, "-m", "holdfast", "decide", "--home", home.root, "--audience", "tenure_days >= 0"]
    start = time.perf_counter()
    subprocess.run([*command, "--out", home.root / "out.parquet", *options], check=True, stdout=subprocess.PIPE)
    took = time.perf_counter() - start
    assert pq.read_metadata(home.root / "out.parquet").num_rows == MEMBERS
    return took, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


@pytest.mark.parametrize("options", [(), ("--budget", str(MEMBERS))], ids=["no limit", "a budget"])
def bench_decide(home, options):
    rival = statistics.median(predicting(home) for _ in range(3))
    ours, memory = deciding(home, "--seed", str(len(options)), *options)
    what = f"{MEMBERS:,} members decided, {'under a budget' if options else 'no limit'}"
    print(f"{what:<52} {ours:7.1f} s {MEMBERS / ours:12,.0f} a second, {memory / GIB:.1f} GiB at most")  # noqa: T201
    print(f"{'inplace_predict of its boosters alone':<52} {rival:7.1f} s, {ours / rival:.2f} x its time")  # noqa: T201
