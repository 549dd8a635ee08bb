import io
import re
from dataclasses import replace

import pytest
from rich.console import Console

from features.home import Home
from features.layout import lay_out
from features.programme import Programme
from features.saying import saying
from training.judging.tables import CHURN_METRICS, VALUE_METRICS
from training.model_card import (
    HEADS,
    churn_sheet,
    lifetime_sheet,
    markdown,
    releases_sheet,
    sheets,
    value_sheet,
    verdict_lines,
)
from training.promotion import Verdict

INTERVAL = re.compile(r"^[+-]?[\d,.]+ \[[+-]?[\d,.]+, [+-]?[\d,.]+\]$")
SHARE = re.compile(r"^\d+%$")


def printed(sheet, width=250):
    console = Console(file=io.StringIO(), width=width)
    console.print(lay_out(sheet, width))
    return console.file.getvalue()


@pytest.fixture
def all_sheets(parts):
    return list(sheets(parts.manifest))


def test_the_sheets_come_in_the_order_of_the_models(all_sheets):
    assert [sheet.title.split(":")[0] for sheet in all_sheets] == [
        "Labels that are not known yet",
        "Lapse",
        "Value",
        "Lifetime value",
        "What the real campaigns brought, per contacted member",
        "Next best offer",
        "Uplift",
        "Redemption within 28 days of the contacts that sent an offer",
        "What the log has seen of the model's policy",
        "What offers are not learned from",
        "Economics by tier, of everybody who had bought by 2017-12-04",
        "What the model's contacts return",
        "Groups of members, on the test's dates; 95 % intervals by member",
    ]


def test_every_figure_of_the_models_comes_with_its_interval(all_sheets):
    _, lapse, value, lifetime, _, offers, uplift, *_ = all_sheets
    cells = [cell for sheet in (lapse, value, lifetime, uplift) for row in sheet.rows for cell in row[1:] if cell]
    cells += [cell for row in offers.rows for cell in row[1:-1]]
    assert len(cells) > 20
    assert [cell for cell in cells if not INTERVAL.match(cell)] == []
    assert all(SHARE.match(row[-1]) for row in offers.rows)  # how many are contacted is a choice, no estimate


def test_every_metric_that_is_judged_has_its_words():
    assert {*CHURN_METRICS, *VALUE_METRICS} <= set(HEADS)


def test_every_estimate_of_the_campaigns_comes_with_its_interval(all_sheets):
    (row,) = all_sheets[4].rows
    assert row == (
        "A",
        "37.11 [36.16, 38.06]",
        "4.12 [0.79, 7.45]",
        "3.88 [1.66, 6.10]",
        "0.92",
        "31%",
        "not identified",
    )


def test_money_is_shown_as_people_write_it_and_differences_with_their_sign(all_sheets):
    rows = {row[0]: row[1:] for row in all_sheets[5].rows}
    assert rows["model (doubly robust)"] == (
        "51.20 [48.10, 54.30]",
        "+1.20 [+0.99, +1.41]",
        "+0.30 [+0.13, +0.47]",
        "+1.23 [+1.19, +1.27]",
        "60%",
    )
    assert "best fixed (A)" in rows


def test_an_error_is_money_and_a_share_is_none_whatever_their_size(all_sheets):
    rows = {row[0]: row[1:] for row in all_sheets[2].rows}
    assert rows["mean absolute error"] == ("12.34 [11.78, 12.90]", "0.01 [0.00, 0.01]")  # half a cent is still money
    assert rows["R²"] == (
        "0.610 [0.590, 0.630]",
        "-1.700 [-2.000, -1.400]",
    )  # and far worse than the mean no loss of it


def test_a_currency_without_cents_has_none(evidence):
    sheet = value_sheet(evidence, Programme(currency="JPY", currency_digits=0))
    assert sheet.rows[0][1] == "1,234 [1,178, 1,290]"


def test_every_metric_a_model_is_judged_by_has_a_name_in_words():
    assert set(HEADS) >= {*CHURN_METRICS, *VALUE_METRICS}


def test_what_a_rival_does_not_predict_is_left_empty(all_sheets):
    rows = {row[0]: row[1:] for row in all_sheets[1].rows}
    assert rows["AUC"][1]
    assert rows["log loss"][1] == ""


def test_what_is_observed_or_simulated_is_called_so(parts, all_sheets):
    assert "OBSERVATIONAL, they were targeted" in all_sheets[4].title
    assert "SIMULATED experiment" in all_sheets[5].title
    assert "refuses to act on it; against: the effect is not identified" in all_sheets[4].notes[0]
    page = markdown(parts.manifest)
    assert "OBSERVATIONAL" in page
    assert "SIMULATED" in page


def test_a_real_experiment_is_not_called_simulated_and_has_no_known_truth(parts, evidence):
    policies = evidence["policies"] | {"truth": {}}
    manifest = replace(parts.manifest, experiment="randomised", evidence=evidence | {"policies": policies})
    offers = list(sheets(manifest))[5]
    assert "RANDOMISED experiment" in offers.title
    assert {row[4] for row in offers.rows} == {"not known"}
    assert "simulat" not in "".join([offers.title, *offers.notes]).lower()


def test_labels_that_are_all_known_are_no_sheet(parts, evidence):
    known = evidence | {"labels": evidence["labels"][:1]}
    assert "not known yet" not in markdown(replace(parts.manifest, evidence=known))


def test_lifetime_value_says_on_what_it_was_judged_and_what_it_assumes(evidence):
    sheet = lifetime_sheet(evidence["lifetime"], Programme(timezone="Europe/Berlin"))
    assert sheet.rows[0] == ("mean absolute error", "87.04 [83.02, 91.06]")
    assert "held 95.6% of margins" in sheet.notes[0]
    assert sheet.notes[1].startswith("Judged on the 182 days from 2017-07-03")
    assert "foretold from 183 days, assuming that the factor holds" in sheet.notes[2]


def test_lifetime_value_that_is_not_known_says_why(parts, evidence):
    unknown = evidence | {"lifetime": {"reason": "100 days of purchases are too few"}}
    page = markdown(replace(parts.manifest, evidence=unknown))
    assert "| not known, because |\n| --- |\n| 100 days of purchases are too few |" in page


def test_the_economics_fit_a_terminal_of_120_columns(all_sheets):
    economics, returns = all_sheets[10:12]
    for sheet, rows in ((economics, ("gold", "silver")), (returns, ("tier: gold",))):
        screen = printed(sheet, width=120)
        assert "…" not in screen
        assert all(name in screen for name in (*sheet.header, *rows))


def test_the_value_table_says_how_many_margins_its_intervals_held(all_sheets):
    assert "Its 95 % intervals held 94.7% of margins." in all_sheets[2].notes


def test_a_rival_that_could_not_be_fitted_is_named_with_its_reason(all_sheets):
    assert any("is not among the rivals: 3 of 9" in note for note in all_sheets[1].notes)


def test_a_release_without_offers_says_why_and_shows_no_policy(parts, evidence):
    none = {"policies": None, "uplift": None, "log": {"left_out": {}, "reasons": ["there are no contacts"]}}
    page = markdown(replace(parts.manifest, offers=(), experiment="none", evidence=evidence | none))
    assert "Next best offer" not in page
    assert "Uplift" not in page
    assert "there are no contacts" in page


def test_groups_that_were_not_compared_are_a_limit(parts, evidence):
    assert "small ones can't be judged" in markdown(parts.manifest)
    none = replace(parts.manifest, evidence=evidence | {"gate": evidence["gate"] | {"groups": []}})
    assert "not compared: members came without gender, region and birth_year" in markdown(none)


def test_a_margin_that_the_company_brings_is_no_assumption(evidence):
    sheet = value_sheet(evidence | {"data": evidence["data"] | {"margin_is_brought": True}}, Programme())
    assert "assumption" not in "".join(sheet.notes)


def test_the_churn_of_contracts_is_not_called_lapse(evidence):
    assert churn_sheet(evidence, Programme(churn="contract")).title.startswith("Churn: a subscription that ends")


def test_without_campaigns_there_is_no_sheet_of_them(parts, evidence):
    manifest = replace(parts.manifest, evidence=evidence | {"campaigns": {}})
    assert "OBSERVATIONAL" not in markdown(manifest)


def test_a_terminal_and_markdown_show_the_same_figures(all_sheets):
    for sheet in all_sheets:
        page, screen = sheet.markdown(), printed(sheet)
        for cell in (cell for row in sheet.rows for cell in row):
            assert cell in page
            assert cell in screen


def test_a_cell_with_brackets_is_shown_and_not_taken_for_markup(all_sheets):
    assert "[bold]" in printed(replace(all_sheets[1], rows=(("[bold]", *all_sheets[1].rows[0][1:]),)))


def test_the_page_says_what_was_learned_from_and_what_it_is_for(parts):
    page = markdown(replace(parts.manifest, release_id="abc"))
    assert page.startswith("# Release abc\n\nTrained on by hand: 2,345 members, 12,345 rows, data f00d.")
    assert "not for credit, work or housing" in page
    assert "it knows nothing that came after 2017-12-31" in page
    assert "from a simulated experiment, for members like those in it" in page
    assert "| age: below 30 | 321 | +0.0210 [+0.0080, +0.0340] | not known |" in page
    assert "Margin is 25% of sales: an assumption" in page
    assert "trained on 2017-03-27 to 2017-08-07" in page


@pytest.mark.parametrize(
    ("promote", "before", "words"),
    [
        (True, "r0", "is champion"),
        (True, None, "is champion"),
        (False, "r0", "is refused, the champion stays"),
        (True, "r1", "is champion already"),
        (False, "r1", "is champion already, though the gate would refuse it"),
    ],
)
def test_a_verdict_is_told_with_every_reason(promote, before, words):
    lines = verdict_lines(Verdict(promote=promote, said=(saying("for: a"), saying("against: b"))), "r1", before=before)
    assert lines == [f"release r1 {words}:", "  for: a", "  against: b"]


def test_releases_are_listed_where_none_exist_and_where_one_does(release):
    assert releases_sheet(Home(release.parent / "elsewhere")).rows == ()
    home = Home(release.parent / "home")
    home.releases.mkdir(parents=True)
    release.rename(home.releases / release.name)
    assert releases_sheet(home).rows == ((release.name, ""),)
