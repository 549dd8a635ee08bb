"""The table of the ML Test Score names tests that exist, sums what it says, and no group falls below 6 of 7."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
PAGE = (TESTS.parent / "docs" / "ml_test_score.md").read_text(encoding="utf-8")
GROUPS = re.findall(r"^## (\w+): ([\d.]+) of 7\n\n(.+?)(?=\n\n|\Z)", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("said", "table"), [group[1:] for group in GROUPS], ids=[group[0] for group in GROUPS])
def test_a_group_sums_to_what_is_said_and_to_six_at_least(said, table):
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    assert [row[0] for row in rows] == [*"1234567"]
    assert sum(float(row[2]) for row in rows) == float(said) >= 6
    assert all(re.search(r"`[\w/]+\.py::test_\w+`", row[3]) for row in rows)


def test_there_are_four_groups():
    assert [group[0] for group in GROUPS] == ["Data", "Model", "Infrastructure", "Monitoring"]


@pytest.mark.parametrize("named", sorted(set(re.findall(r"`([\w/]+\.py)::", PAGE))))
def test_every_test_that_is_named_exists(named):
    wanted = set(re.findall(rf"`{re.escape(named)}::(\w+)`", PAGE))
    tree = ast.parse((TESTS / named).read_text(encoding="utf-8"))
    assert wanted <= {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
