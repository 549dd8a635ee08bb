"""An ingest's memory is bounded by what it is given and not by what it reads."""

import json
import subprocess
import sys

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from features import memory
from features.files import PARTS
from features.home import Home
from features.memory import query_memory
from features.warehouse import TableFile, Warehouse, quietly

MEMBERS, ROWS = 2_000, 3_200_000
QUERIES = 160  # MiB
ALLOWED = 800  # MiB in all: Python and its libraries (200), the parts of a file that are read ahead, the queries
CHILD = f"""
import json, sys
from pathlib import Path
from features.home import Home
from features.ingest import bring
from features.intake.mapping import SourceMapping
from features.intake.sources import Source
folder = Path(sys.argv[1])
held = bring(Home(folder / "home"), Source(folder=folder), SourceMapping(), memory={QUERIES} << 20).warehouse
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))  # rusage knows the parent's too
print(json.dumps([int(peak.split()[1]) >> 10, held.tables["transactions"].rows]))
"""


def test_a_table_larger_than_what_is_allowed_is_ingested(tmp_path):
    """As a frame it would be more than the process takes in all by two thirds, and eight times what its queries may."""
    rng = np.random.default_rng(5)
    ids = pa.array([f"member-{number:029d}" for number in range(MEMBERS)])
    notes = pa.array([f"{number:05d}" * 18 for number in range(1_000)])
    pa.csv.write_csv(pa.table({"member_id": ids, "joined_at": ["2024-01-01"] * MEMBERS}), tmp_path / "members.csv")
    rows = {
        "transaction_id": pc.utf8_lpad(pa.array(rng.permutation(ROWS)).cast(pa.string()), 36, "0"),
        "member_id": ids.take(pa.array(rng.integers(0, MEMBERS, ROWS))),
        "occurred_at": pa.array(1_700_000_000_000_000 + rng.integers(0, 10**13, ROWS)).cast(pa.timestamp("us")),
        "amount": pa.array(rng.integers(-500, 5000, ROWS)),
        "note": notes.take(pa.array(rng.integers(0, len(notes), ROWS))),
    }
    pa.csv.write_csv(pa.table(rows), tmp_path / "transactions.csv")
    sample = pd.read_csv(tmp_path / "transactions.csv", dtype="string", nrows=1_000)
    assert sample.memory_usage(deep=True).sum() * ROWS / 1_000 / 2**20 > max(1.65 * ALLOWED, 8 * QUERIES)
    child = [sys.executable, "-c", CHILD, str(tmp_path)]
    peak, came = json.loads(subprocess.run(child, capture_output=True, text=True, check=True, timeout=120).stdout)
    assert came == ROWS
    assert peak < ALLOWED


def test_a_container_that_has_less_than_the_machine_is_heeded(tmp_path):
    (tmp_path / "max").write_text("max\n")
    unlimited = query_memory((tmp_path / "max", tmp_path / "not there"))
    (tmp_path / "small").write_text(f"{2**28}\n")
    assert query_memory((tmp_path / "max", tmp_path / "small")) == 2**26 < unlimited


def test_queries_over_a_home_keep_to_their_memory_and_spill_nowhere_else(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "query_memory", lambda: QUERIES << 20)
    monkeypatch.chdir(tmp_path)
    home = Home(tmp_path / "home")
    home.root.mkdir()
    count = 3_000_000
    pq.write_table(pa.table({"number": np.random.default_rng(5).permutation(count)}), tmp_path / "rows.parquet")
    table = Warehouse(home, "", "", {}, {"rows": TableFile("rows", "../../rows.parquet", count, 0, "")})
    rows = table.expression("rows").mutate(text=ibis._.number.cast("string").lpad(60, "0")).order_by("text")
    with quietly():
        rows.to_parquet(tmp_path / "sorted.parquet")
    (spilled,) = home.root.iterdir()
    assert spilled.match(PARTS)  # what a killed one leaves there is swept
    assert {path.name for path in tmp_path.iterdir()} == {"home", "rows.parquet", "sorted.parquet"}
