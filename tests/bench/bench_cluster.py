"""Features, the point-in-time join and a batch's decisions on one machine and on Spark, by the number of members.

Run by `make bench-cluster`, at 100,000 members and a million; `HOLDFAST_CLUSTER_MEMBERS=100000,1000000,10000000` asks
for more, and `HOLDFAST_CLUSTER_MASTER` for another master than `local[*]`. Each step runs in a process of its own, a
machine's worth of either engine. What is timed is the whole step, files to files, without starting: Spark is asked a
trifle first. A step of either engine that takes longer than `HOLDFAST_CLUSTER_MINUTES` is left out, and said to be.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from features.as_of.computing import spark_writer, writer
from features.definitions import NUMBERS
from features.home import Home
from features.programme import Programme
from features.snapshots import built
from features.spark import java_version
from features.warehouse import quietly
from training.releases.ledger import champion_id

SIZES = [int(size) for size in os.environ.get("HOLDFAST_CLUSTER_MEMBERS", "100000,1000000").split(",")]
MASTER = os.environ.get("HOLDFAST_CLUSTER_MASTER", "local[*]")
MINUTES = float(os.environ.get("HOLDFAST_CLUSTER_MINUTES", "20"))
ENGINES = ("duckdb", "spark")
GROUP = 122_880  # rows of a group, as DuckDB writes them
LINES = 8  # purchases of a member
AS_OF = datetime(2024, 1, 1, tzinfo=UTC)
PROGRAMME = Programme(tracked_categories=("bread",))
MEMBERS = """
SELECT printf('m%09d', i) AS member_id, TIMESTAMPTZ '2022-01-01' + to_days((hash(i) % 700)::INT) AS joined_at,
  joined_at::TIMESTAMP AS local_time
FROM range(?) t(i) ORDER BY 1
"""
TRANSACTIONS = """
SELECT printf('t%010d', i) AS transaction_id, printf('m%09d', i % ?) AS member_id,
  TIMESTAMPTZ '2023-01-01' + to_minutes((hash(i) % 525600)::INT) AS occurred_at,
  (hash(i + 7) % 9000)::BIGINT AS amount, ['bread', 'fish', 'meat'][1 + (hash(i + 9) % 3)::INT] AS category,
  (1 + hash(i + 5) % 4)::BIGINT AS quantity, occurred_at::TIMESTAMP AS local_time
FROM range(?) t(i) ORDER BY member_id, occurred_at, transaction_id
"""


@pytest.fixture(scope="module")
def champion():
    """The home of the demonstration, whose release decides and whose members are multiplied."""
    java_version()
    place = Home(Path(os.environ.get("HOLDFAST_HOME", ".holdfast")))
    if champion_id(place) is None:
        pytest.skip(f"{place.root} holds no champion; `make demo` first")
    return place


def bench_cluster(champion, tmp_path):
    took = {}
    print(f"\nSpark's master {MASTER}; {os.cpu_count()} cores")  # noqa: T201
    for members in SIZES:
        homes = {engine: a_home(champion, tmp_path / f"{members}-{engine}", members, engine) for engine in ENGINES}
        for step in STEPS:
            for engine, home in homes.items():
                took[step, engine, members] = measured(step, home, members)
            show(step, members, took)
        assert equal_decisions(homes) in (True, None)
        for home in homes.values():
            shutil.rmtree(home.root)
    for step in STEPS:
        for engine in ENGINES:
            flatness(step, engine, took)


def a_home(champion, root, members, engine):
    """Give so many members tables, in the order that an ingest writes, two snapshots, and the champion."""
    home = Home(root)
    for folder in ("releases", "warehouse"):
        shutil.copytree(champion.root / folder, home.root / folder)
    said = champion.settings.read_text() if champion.settings.exists() else ""
    home.settings.write_text(f'{said}\n[engine]\nfeatures = "{engine}"\nspark = "{MASTER}"\n')
    (home.root / "tables").mkdir()
    with duckdb.connect() as db:
        db.execute("SET TimeZone = 'UTC'")
        for name, query, values in (
            ("members", MEMBERS, [members]),
            ("transactions", TRANSACTIONS, [members, LINES * members]),
        ):
            db.execute(f"COPY ({query}) TO '{home.root}/tables/{name}.parquet'", values)
    for as_of in built(champion)[-2:]:
        multiply(champion.snapshot(as_of), home.snapshot(as_of), members)
    asked = pa.table(
        {
            "row": np.arange(members),
            "member_id": names_of(np.random.default_rng(2).permutation(members)),
            "as_of": pa.array([built(champion)[-1]] * members, pa.timestamp("us", tz="UTC")),
        }
    )
    pq.write_table(asked, home.root / "asked.parquet")
    return home


def names_of(numbers):
    return pc.binary_join_element_wise("m", pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 9, "0"), "")


def multiply(snapshot, to, members):
    """Write so many members; each is one of the snapshot's under another name."""
    few, rng = pq.read_table(snapshot), np.random.default_rng(0)
    to.parent.mkdir(parents=True, exist_ok=True)
    with pq.ParquetWriter(to, few.schema) as writer:
        for first in range(0, members, GROUP):
            number = np.arange(first, min(first + GROUP, members))
            rows = few.take(pa.array(rng.integers(0, len(few), len(number))))
            names = names_of(number)
            writer.write_table(rows.set_column(0, few.schema.field("member_id"), names), row_group_size=GROUP)


def measured(step, home, members):
    """Run a step of an engine in a process of its own; the seconds, or nothing where it took too long."""
    command = [sys.executable, __file__, step, str(home.root), str(members)]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=60 * MINUTES)
    except subprocess.TimeoutExpired:
        return None
    return json.loads(done.stdout.splitlines()[-1])


def show(step, members, took):
    rates = [took[step, engine, members] for engine in ENGINES]
    said = ["too long" if one is None else f"{one:8.1f} s {members / one:12,.0f} a second" for one in rates]
    ratio = "" if None in rates else f"Spark takes {rates[1] / rates[0]:.2f} x the time"
    print(f"{members:>12,} {step:<10} here {said[0]}   Spark {said[1]}   {ratio}")  # noqa: T201


def flatness(step, engine, took):
    """Say how the time of a member moves from each size to the next."""
    each = [(size, took[step, engine, size]) for size in SIZES if took[step, engine, size]]
    for (few, before), (many, after) in pairwise(each):
        moved = after / many / (before / few)
        print(f"{step} by {engine}: a member of {many:,} takes {moved:.2f} x one of {few:,}")  # noqa: T201


def equal_decisions(homes):
    parts = [sorted(home.batches.glob("*/part-*")) for home in homes.values()]
    return [one.read_bytes() for one in parts[0]] == [one.read_bytes() for one in parts[1]] if all(parts) else None


def compute_features(home, _):
    tables = {name: home.root / "tables" / f"{name}.parquet" for name in ("members", "transactions")}
    to = home.root / "snapshot.parquet"
    engine, local = engine_of(home), partial(writer, folder=home.root)
    if engine.features == "spark":
        from features.spark import connect

        connect(MASTER).raw_sql("SELECT 1")
    programme = PROGRAMME.model_copy(update={"engine": engine})
    start = time.perf_counter()
    with quietly():
        (spark_writer if engine.features == "spark" else local)(tables, programme)(AS_OF, to)
    return time.perf_counter() - start


def join(home, members):
    asked = home.root / "asked.parquet"
    if engine_of(home).features == "spark":
        from features.as_of.frame import write_training_frame
        from features.spark import connect

        connect(MASTER).raw_sql("SELECT 1")
        start = time.perf_counter()
        write_training_frame(home, MASTER, asked, NUMBERS, home.root / "frame.parquet")
    else:
        from features.store import open_store

        store = open_store(home)
        store.apply()
        start = time.perf_counter()
        rows = pq.read_table(asked, columns=["member_id", "as_of"]).to_pandas()
        frame = store.training_frame(rows)
        frame.to_parquet(home.root / "frame.parquet")
    took = time.perf_counter() - start
    assert pq.read_metadata(home.root / "frame.parquet").num_rows == members
    return took


def decide(home, members):
    from serving.batch.plan import Request, plan_batch
    from serving.batch.run import decide_batch

    if engine_of(home).features == "spark":
        from features.spark import connect

        connect(MASTER).raw_sql("SELECT 1")
    now = AS_OF + timedelta(hours=1)
    start = time.perf_counter()
    plan = plan_batch(home, Request(audience="tenure_days >= 0", budget=members))
    decide_batch(plan, now=now, progress=lambda *_: None)
    return time.perf_counter() - start


def engine_of(home):
    from features.programme import read_programme

    return read_programme(home.settings).engine


STEPS = {"features": compute_features, "join": join, "decisions": decide}

if __name__ == "__main__":
    took = partial(STEPS[sys.argv[1]], Home(Path(sys.argv[2])))(int(sys.argv[3]))
    print(json.dumps(took))  # noqa: T201 (the parent reads it)
