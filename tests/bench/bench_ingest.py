"""Ingest: rows a second and peak memory, beside pandas with the same checks, and a bare copy by DuckDB as the floor.

Run by `make bench`, on a synthetic world's transactions as a CSV file; each in a process of its own.
"""

import json
import subprocess
import sys

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from features.world.history import write_history
from features.world.law import World

MEMBERS = 60_000  # about two million rows of transactions
ROUNDS = 3
HEAD = """
import json, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
"""
TAIL = """
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps([seconds, int(peak.split()[1]) / 2**20]))
"""
OURS = """
import shutil
from features.home import Home
from features.ingest import bring
from features.intake.mapping import SourceMapping
from features.intake.sources import Source
shutil.rmtree(folder / "home", ignore_errors=True)
start = time.perf_counter()
bring(Home(folder / "home"), Source(folder=folder), SourceMapping(), memory=2**30)
seconds = time.perf_counter() - start
"""
PANDAS = """
import pandas as pd
import pandera.pandas as pandera
from features.intake.checks import _pandera
from features.schema import TABLES
columns = TABLES["transactions"].columns
start = time.perf_counter()
texts = {c.name: "string" for c in columns if c.kind in {"id", "text"}}
frame = pd.read_csv(folder / "transactions.csv", dtype=texts, parse_dates=["occurred_at"])
pandera.DataFrameSchema({c.name: _pandera(c) for c in columns if c.name in frame}).validate(frame, lazy=True)
seconds = time.perf_counter() - start
"""
COPY = """
import duckdb
start = time.perf_counter()
duckdb.sql(f"COPY (FROM read_csv('{folder}/transactions.csv')) TO '{folder}/copy.parquet' (COMPRESSION zstd)")
seconds = time.perf_counter() - start
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    write_history(World(MEMBERS), root / "parquet", np.random.default_rng(0))
    for name in ("members", "transactions"):
        pyarrow.csv.write_csv(pq.read_table(root / "parquet" / f"{name}.parquet"), root / f"{name}.csv")
    return root


def bench_ingest(folder):
    rows = pq.read_metadata(folder / "parquet" / "transactions.parquet").num_rows
    size = (folder / "transactions.csv").stat().st_size / 2**20
    print(f"\n{rows:,} rows of transactions, {size:,.0f} MiB as CSV")  # noqa: T201
    whats = {"ours: checked, ordered, in the warehouse": OURS, "pandas.read_csv and the same schema": PANDAS}
    for what, code in (whats | {"DuckDB's COPY alone, unchecked": COPY}).items():
        seconds, peak = min(measured(code, folder) for _ in range(ROUNDS))
        print(f"{what:<44} {seconds:6.2f} s  {rows / seconds:11,.0f} rows a second  peak {peak:5.2f} GiB")  # noqa: T201


def measured(code, folder):
    child = [sys.executable, "-c", HEAD + code + TAIL, str(folder)]
    return json.loads(subprocess.run(child, capture_output=True, text=True, check=True).stdout)
