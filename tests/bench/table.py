"""The README's rows of `make bench`, read from its report: `make results` keeps both, and a test that they agree."""

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
README: Final = ROOT / "README.md"
RESULTS: Final = ROOT / "docs" / "results.md"
COMMAND: Final = "`make bench`"
SAID: Final = "What `make bench` printed and took, whole; the README's table is read from it by `make results`."


@dataclass(frozen=True)
class Row:
    """A line of the table: where its figures stand in the report, and how they are told."""

    what: str
    benches: tuple[str, ...]
    figures: str  # an expression whose groups are numbers, over what these benches printed
    ours: str
    rivals: str


def line(begins: str, *names: str) -> str:
    """Give an expression of a line that begins so, with names for its columns; one without is skipped."""
    return re.escape(begins) + "".join(rf" +(?P<{name}>\S+)" if name else r" +\S+" for name in names)


UPLIFT: Final = ".*".join(
    (
        line("ours: all learners, choice, one booster", "s", "", "mb", "", "", "c", "", "", "", "one"),
        line("our X-learner alone", "xs", "", "xmb", "", "", "xc"),
        line("causalml's X-learner, same trees", "rxs", "", "rxmb", "", "", "rxc", "", "", "", "rxone"),
        line("causalml's DR-learner, same trees", "rds", "", "rdmb", "", "", "rdc", "", "", "", "rdone"),
    )
)
AT_SIZE: Final = ("bench_uplift::bench_uplift_at_size",)
ALARMS: Final = tuple(f"bench_drift::bench_false_alarms[{rows}]" for rows in (50, 1000, 10000))
ROWS: Final = (
    Row(
        "churn of telephone customers, AUC",
        ("bench_science::bench_churn_of_a_telephone_company[whole]",),
        r"model +(?P<ours>\S+).*default XGBClassifier +(?P<plain>\S+).*logistic regression +(?P<linear>\S+)",
        "{ours:.3f}",
        "XGBoost as it comes {plain:.3f}, logistic regression {linear:.3f}",
    ),
    Row(
        "CDNOW, purchases of 39 weeks, mean absolute error",
        ("bench_science::bench_lifetime_of_music_buyers[full set]",),
        r"model +(?P<ours>\S+).*BG/NBD with Gamma-Gamma +(?P<theirs>\S+)",
        "{ours:.3f}",
        "BG/NBD {theirs:.3f}",
    ),
    Row(
        "uplift, 200,000 members x 3 offers, correlation with the known effects",
        AT_SIZE,
        UPLIFT,
        "{c:.3f}, {s:.1f} s, {mb:.0f} MB",
        "causalml on the same trees: X {rxc:.3f}, {rxs:.1f} s, {rxmb:.0f} MB; DR {rdc:.3f}, {rds:.1f} s, {rdmb:.0f} MB",
    ),
    Row("the same, its X-learner alone", AT_SIZE, UPLIFT, "{xc:.3f}, {xs:.1f} s, {xmb:.0f} MB", "as above"),
    Row("uplift for one member", AT_SIZE, UPLIFT, "{one:.2f} ms", "causalml {rxone:.1f} (X), {rdone:.1f} ms (DR)"),
    Row(
        "30 features at 100,000 points in time, from 1 million rows",
        ("bench_join::bench_join",),
        ".*".join(
            (
                line("\nours", "ours"),
                line("Feast's DuckDB store", "feast"),
                line("Feast's default store (dask)", "dask", "", "", "", "", "", "wrong"),
            )
        ),
        "{ours:.2f} s",
        "Feast's DuckDB store {feast:.2f} s, its default {dask:.0f} s and {wrong:,.0f} rows wrong",
    ),
    Row(
        "decisions a second, durable before the answer",
        ("bench_serving::bench_decisions_a_second",),
        r"holdfast serve +(?P<ours>\S+).*the usual wiring +(?P<usual>\S+).*mlflow models serve +(?P<mlflow>\S+)",
        "{ours:,.0f}",
        "`mlflow models serve` {mlflow:.0f}, the usual wiring of BentoML and Feast {usual:.0f}",
    ),
    Row(
        "latency at 200 a second; of 100 members",
        ("bench_serving::bench_latencies",),
        r"1 member,.*?p99 +(?P<one>\S+).*100 members,.*?p99 +(?P<hundred>\S+)",
        "p99 {one:.1f} ms; {hundred:.0f} ms",
        "",
    ),
    Row(
        "clean windows of 50, 1,000, 10,000 rows that raise drift",
        ALARMS,
        r".*".join(rf"alarm: +(?P<ours{n}>[\d.]+)%.*?preset +(?P<theirs{n}>[\d.]+)%" for n in range(3)),
        "{ours0:.1f}, {ours1:.1f}, {ours2:.1f} %",
        "Evidently's preset {theirs0:.0f}, {theirs1:.0f}, {theirs2:.0f} %",
    ),
    Row(
        "a budget over 100,000 members x 6 offers",
        ("bench_budget::bench_allocate_against_a_linear_program[budget]",),
        r"6 +(?P<ours>\S+) s +(?P<theirs>\S+) s +earns +(?P<share>[\d.]+)%",
        "{ours:.2f} s, {share:.3f} % of the optimum",
        "HiGHS {theirs:.1f} s",
    ),
)


def table(report: str) -> list[str]:
    """Give the rows as lines of Markdown.

    Raises
    ------
    ValueError
        If the report lacks a bench, or a bench printed something else than was expected.
    """
    parts = re.split(r"^## (bench_\S+::.*)$", report, flags=re.MULTILINE)
    printed = dict(zip(parts[1::2], parts[2::2], strict=True))
    lines = []
    for row in ROWS:
        if missing := [bench for bench in row.benches if bench not in printed]:
            raise ValueError(f"the report has no {missing}: did every bench run?")
        found = re.search(row.figures, "".join(printed[bench] for bench in row.benches), re.DOTALL)
        if not found:
            raise ValueError(f"{row.benches} printed no line that holds the figures of {row.what!r}")
        figures = {name: float(number.replace(",", "")) for name, number in found.groupdict().items()}
        lines.append(f"| {row.what} | {row.ours.format(**figures)} | {row.rivals.format(**figures)} | {COMMAND} |")
    return lines


def told(readme: str) -> list[str]:
    """Give the README's rows of `make bench`."""
    return [line for line in readme.splitlines() if line.endswith(f"| {COMMAND} |")]


def rewritten(readme: str, report: str) -> str:
    """Put a report's rows where the README has those of an older one."""
    old = told(readme)
    kept = [line for line in readme.splitlines() if line not in old[1:]]
    place = kept.index(old[0])
    return "\n".join([*kept[:place], *table(report), *kept[place + 1 :]]) + "\n"


def main(report: Path) -> None:
    """Keep a report as the page of results, and its figures in the README."""
    text = report.read_text(encoding="utf-8")
    README.write_text(rewritten(README.read_text(encoding="utf-8"), text), encoding="utf-8")
    RESULTS.write_text(text.replace("# Benchmarks\n", f"# Benchmarks\n\n{SAID}\n", 1), encoding="utf-8")


if __name__ == "__main__":
    main(max(map(Path, sys.argv[1:])))  # their names are their times
