"""The written report of the benchmarks: what each printed and took, beside machine, commit and the sizes asked for.

It lies in `HOLDFAST_HOME/reports/bench-TIME.md` and grows as it goes. A bench that has not begun when
`HOLDFAST_BENCH_MINUTES` are over is left out, and the report says so: the whole ends on any machine.

Rivals' scripts run in an environment of their own; here their libraries are not there to be imported.
"""

import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import pytest

collect_ignore = ["oracles", "serving/rivals"]
MINUTES = float(os.environ.get("HOLDFAST_BENCH_MINUTES", "60"))
SIZES = ("HOLDFAST_", "GATE_", "JOIN_", "REWARDS_", "COVERAGE_")  # what variables of sizes begin with
LIBRARIES = ("numpy", "xgboost-cpu", "pandas", "duckdb", "feast", "bentoml", "mlflow", "evidently")
REPORT = pytest.StashKey["Report"]()
OUTCOME = pytest.StashKey[str]()


@dataclass
class Report:
    """Hold the file that is written, and what each bench took so far."""

    path: Path
    start: float = field(default_factory=time.monotonic)
    took: list[tuple[str, str, float, float]] = field(default_factory=list)  # bench, outcome, seconds, of processor

    def write(self, text):
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)

    @property
    def minutes(self):
        return (time.monotonic() - self.start) / 60


class Tee:
    """Write what is printed to the report too."""

    def __init__(self, stream, report):
        self.stream, self.report = stream, report

    def write(self, text):
        self.report.write(text)
        return self.stream.write(text)

    def __getattr__(self, name):
        return getattr(self.stream, name)


def begin():
    """Open a report with what its figures depend on."""
    now = time.gmtime()
    folder = Path(os.environ.get("HOLDFAST_HOME", ".holdfast")) / "reports"
    folder.mkdir(parents=True, exist_ok=True)
    report = Report(folder / time.strftime("bench-%Y%m%dT%H%M%SZ.md", now))
    asked = [
        f"{name}={value}"
        for name, value in sorted(os.environ.items())
        if name.startswith(SIZES) and name != "HOLDFAST_HOME"
    ]
    facts = {
        "began": time.strftime("%Y-%m-%d %H:%M:%S UTC", now),
        "commit": commit(),
        "machine": f"{os.cpu_count()} cores, {processor()}, {memory():.1f} GiB",
        "load when it began": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "python": f"{platform.python_version()}, {platform.platform()}",
        "libraries": ", ".join(f"{name} {version(name)}" for name in LIBRARIES),
        "sizes": ", ".join(asked) or "as they come",
        "ends after": f"{MINUTES:g} minutes; no bench begins later",
    }
    report.write("# Benchmarks\n\n" + "".join(f"- {name}: {fact}\n" for name, fact in facts.items()))
    return report


def commit():
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.machine())


def memory():
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def processor_seconds():
    """Give the processor's seconds of this process and of the children that ended."""
    return sum(os.times()[:4])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    """Let the report read along, and write down what the bench took."""
    stash = item.config.stash
    report = stash[REPORT] if REPORT in stash else stash.setdefault(REPORT, begin())
    name = f"{item.path.stem}::{item.name}"
    report.write(f"\n## {name}\n\n```text\n")
    start, worked = time.monotonic(), processor_seconds()
    stream, sys.stdout = sys.stdout, Tee(sys.stdout, report)
    try:
        return (yield)
    finally:
        sys.stdout = stream
        seconds, cpu = time.monotonic() - start, processor_seconds() - worked
        outcome = item.stash.get(OUTCOME, "passed")
        report.took.append((name, outcome, seconds, cpu))
        report.write(f"\n```\n\n{outcome}, {seconds:.1f} s, {cpu:.1f} s of processor\n")
        print(f"\n[{name}: {outcome}, {seconds:.1f} s, {cpu:.1f} s of processor]", flush=True)  # noqa: T201


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Keep how it ended, and why where it did not pass."""
    found = yield
    if not found.passed:
        reason = found.longrepr[2] if found.skipped else str(found.longrepr).splitlines()[-1]
        item.stash[OUTCOME] = f"{found.outcome} ({reason.removeprefix('Skipped: ')})"
    return found


def pytest_runtest_setup(item):
    """Leave out what would begin too late."""
    if item.config.stash[REPORT].minutes > MINUTES:
        pytest.skip(f"{MINUTES:g} minutes are over; HOLDFAST_BENCH_MINUTES gives more")


def pytest_sessionfinish(session):
    """Close with a table of what took how long."""
    report = session.config.stash.get(REPORT, None)
    if report is None:
        return
    seconds = sum(row[2] for row in report.took)
    rows = "".join(f"| {name} | {outcome} | {took:.1f} | {cpu:.1f} |\n" for name, outcome, took, cpu in report.took)
    report.write(f"\n## What took how long\n\n| bench | outcome | seconds | of processor |\n|---|---|--:|--:|\n{rows}")
    report.write(f"| whole | | {seconds:.1f} | {sum(row[3] for row in report.took):.1f} |\n")
    print(f"\n{seconds / 60:.1f} minutes; {report.path}")  # noqa: T201
