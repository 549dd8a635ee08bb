"""Drift alarms on windows that differ by chance alone, and on what should raise one, beside Evidently's default preset.

`HOLDFAST_DRIFT_WINDOWS` clean windows for each size (1,000 for the full size), each of a reference of its own: several
of one reference alarm together, when that one happens to lie off, and an interval that counts them as so many is too
narrow. The rival gets a tenth of them, since one of its runs takes seconds. `HOLDFAST_DRIFT_ROWS=1000000` is the full
size of the last bench, in which the rival takes minutes.
"""

import os
import re
import subprocess
import sys
import time
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest

from monitoring.distributions import numbers_of, words_of
from monitoring.drift import limits_of, monitor_drift
from monitoring.performance import cohorts, score_findings
from monitoring.reference import summarise
from training.metrics import auc, bootstrap

WINDOWS = int(os.environ.get("HOLDFAST_DRIFT_WINDOWS", "200"))
ROWS = int(os.environ.get("HOLDFAST_DRIFT_ROWS", "100000"))
SIZES = (50, 200, 1_000, 10_000)
MEMBERS = 2_000  # of a reference
NUMBERS = [f"feature_{number}" for number in range(12)]
MONEY = [f"spend_{number}" for number in range(6)]
COUNTS = ["visits", "baskets"]


def window(rng, n, numbers=12, money=6):
    """Draw members who are alike in part from column to column: numbers, spend with its long tail, counts, a stage."""
    alike = rng.normal(size=n)
    columns = {f"feature_{i}": 0.5 * alike + rng.normal(size=n) for i in range(numbers)}
    columns |= {f"spend_{i}": np.round(np.exp(8 + 0.4 * alike + 0.9 * rng.normal(size=n))) for i in range(money)}
    columns |= {name: rng.poisson(np.exp(1 + 0.3 * alike)).astype(float) for name in COUNTS}
    columns["stage"] = rng.choice(["new", "active", "dormant", "lapsed"], size=n, p=[0.1, 0.6, 0.2, 0.1])
    return pd.DataFrame(columns)


def flagged_by_preset(reference, current):
    """Say whether Evidently's default preset flags any column."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from evidently import Dataset, Report
        from evidently.presets import DataDriftPreset

        result = Report([DataDriftPreset()]).run(Dataset.from_pandas(current), Dataset.from_pandas(reference)).dict()
    return result["metrics"][0]["value"]["count"] > 0


def flagged(current, bins, limits):
    """Say whether any statistic of any column is above its threshold."""
    found = {c.name: words_of(current[c.name]) if c.name == "stage" else numbers_of(current[c.name]) for c in bins}
    return any((c.measure(found[c.name]) > limit).any() for c, limit in zip(bins, limits, strict=True))


def share(hits, n):
    found = binomtest(int(hits), n).proportion_ci(method="wilson")
    return f"{hits / n:6.1%} [{found.low:.1%}, {found.high:.1%}]"


@pytest.mark.parametrize("size", SIZES)
def bench_false_alarms(size):
    rng, ours, theirs, asked = np.random.default_rng(size), 0, 0, 0
    for run in range(WINDOWS):
        frame, current = window(rng, MEMBERS), window(rng, size)
        reference = summarise(frame, money=MONEY, rng=rng)
        bins = reference.bins(list(frame))
        ours += flagged(current, bins, limits_of(reference, bins, members=size, snapshots=1, rng=rng))
        if run % 10 == 0:
            theirs, asked = theirs + flagged_by_preset(frame, current), asked + 1
    print(  # noqa: T201
        f"clean windows of {size:>6,} rows that alarm: {share(ours, WINDOWS)} of {WINDOWS:,}; "
        f"preset {share(theirs, asked)} of {asked:,}"
    )


CHANGES = {
    "a quarter of a deviation in one column": lambda f, _: f.assign(feature_3=f["feature_3"] + 0.25 * 1.118),
    "spend down by 70 %": lambda f, _: f.assign(spend_2=np.round(f["spend_2"] * 0.3)),
    "30 % missing": lambda f, rng: f.assign(feature_5=f["feature_5"].mask(rng.random(len(f)) < 0.3)),
    "a new category in 3 %": lambda f, rng: f.assign(stage=f["stage"].mask(rng.random(len(f)) < 0.03, "paused")),
    "a renamed column": lambda f, _: f.rename(columns={"visits": "visits_all"}),
}


@pytest.mark.parametrize("change", CHANGES)
def bench_power(change):
    line = f"{change:<40}"
    for size in (200, 1_000, 10_000):
        rng, ours, theirs = np.random.default_rng(size + 1), 0, 0
        for _ in range(runs := max(WINDOWS // 20, 5)):
            frame, current = window(rng, MEMBERS), CHANGES[change](window(rng, size), rng)
            reference = summarise(frame, money=MONEY, rng=rng)
            ours += monitor_drift(reference, current, rng=rng, report=None).exit_code == 1
            try:
                theirs += flagged_by_preset(frame, current)
            except Exception:  # noqa: BLE001 (a traceback is no alarm)
                theirs += 0
        line += f"   {size:>6,} rows {ours / runs:5.0%}, preset {theirs / runs:5.0%}"
    print(f"{line}   ({runs} runs each)")  # noqa: T201


def scored(rng, n, *, logit=0.0, shuffled=0.0):
    """Draw members with features, their predicted chance to leave, and who left: off by `logit`, some ranked by lot."""
    frame = window(rng, n)
    risk = frame["feature_0"].to_numpy() - 1
    who = rng.random(n) < shuffled
    risk[who] = rng.permutation(risk[who])
    left = rng.random(n) < 1 / (1 + np.exp(-risk - logit))
    return frame.assign(predicted=1 / (1 + np.exp(1 - frame["feature_0"])), churned=left.astype(float))


def off(frame, promised, rng):
    """Say whether scores are found to be off, as `holdfast monitor performance` does it."""
    week = datetime(2026, 3, 2, tzinfo=UTC)
    ids = [f"m{number}" for number in range(len(frame))]
    rows = frame[["predicted", "churned"]].assign(member_id=ids, week=week, release_id="r", weight=1.0)
    return any(score_findings(cohorts(rows, {"r": promised}, rng)))


LABELS = {
    "as was said": {},
    "more leave, features unchanged": {"logit": 0.7},
    "others leave, features unchanged": {"shuffled": 0.6},
}


@pytest.mark.parametrize("change", LABELS)
def bench_labels(change):
    """Let the rival see the label too, and what was predicted."""
    line = f"{change:<40}"
    for size in (200, 1_000, 10_000):
        rng, ours, theirs = np.random.default_rng(size + 2), 0, 0
        for _ in range(runs := max(WINDOWS // 20, 5)):
            before, after = scored(rng, MEMBERS), scored(rng, size, **LABELS[change])
            promised = bootstrap(
                auc, before["churned"].to_numpy(), before["predicted"].to_numpy(), clusters=np.arange(MEMBERS), rng=rng
            )
            ours += off(after, promised, rng)
            theirs += flagged_by_preset(before, after)
        line += f"   {size:>6,} rows {ours / runs:5.0%}, preset {theirs / runs:5.0%}"
    print(f"{line}   ({runs} runs each)")  # noqa: T201


def measured(which):
    """Time one run in a process of its own; give seconds, those of the processor, and the memory it added, in GiB."""
    with subprocess.Popen([sys.executable, __file__, which, str(ROWS)], stdout=subprocess.PIPE, text=True) as process:
        return tuple(map(float, process.communicate()[0].split()))


def bench_time_and_memory():
    ours, theirs = measured("ours"), measured("preset")
    summary, took, worked, memory = ours
    print(  # noqa: T201
        f"{ROWS:,} rows x 30 columns: {took:.2f} s, {worked:.2f} s of the processor, {memory:.2f} GiB more (its "
        f"reference, made once: {summary:.2f} s); preset {theirs[1]:.1f} s, {theirs[2]:.1f} s, {theirs[3]:.2f} GiB "
        f"more: {theirs[1] / took:.0f} x the time, {theirs[2] / worked:.0f} x the processor's"
    )


def begin_anew():
    """Forget the peak of making the windows, which would hide what comes after it, and give the memory in KiB."""
    Path("/proc/self/clear_refs").write_text("5")
    return most_memory()


def most_memory():
    """Read the most memory since then, in KiB."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


def main(which, rows):
    rng = np.random.default_rng(7)
    frame, current = window(rng, rows, numbers=18, money=9), window(rng, rows, numbers=18, money=9)
    names = [f"spend_{number}" for number in range(9)]
    if which == "preset":
        flagged_by_preset(frame.head(200), current.head(200))  # its import takes seconds of no window
    first = begin_anew()
    start = time.perf_counter()
    reference = summarise(frame, money=names, rng=rng) if which == "ours" else None
    begun, worked = time.perf_counter(), time.process_time()
    if reference:
        monitor_drift(reference, current, rng=rng, report=None)
    else:
        flagged_by_preset(frame, current)
    took, worked = time.perf_counter() - begun, time.process_time() - worked
    print(begun - start, took, worked, (most_memory() - first) / 2**20)  # noqa: T201


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
