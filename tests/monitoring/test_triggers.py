"""A figure that stays beyond its threshold: which level is due, whom it reaches, and that it acts once."""

import csv
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.decisions import read_decisions
from features.errors import ContractError
from features.programme import Level, Trigger, read_programme
from features.warehouse import NewTable, replace_tables
from monitoring.kpis import LAYERS, Kpi, View
from monitoring.triggers import pull_triggers, stand
from monitoring.verdict import EXIT_CODES
from tests.serving.batch.conftest import MEMBERS, NOW, OFFERS, filled, home  # noqa: F401 (fixtures)
from tests.serving.conftest import release_root  # noqa: F401 (a fixture)

GOOD = 6  # weeks
FIRST = datetime(2017, 9, 4, 12, tzinfo=UTC)  # a Monday
SETTINGS = """
[campaigns.reminder]
offers = ["A"]
[campaigns.call]
offers = ["B"]

[triggers.activity]
metric = "active_share"
below = 0.05
levels = [
  { name = "reminder", campaign = "reminder" },
  { name = "offer", after = 3, audience = "dormant", budget = 500 },
  { name = "call", after = 5, campaign = "call", audience = "lifecycle_stage == 'dormant' and recency_days > 40" },
]
"""


def quiet(*_):
    """Show no progress."""


def course(*values, weeks=1, **limits):
    """Say where a trigger of three levels stands, by a figure's course."""
    levels = tuple(Level(name=name, after=after) for name, after in (("mild", 1), ("more", 3), ("most", 4)))
    trigger = Trigger(metric="basket", window=weeks, levels=levels, **limits)
    view = View("week", (), (Kpi("basket", "process", "money", values),))
    found = stand("t", trigger, view)
    return found.beyond, found.level.name if found.level else None


@pytest.mark.parametrize(
    ("values", "limits", "wanted"),
    [
        ((5, 5, 5, 5), {"below": 5}, (0, None)),  # at the threshold is not beyond it
        ((5, 5, 5, 4), {"below": 5}, (1, "mild")),
        ((4, 5, 4, 4), {"below": 5}, (2, "mild")),
        ((5, 4, 4, 4), {"below": 5}, (3, "more")),
        ((4, 4, 4, 4, 4), {"below": 5}, (5, "most")),
        ((4, 4, 4, 4, 6), {"below": 5}, (0, None)),
        ((4, 6, 6, 6), {"above": 5}, (3, "more")),
        ((9, 3, 6, 3), {"below": 5, "weeks": 2}, (2, "mild")),  # means of two: 6, 4.5, 4.5
        ((4, None, 4, 4), {"below": 5}, (2, "mild")),  # nothing is known of a week: the row ends there
        ((4,), {"below": 5, "weeks": 2}, (0, None)),
        ((), {"below": 5}, (0, None)),
    ],
)
def test_the_level_follows_from_for_how_long_the_figure_has_been_beyond(values, limits, wanted):
    assert course(*values, **limits) == wanted


@pytest.fixture
def weeks(home):  # noqa: F811 (the fixture is asked for)
    """Bring the purchases of so many weeks: of half of the members, and after six weeks of one in a hundred."""
    home.settings.write_text(SETTINGS)

    def bring(count):
        rows = [
            (f"m{member:05d}", FIRST + timedelta(weeks=week, days=day))
            for week in range(count)
            for member in range(MEMBERS // 2 if week < GOOD else MEMBERS // 100)
            for day in (0, 6)
        ]
        ids, times = zip(*rows, strict=True)
        tables = {
            "members": {"member_id": [f"m{number:05d}" for number in range(MEMBERS)], "joined_at": [FIRST] * MEMBERS},
            "transactions": {
                "transaction_id": [f"t{number}" for number in range(len(rows))],
                "member_id": list(ids),
                "occurred_at": list(times),
                "amount": [1_000] * len(rows),
            },
            "offers": OFFERS,
        }
        new = {
            name: NewTable(lambda path, columns=columns: pq.write_table(pa.table(columns), path), 1, 0)
            for name, columns in tables.items()
        }
        replace_tables(home, new, source="test", source_fingerprint=str(count), read_by={})

    return bring


@pytest.fixture
def pull(home, tmp_path):  # noqa: F811
    def pulled(*, now=NOW, rehearse=False):
        programme = read_programme(home.settings)
        return pull_triggers(home, programme, out=tmp_path / "out", now=now, rehearse=rehearse, progress=quiet)

    return pulled


def sent(pulls):
    """Read the audience that was made: its level, and the members that get something, by offer."""
    (one,) = pulls.pulled
    rows = list(csv.DictReader(one.path.read_text().splitlines()))
    offers = {row["treatment"] for row in rows} - {"control"}
    return one.level.name, {row["member_id"] for row in rows if row["treatment"] != "control"}, offers


def test_weekly_activity_under_5_per_cent_reminds_then_offers_then_calls(home, weeks, pull):  # noqa: F811
    weeks(GOOD)
    calm = pull()
    assert (calm.status, calm.findings, EXIT_CODES[calm.status]) == ("no_drift", (), 0)
    members = pq.read_table(next(home.features.glob("*.parquet"))).to_pylist()
    stages = {row["member_id"]: row["lifecycle_stage"] for row in members}

    weeks(GOOD + 1)
    first = pull()
    name, reminded, offers = sent(first)
    assert (name, first.status) == ("reminder", "drift")
    assert offers <= {"A"}
    assert reminded
    assert first.pulled[0].value == pytest.approx(0.01)
    assert len(read_decisions(home.decisions)) > 0  # decided and logged as every batch

    weeks(GOOD + 3)
    name, offered, _ = sent(pull())
    assert name == "offer"
    assert offered
    assert {stages[member] for member in offered} == {"dormant"}
    assert {row["campaign_id"] for row in read_decisions(home.decisions)} == {"reminder", None}

    weeks(GOOD + 5)
    last = pull()
    name, called, offers = sent(last)
    assert name == "call"
    assert called
    assert offers <= {"B"}
    assert {stages[member] for member in called} == {"dormant"}
    assert "level 3, call" in last.findings[0].sentence
    assert last.findings[0].runbook == "triggers"

    weeks(GOOD)  # the figures are back, and then fall again: it begins with the first level
    assert pull().findings == ()
    weeks(GOOD + 1)
    assert sent(pull(now=NOW + timedelta(days=1)))[0] == "reminder"


def test_a_level_acts_once_and_again_after_the_cool_down(weeks, pull):
    weeks(GOOD + 1)
    assert pull().pulled[0].acts
    again = pull(now=NOW + timedelta(days=27))
    assert not again.pulled[0].acts
    assert str(again.pulled[0].done) == "has acted"
    assert again.status == "drift"  # the figure is still beyond
    assert pull(now=NOW + timedelta(days=28)).pulled[0].acts


@pytest.mark.parametrize(("ahead", "acts"), [(timedelta(hours=1), False), (timedelta(days=365), True)])
def test_a_level_that_acted_in_the_future_acted_by_a_wrong_clock(weeks, pull, ahead, acts):
    weeks(GOOD + 1)
    pull(now=NOW + ahead)
    assert pull().pulled[0].acts is acts


def test_a_figure_that_is_not_known_for_once_does_not_begin_all_anew(home, weeks, pull):  # noqa: F811
    weeks(GOOD + 1)
    assert pull().pulled[0].acts
    aside = home.warehouse.rename(home.root / "aside")
    assert pull(now=NOW + timedelta(days=1)).status == "insufficient_data"
    aside.rename(home.warehouse)
    assert not pull(now=NOW + timedelta(days=2)).pulled[0].acts


def test_a_rehearsal_counts_and_leaves_no_trace(home, weeks, pull, tmp_path):  # noqa: F811
    weeks(GOOD + 1)
    rehearsed = pull(rehearse=True).pulled[0]
    assert rehearsed.acts
    assert rehearsed.members > 0
    assert not (tmp_path / "out").exists()
    assert not home.triggers.exists()
    assert not home.decisions.exists()


def test_an_action_that_cannot_be_taken_is_said_and_is_due_again(home, weeks, pull):  # noqa: F811
    weeks(GOOD + 1)
    home.settings.write_text(SETTINGS.replace('campaign = "reminder" }', 'audience = "nobody_knows" }'))
    found = pull()
    assert "nobody_knows" in found.pulled[0].failure
    assert "could not act" in found.findings[0].sentence
    home.settings.write_text(SETTINGS)
    assert sent(pull())[0] == "reminder"


def test_nothing_ingested_is_no_verdict(home, pull):  # noqa: F811
    home.settings.write_text(SETTINGS)
    found = pull()
    assert (found.status, EXIT_CODES[found.status]) == ("insufficient_data", 3)


def test_what_is_wrong_with_triggers_is_said_at_once_when_settings_are_read(home):  # noqa: F811
    levels = 'levels = [{ name = "a", campaign = "none" }]'
    home.settings.write_text(
        f"""
[triggers.one]
metric = "mood"
below = 1
{levels}
[triggers.two]
metric = "basket"
below = 1
above = 2
{levels}
[triggers.three]
metric = "basket"
above = 2
levels = [{{ name = "a", after = 3 }}, {{ name = "b", after = 2 }}]
"""
    )
    with pytest.raises(ContractError) as told:
        read_programme(home.settings)
    for part in ("triggers.one.metric", "mood", "one of below and above", "more periods than the one before"):
        assert part in str(told.value)
    home.settings.write_text(f'[triggers.one]\nmetric = "basket"\nbelow = 1\n{levels}\n')
    with pytest.raises(ContractError, match=r"level a names campaign none, which is not in \[campaigns\]"):
        read_programme(home.settings)


def test_every_figure_of_the_tree_can_be_watched():
    assert set(Trigger.model_json_schema()["properties"]["metric"]["enum"]) == set(LAYERS)
