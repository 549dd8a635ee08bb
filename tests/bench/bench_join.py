"""The point-in-time join beside its rivals: what each takes, needs and gets wrong, each in a process of its own.

Run by `make bench`, at 100,000 questions over a million rows; `JOIN_ROWS=10000000` asks ten times as many over ten
times as many, for which dask takes 15 GB. The rows are a log: 20 files, each of what became known in some weeks, in no
order, so that their event times overlap. Some rows correct an earlier one of the same event time, some come months
late, and a tenth of the members fell silent long ago. Asked is what was known then: a row counts from its creation on.

Every rival reads the same files with all processors and its defaults, which is all that its documentation offers for
files on one machine. Polars cannot be told when a row became known: it joins on the event time, sorted by both.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

FILES, DAYS, DAY, START = 20, 400, 86_400_000_000, 1_483_228_800_000_000  # microseconds since 1970
FEATURES = [f"feature_{number:02d}" for number in range(30)]
STAMP = pa.timestamp("us", tz="UTC")
ROUNDS = {"ours": 5, "Feast's DuckDB store": 3, "Feast's default store (dask)": 1, "polars' join_asof": 3}
MEMORY = 18 * 1024**3  # a rival that wants more is stopped


def bench_join(tmp_path):
    n_rows, rng = int(os.environ.get("JOIN_ROWS", "1_000_000")), np.random.default_rng(4)
    log = make_log(rng, n_rows)
    asked = make_questions(rng, log, n_rows // 10)
    truth = write_world(tmp_path, rng, log, asked)
    line = "{:<36}{:>9}{:>9}{:>9}{:>9}{:>9}{:>12}".format
    print(f"\n{len(asked):,} questions, {len(FEATURES)} features, {n_rows:,} rows in {FILES} files")  # noqa: T201
    print(line("", "seconds", "cpu s", "ratio", "peak MB", "own MB", "wrong rows"))  # noqa: T201
    own = None
    for rival in ROUNDS:
        took = run(rival, tmp_path)
        if "failed" in took:
            print(f"{rival:<40} {took['failed']}")  # noqa: T201
            continue
        own = own or took["again"]
        wrong = count_wrong(np.load(tmp_path / "answers.npy"), truth)
        memory = (f"{took['peak']:,.0f}", f"{took['anonymous']:,.0f}", f"{wrong:,}")
        if rival == "ours":
            print(line("ours, the first time, which sorts", f"{took['first']:.2f}", "", "", *memory))  # noqa: T201
        clocks = (f"{took['again']:.2f}", f"{took['cpu']:.2f}", f"{took['again'] / own:.1f} x")
        print(line(rival, *clocks, *memory))  # noqa: T201


def make_log(rng, n_rows):
    """Make whose the rows are, when they happened and when they became known."""
    members = n_rows // 20
    member = (members * rng.random(n_rows) ** 1.5).astype(np.int64)  # some have a hundred rows, some one
    event = START + rng.integers(0, DAYS * DAY, n_rows)
    silent = member % 10 == 0
    event[silent] = START + (event[silent] - START) // 4
    corrected = rng.integers(0, n_rows, n_rows // 20)
    member[: len(corrected)], event[: len(corrected)] = member[corrected], event[corrected]
    delay = np.where(rng.random(n_rows) < 0.02, rng.integers(0, 90 * DAY, n_rows), rng.exponential(DAY, n_rows))
    return pd.DataFrame({"member": member, "event": event, "created": event + delay.astype(np.int64)})


def make_questions(rng, log, n_asked):
    """Ask about anybody, some twice, some nobody, some at the very moment when a row became known."""
    asked = pd.DataFrame({"member": rng.integers(0, int(len(log) / 20 * 1.02), n_asked)})
    asked["at"] = START + rng.integers(-5 * DAY, (DAYS + 100) * DAY, n_asked)
    some = n_asked // 20
    asked.loc[: some - 1] = log.loc[rng.integers(0, len(log), some), ["member", "created"]].to_numpy()
    asked.loc[n_asked - some :] = asked.loc[rng.integers(0, n_asked - some, some)].to_numpy()
    return asked


def right_rows(log, asked):
    """Look through the rows of each member for the one that answers each question, -1 where none does."""
    event, created, at = (column.to_numpy() for column in (log["event"], log["created"], asked["at"]))
    rows, right = log.groupby("member").indices, np.full(len(asked), -1)
    for member, questions in asked.groupby("member").indices.items():
        own = rows.get(member, np.empty(0, np.int64))
        own = own[np.lexsort((created[own], event[own]))[::-1]]
        then = at[questions, None]
        seen = (event[own] <= then) & (created[own] <= then)
        if len(own):
            right[questions] = np.where(seen.any(axis=1), own[seen.argmax(axis=1)], -1)
    return right


def write_world(folder, rng, log, asked):
    """Write the files and the questions, and give the right answers."""
    values = rng.normal(size=(len(log), len(FEATURES)))
    values[rng.random(values.shape) < 0.1] = np.nan
    (folder / "rows").mkdir()
    for number, rows in enumerate(np.array_split(np.argsort(log["created"].to_numpy()), FILES)):
        shuffled = rng.permutation(rows)
        columns = keys(log["member"].iloc[shuffled], event_timestamp=log["event"].iloc[shuffled])
        columns["created_timestamp"] = pa.array(log["created"].iloc[shuffled], pa.int64()).cast(STAMP)
        part = values[shuffled]
        columns |= {name: pa.array(part[:, place], from_pandas=True) for place, name in enumerate(FEATURES)}
        pq.write_table(pa.table(columns), folder / "rows" / f"{number:02d}.parquet")
    questions = keys(asked["member"], event_timestamp=asked["at"]) | {"row": range(len(asked))}
    pq.write_table(pa.table(questions), folder / "questions.parquet")
    right = right_rows(log, asked)
    return np.where(right[:, None] < 0, np.nan, values[right])


def keys(member, *, event_timestamp):
    ids = pa.array([f"m{number:08d}" for number in member])
    return {"member_id": ids, "event_timestamp": pa.array(event_timestamp, pa.int64()).cast(STAMP)}


def count_wrong(answers, truth):
    return int(((answers != truth) & ~(np.isnan(answers) & np.isnan(truth))).any(axis=1).sum())


def run(rival, folder):
    """Run a rival in its own process."""
    done = subprocess.run([sys.executable, __file__, rival, folder], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["killed"])[-1]
        return {"failed": f"did not finish ({done.returncode}): {last[:90]}"}
    return json.loads(done.stdout.splitlines()[-1])


def feast_join(folder, offline_store):
    """Give what asks a Feast store, by its public call."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, String

    config = RepoConfig(
        project="bench",
        provider="local",
        registry=str(folder / f"{offline_store['type']}.pb"),
        offline_store=offline_store,
        online_store={"type": "sqlite", "path": str(folder / "online.db")},
        entity_key_serialization_version=3,
        repo_path=str(folder),
    )
    store, rows = FeatureStore(config=config), str(folder / "rows" / "*.parquet")
    member = Entity(name="member", join_keys=["member_id"], value_type=ValueType.STRING)
    times = {"timestamp_field": "event_timestamp", "created_timestamp_column": "created_timestamp"}
    schema = [Field(name="member_id", dtype=String), *(Field(name=name, dtype=Float64) for name in FEATURES)]
    view = FeatureView(name="v", entities=[member], schema=schema, source=FileSource(name="s", path=rows, **times))
    store.apply([member, view])
    names = [f"v:{name}" for name in FEATURES]
    return lambda asked: store.get_historical_features(asked, names, filter_by_created_timestamp=True).to_df()


def polars_join(folder):
    import polars as pl

    def join(asked):
        rows = pl.scan_parquet(folder / "rows" / "*.parquet").sort("event_timestamp", "created_timestamp")
        questions = pl.from_pandas(asked).lazy().sort("event_timestamp")
        joined = questions.join_asof(rows, on="event_timestamp", by="member_id", check_sortedness=False)
        return joined.collect().to_pandas()

    return join


def play(rival, folder):
    """Answer the questions as often as a rival is asked, and say what it took."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    join = {
        "ours": lambda: feast_join(
            folder, {"type": "features.stores.offline.SortedOfflineStore", "history": str(folder / "history")}
        ),
        "Feast's DuckDB store": lambda: feast_join(folder, {"type": "duckdb"}),
        "Feast's default store (dask)": lambda: feast_join(folder, {"type": "dask"}),
        "polars' join_asof": lambda: polars_join(folder),
    }[rival]()
    asked = pd.read_parquet(folder / "questions.parquet")
    peaks, seconds, busy = watch_memory(), [], []
    for _ in range(ROUNDS[rival]):
        start, worked = time.perf_counter(), time.process_time()
        answers = join(asked.copy())
        seconds.append(time.perf_counter() - start)
        busy.append(time.process_time() - worked)
    took = {"first": seconds[0], "anonymous": max(peaks) / 1024}
    took |= {"again": statistics.median(seconds[1:] or seconds), "cpu": statistics.median(busy[1:] or busy)}
    took["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # a question that is lost is as wrong as one that is answered wrongly
    answers = answers.drop_duplicates("row").set_index("row")[FEATURES].reindex(asked["row"], fill_value=np.inf)
    np.save(folder / "answers.npy", answers.to_numpy(dtype=np.float64))
    print(json.dumps(took))  # noqa: T201


def watch_memory():
    """Note the memory that is the process's own (not files that it maps) ten times a second, in kB."""
    peaks = [0]

    def note():
        while True:
            status = Path("/proc/self/status").read_text(encoding="utf-8")
            peaks[0] = max(peaks[0], int(status.split("RssAnon:")[1].split()[0]))
            time.sleep(0.1)

    threading.Thread(target=note, daemon=True).start()
    return peaks


if __name__ == "__main__":
    play(sys.argv[1], Path(sys.argv[2]))
