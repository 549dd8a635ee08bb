"""The README's figures are those of a committed run of `make bench`; nobody copies them by hand."""

import re

import pytest

from tests.bench.table import README, RESULTS, ROWS, rewritten, table, told

REPORT = RESULTS.read_text(encoding="utf-8")


def test_the_readme_tells_what_the_report_holds():
    assert told(README.read_text(encoding="utf-8")) == table(REPORT)


def test_the_report_is_of_a_whole_run_and_says_of_which_commit_machine_and_sizes():
    facts = dict(re.findall(r"^- ([\w ]+): (.+)$", REPORT, re.MULTILINE))
    assert {"began", "commit", "machine", "load when it began", "python", "libraries", "sizes"} <= facts.keys()
    assert re.fullmatch(r"[0-9a-f]{7,40}", facts["commit"])  # of a clean checkout
    outcomes = re.findall(r"^\| bench_\S+::[^|]+ \| ([^|]+) \|", REPORT, re.MULTILINE)
    assert len(outcomes) > 50
    assert set(outcomes) == {"passed"}


def test_another_report_moves_its_own_lines_and_no_other():
    readme = README.read_text(encoding="utf-8")
    budget = ROWS[-1].benches[0]
    before, printed = REPORT.split(f"## {budget}\n")
    slower = f"{before}## {budget}\n{re.sub(r'6 +[0-9.]+ s', '6 7.77 s', printed, count=1)}"
    changed = [line for line in rewritten(readme, slower).splitlines() if line not in readme.splitlines()]
    assert [line.split(" | ")[1].split(",")[0] for line in changed] == ["7.77 s"]
    assert rewritten(readme, REPORT) == readme


def test_a_report_without_a_bench_is_refused_by_its_name():
    cut = REPORT.replace(f"## {ROWS[0].benches[0]}\n", "## another\n")
    with pytest.raises(ValueError, match="telephone"):
        table(cut)
