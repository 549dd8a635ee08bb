"""The sizing page is arithmetic that runs: a case done in the head, and what grows grows with members."""

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
sys.path.insert(0, str(DOCS))

from sizing import MEMBERS, RESULTS, YEAR_SECONDS, Habits, Units, needs, sizing, units  # noqa: E402

ROUND = Units(
    snapshot=1_000, sqlite=1_000, redis=2_000, journal=5_000, postgres=4_000, features=1, materialize=10, decide=20,
    requests=1_000,
)  # fmt: skip


def test_a_million_members_by_hand():
    found = needs(1_000_000, ROUND, Habits(transactions=50, years=1, decisions=10, peak=2, busy=0.5, price=0.36))
    assert found["snapshots of a year, GB"] == 52
    assert found["online store, Redis, GB of memory"] == 2
    assert found["decisions of a year, journals, GB"] == 50
    assert found["features, online store and audience of a week, processor-hours"] == pytest.approx(80 / 3600)
    assert found["processors of the service"] == pytest.approx(10_000_000 / YEAR_SECONDS * 2 / 500)
    assert found["a million decisions online, $"] == pytest.approx(0.2)  # 2,000 seconds of a processor
    assert found["a million decisions on an audience, features included, $"] == pytest.approx(0.008)


def test_what_is_kept_grows_with_members_and_a_decision_costs_the_same():
    few, many = needs(1_000_000, ROUND, Habits()), needs(100_000_000, ROUND, Habits())
    grown = {name for name in few if many[name] == pytest.approx(100 * few[name])}
    same = {name for name in few if many[name] == pytest.approx(few[name])}
    assert same == {name for name in few if name.startswith("a million")}
    assert grown | same == set(few)


def test_the_figures_are_those_of_the_committed_run_and_the_page_names_each_size():
    measured = units(RESULTS.read_text(encoding="utf-8"))
    assert measured.requests > 100
    page = "\n".join(sizing())
    assert all(f"{members:,}" in page for members in MEMBERS)


def test_a_report_without_a_figure_is_refused():
    with pytest.raises(ValueError, match="make results"):
        units("nothing")
