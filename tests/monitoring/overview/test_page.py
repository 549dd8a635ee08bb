"""The page says the known figures, in both languages, as sound HTML, and names nobody."""

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import get_args

import pytest

from features.home import Home
from features.programme import read_programme
from features.saying import saying
from monitoring.overview.budget import BudgetCurve, Point
from monitoring.overview.health import Checked, Firing, Health, Said, TableRows, gather_health
from monitoring.overview.missing import Missing
from monitoring.overview.page import page, write_page
from monitoring.overview.releases import Releases
from monitoring.overview.risk import Group, Risk
from monitoring.overview.triggers import Standing, gather_triggers
from monitoring.verdict import FindingKind
from serving.explanation import LANGUAGES
from serving.pages.texts import catalogue
from training.metrics import Estimate
from training.releases.ledger import Change

DRIFT = saying("Drift: {moved} of {judged} columns moved by more than chance allows.", moved="1", judged="9")
FELL = saying(
    "{column} fell from a {measure} of {was} to {now}", column="spend", measure=saying("median"), was="4", now="3"
)
SAID = datetime(2018, 5, 2, 8, tzinfo=UTC)
VOID = {"meta", "link", "br", "input", "hr", "img"}


@pytest.fixture(scope="module")
def whole(view):
    """An overview that lacks nothing."""
    about = Estimate(30.0, 20.0, 40.0, 100)
    at_risk = Estimate(123_400.0, 100_000.0, 150_000.0, 100)
    groups = (Group("gold", 60, 12.0, 61_700.0), Group("silver", None, None, None))
    auc = {"model": Estimate(0.86, 0.85, 0.87, 100), "logistic regression": Estimate(0.84, 0.83, 0.85, 100)}
    risk = Risk(view.membership.as_of, 28, "lapse", 100, about, at_risk, groups, groups, groups, auc)
    points = (Point(0.0, 0.0, 4.0), Point(10_000.0, 30_000.0, 2.0), Point(20_000.0, 45_000.0, 0.0))
    drift = Checked("drift", DRIFT, (Said("wasserstein", FELL, "drift", 7, 5_000),), "drift-2018-03-05.html")
    fine = Checked("no_drift", saying("No verdict: too few members."), (), None)
    tables = (TableRows("members", 100, 3),)
    health = Health(
        view.membership.as_of,
        tables,
        drift,
        fine,
        (
            Firing(
                "critical", saying("{column} is missing in every row of the current window", column="age"), view.written
            ),
        ),
    )
    change = Change(
        "promotion",
        "2018-05-01T08:00:00+00:00",
        "ada <b>",
        None,
        "abc123",
        (saying("for: {reason}", reason=saying("nothing serves yet")),),
    )
    releases = Releases("abc123", (), "simulated", ("A",), (change,), 2)
    return replace(
        view,
        risk=risk,
        budget=BudgetCurve(100, 15_000.0, points, {"no contact": about, "model": about}),
        health=health,
        releases=releases,
        triggers=(
            Standing("calm", "basket", "money", "month", 2, 4_500.0, 3_000.0, "below", 0, 0, ("call",), None),
            Standing("quiet", "active_share", "share", "week", 1, 0.031, 0.05, "below", 3, 2, ("mail", "offer"), SAID),
        ),
    )


class Outline(HTMLParser):
    """Follow which tags are open, and note what a reader's aids need."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.labelled, self.fields, self.headings, self.cells = [], [], set(), set(), [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        told = dict(attrs)
        self.ids += [told["id"]] if "id" in told else []
        if tag == "label":
            self.labelled.add(told["for"])
        if tag == "input":
            self.fields.add(told["id"])
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "th":
            self.cells.append(told.get("scope"))
        assert "style" not in told
        assert not [name for name in told if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("which", ["whole", "view", "nothing"])
def test_it_is_sound_html(request, which, language):
    text = page(request.getfixturevalue(which), language)
    outline = Outline(text)
    assert outline.open == []
    assert [name for name, count in Counter(outline.ids).items() if count > 1] == []
    assert outline.fields == outline.labelled
    assert set(outline.cells) <= {"col", "row", "rowgroup"}
    assert outline.headings[0] == 1
    assert max(b - a for a, b in zip(outline.headings, outline.headings[1:], strict=False)) <= 1
    assert set(re.findall(r'aria-labelledby="([^"]+)"', text)) <= set(outline.ids)
    assert set(re.findall(r'href="#([^"]+)"', text)) <= set(outline.ids)


def test_it_says_what_the_log_comes_to(view):
    earned = view.campaigns.earned
    assert (round(earned.net_value.value), earned.cost, earned.decisions) == (54_000, 6_000.0, 60)  # 60 x (10 - 1) USD
    # 60 deviations of 2.50, none of those held out: 2.50 / sqrt(59) is the error, and 2.001 of Student's 59 degrees
    reach = 60 * 2.001 * 250 / 59**0.5
    assert earned.net_value.lower == pytest.approx(54_000 - reach, abs=2)
    assert earned.net_value.upper == pytest.approx(54_000 + reach, abs=2)
    text = page(view, "en")
    assert "Offers earned 540 USD after all costs" in text
    assert "+501 USD to +579 USD" in text
    assert "+9.00 USD" in text  # a decision, where 7 were promised
    assert "+7.00 USD" in text
    assert "60 decisions against 40" in text


def test_last_week_half_of_the_members_bought(view):
    week = {kpi.name: kpi for kpi in view.kpis[0].kpis}
    assert (week["sales"].latest, week["sales"].change) == (50_000.0, -0.5)
    assert (week["margin"].latest, week["buyers"].latest, week["active_share"].latest) == (12_500.0, 50.0, 0.5)
    assert week["retained"].course[-2:] == (1.0, 0.5)
    for view_of in view.kpis:
        by = {kpi.name: kpi.latest for kpi in view_of.kpis}
        whole = by["members"] * by["active_share"] * by["frequency"] * by["basket"]
        assert whole == pytest.approx(by["sales"])  # the tree multiplies out, exactly


def test_the_share_of_a_stage_is_that_of_the_last_snapshot_of_the_period(view):
    """Whoever buys every Monday never sleeps; the last snapshot is of the end of the last week, so all is known."""
    for of in view.kpis:
        shares = {kpi.name: kpi.course for kpi in of.kpis}
        assert shares["dormant_share"][-1] == shares["lapsed_share"][-1] == 0.0
        assert len(shares["dormant_share"]) == len(of.periods)


def test_a_trigger_stands_where_the_tree_says(view, tmp_path):
    home = Home(tmp_path)
    levels = 'levels = [{ name = "mail" }, { name = "offer", after = 2 }]'
    home.settings.write_text(f'[triggers.quiet]\nmetric = "active_share"\nbelow = 0.6\n{levels}\n')
    home.triggers.write_text('{"quiet": {"level": "mail", "at": "2018-05-02T08:00:00+00:00"}}')
    (one,) = gather_triggers(home, read_programme(home.settings), view.kpis)
    assert (one.value, one.beyond, one.place, one.acted_at) == (0.5, 1, 1, SAID)
    (unknown,) = gather_triggers(home, read_programme(home.settings), Missing("no_tables", "holdfast ingest"))
    assert (unknown.value, unknown.place, unknown.acted_at) == (None, 0, None)


def test_triggers_are_shown_with_what_they_did(whole):
    english, chinese = (page(whole, language) for language in LANGUAGES)
    assert "2 of 2, offer: beyond for 3 in a row</span> acted on 2 May 2018" in english
    assert "第2级（共2级）offer：已连续3期</span> 2018年5月2日已执行" in chinese
    assert "below 5.0 %" in english
    assert "none is due" in english


def test_every_finding_has_a_name_in_both_languages(whole):
    assert {f"finding.{kind}" for kind in get_args(FindingKind)} <= set(catalogue())
    assert "数值整体移动" in page(whole, "zh")


@pytest.mark.parametrize("which", ["whole", "view", "nothing"])
def test_a_chinese_page_speaks_no_english(request, which):
    """Columns, offers and programs have one name in every language; two words in a row are a sentence."""
    text = re.sub(
        r"<style>.*?</style>|<code.*?</code>|<[^>]*>", "\n", page(request.getfixturevalue(which), "zh"), flags=re.DOTALL
    )
    assert re.findall(r"[a-z]{2,} [a-z]{2,}", text) == []


def test_findings_alerts_and_reasons_are_said_in_chinese(whole):
    text = page(whole, "zh")
    for sentence in (
        "有漂移：9列中有1列的变化超出偶然范围。",
        "spend的中位数从4降至3",
        "当前窗口中age全部缺失",
        "严重",
        "支持：尚无现行版本",
    ):
        assert sentence in text


def test_members_are_counted_and_small_groups_are_not(view):
    assert view.membership.members == 100
    assert view.membership.stages["active"] == 100
    assert view.membership.moves.members[1][1] == 100
    loyal = next(segment for segment in view.segments.segments if segment.name == "loyal")
    assert (loyal.members, loyal.spend) == (None, None)  # of one member nothing is told
    assert 'title="fewer than 5"' in page(view, "en")


def test_nobody_is_named_on_the_page_or_in_the_json(whole):
    for text in (page(whole, "en"), page(whole, "zh"), json.dumps(whole.to_json(), default=str)):
        assert re.search(r"\bm\d{1,2}\b", text) is None
        assert re.search(r"\bd\d{1,2}\b", text) is None


def test_what_is_simulated_is_called_so_and_what_comes_from_people_is_escaped(whole):
    text = page(whole, "en")
    assert "SIMULATED" in text
    assert "ada &lt;b&gt;" in text
    assert "1,234 USD" in text  # at risk
    assert "fewer than 5" in text


def test_without_an_experiment_nothing_is_said_to_be_earned(whole):
    spring = whole.campaigns.reports[0]
    campaigns = replace(whole.campaigns, reports=(replace(spring, design="observational"),), earned=None)
    text = page(replace(whole, campaigns=campaigns), "en")
    assert "What offers earned is not known" in text
    assert "OBSERVATIONAL" in text


def test_where_there_is_nothing_every_panel_says_what_to_type(nothing):
    panels = [value for value in vars(nothing).values() if isinstance(value, Missing)]
    assert len(panels) == 8
    text = page(nothing, "en")
    assert {f"<code>{panel.command}</code>" in text for panel in panels} == {True}


def test_data_quality_is_told_before_any_features_are_computed(decided, tmp_path):
    home = Home(tmp_path)
    shutil.copytree(decided.warehouse, home.warehouse)
    health = gather_health(home)
    assert health.newest is None
    assert {table.table: table.rows for table in health.tables}["members"] == 100


def test_a_file_for_mail_stands_by_itself_and_is_whole_or_not_there(whole, tmp_path):
    path = tmp_path / "monday.html"
    write_page(path, whole, "en")
    text = path.read_text(encoding="utf-8")
    assert [*tmp_path.iterdir()] == [path]
    assert re.search(r'(src|href)="(?!#|data:)', text) is None
    assert "<script" not in text
    assert "<form" not in text
    assert "default-src &#39;none&#39;" in text
