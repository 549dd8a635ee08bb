"""What a programme of some size takes: the arithmetic of the sizing page, from what was measured a unit."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

RESULTS: Final = Path(__file__).with_name("results.md")
PROCESSORS: Final = 2  # of the machine that `results.md` was measured on: what took a second may have kept both busy
SIZES: Final = "`make bench`, its `tests/bench/bench_sizes.py`"
BENCH: Final = "`make bench`"
SERVING: Final = "`make bench-serving`"
MEMBERS: Final = (1_000_000, 10_000_000, 100_000_000)
WEEKS, HOUR = 52, 3_600
_WHOLE: Final = 10  # from where on a figure says enough without a fraction
YEAR_SECONDS: Final = WEEKS * 7 * 24 * HOUR


@dataclass(frozen=True)
class Units:
    """Hold what one unit takes, as it was measured: bytes, and seconds of one processor."""

    snapshot: float  # bytes a member and week
    sqlite: float  # bytes a member, online
    redis: float  # bytes of memory a member, online
    journal: float  # bytes a decision
    postgres: float  # bytes a decision
    features: float  # seconds a million transactions
    materialize: float  # seconds a million members
    decide: float  # seconds a million members
    requests: float  # a second and processor


@dataclass(frozen=True)
class Habits:
    """Hold what is assumed of members and of prices; each is another company's to change."""

    transactions: int = 60  # a member and year
    years: int = 2  # of transactions that features look at
    decisions: int = 52  # a member and year, online
    peak: float = 5.0  # the busiest second against the mean
    busy: float = 0.5  # the share of a processor that may be taken
    price: float = 0.05  # US dollars a processor-hour: a general-purpose virtual core on demand


def units(report: str) -> Units:
    """Read what the committed run of the benchmarks measured; bytes are what `bench_sizes` printed.

    Raises
    ------
    ValueError
        If the report has no such line.
    """
    return Units(
        snapshot=919,
        sqlite=1_038,
        redis=1_180,
        journal=3_021,
        postgres=3_024,
        features=PROCESSORS * _figure(report, r"one as_of of 1,000,000 transactions, again +([\d.]+) s"),
        materialize=1e6 / _figure(report, r"into an empty table, Redis: .* ([\d,]+) a processor second"),
        decide=PROCESSORS * _figure(report, r"1,000,000 members decided, no limit +([\d.]+) s"),
        requests=_figure(report, r"^holdfast serve +([\d,]+) a second") / PROCESSORS,
    )


def needs(members: int, unit: Units, habits: Habits) -> dict[str, float]:
    """Multiply: what so many members take, in GB (10**9 bytes), processors, hours of a processor, and US dollars.

    Every figure but the last two grows with the members; those are of a million decisions.
    """
    decided = members * habits.decisions
    weekly = (
        members * habits.transactions * habits.years * unit.features + members * (unit.materialize + unit.decide)
    ) / 1e6
    served = 1e6 / unit.requests / habits.busy / HOUR
    return {
        "snapshots of a year, GB": members * unit.snapshot * WEEKS / 1e9,
        "online store, SQLite, GB": members * unit.sqlite / 1e9,
        "online store, Redis, GB of memory": members * unit.redis / 1e9,
        "decisions of a year, journals, GB": decided * unit.journal / 1e9,
        "decisions of a year, Postgres, GB": decided * unit.postgres / 1e9,
        "features, online store and audience of a week, processor-hours": weekly / HOUR,
        "requests in the busiest second": decided / YEAR_SECONDS * habits.peak,
        "processors of the service": decided / YEAR_SECONDS * habits.peak / unit.requests / habits.busy,
        "a million decisions online, $": served * habits.price,
        "a million decisions on an audience, features included, $": weekly / members * 1e6 / HOUR * habits.price,
    }


def sizing() -> Iterator[str]:
    """Write the page: the sums for three sizes, what they begin with, and what is assumed."""
    unit, habits = units(RESULTS.read_text(encoding="utf-8")), Habits()
    found = [needs(members, unit, habits) for members in MEMBERS]
    yield "# Sizing\n"
    yield "What a programme takes, multiplied from what was measured a unit; `docs/sizing.py` is the arithmetic.\n"
    yield f"| members | {' | '.join(f'{members:,}' for members in MEMBERS)} |"
    yield f"|---|{'---:|' * len(MEMBERS)}"
    for name in found[0]:
        yield f"| {name} | {' | '.join(_said(one[name]) for one in found)} |"
    yield "\nIt stands on these, measured on two cores beside other work; another machine prints its own:\n"
    yield "| unit | measured | by |\n|---|---:|---|"
    for name, value, command in _measured(unit):
        yield f"| {name} | {value:,.1f} | {command} |"
    yield (
        f"\nAssumed, not measured: {habits.transactions} transactions a member and year, {habits.years} years of them "
        f"in features; {habits.decisions} decisions a member and year; {habits.peak:.0f} times the mean in the busiest "
        f"second; processors half taken; {habits.price} $ a processor-hour, a general-purpose virtual core on demand. "
        f"Beyond some tens of millions of members features and audiences want Spark, whose seconds are its own: "
        f"[operating](../operating.md). Retention, replicas and backups multiply what is stored; discs and memory have "
        f"prices of their own, which are not in these."
    )


def _measured(unit: Units) -> list[tuple[str, float, str]]:
    return [
        ("snapshot, bytes a member and week", unit.snapshot, SIZES),
        ("online store in SQLite, bytes a member", unit.sqlite, SIZES),
        ("online store in Redis, bytes of memory a member", unit.redis, SIZES),
        ("journal, bytes a decision with its answer", unit.journal, SIZES),
        ("Postgres, bytes a decision with its answer", unit.postgres, SIZES),
        ("features, processor-seconds a million transactions", unit.features, BENCH),
        ("online store, processor-seconds a million members", unit.materialize, BENCH),
        ("an audience, processor-seconds a million members", unit.decide, BENCH),
        ("requests a second and processor, the generator beside it", unit.requests, SERVING),
    ]


def _figure(report: str, pattern: str) -> float:
    if (found := re.search(pattern, report, re.MULTILINE)) is None:
        raise ValueError(f"docs/results.md has no line like {pattern}; `make results` writes it from a run")
    return float(found[1].replace(",", ""))


def _said(value: float) -> str:
    return f"{value:,.0f}" if value >= _WHOLE else f"{value:.2g}"
