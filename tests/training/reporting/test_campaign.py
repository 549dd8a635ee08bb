import json
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from features.decisions import DecisionLog, Outcome
from features.errors import ContractError, NotFoundError
from features.programme import read_programme
from holdfast import app
from training.reporting.campaign import report_campaign
from training.reporting.sheet import picture, sheets

SENT = datetime(2018, 1, 10, 12, tzinfo=UTC)
NOW = datetime(2018, 6, 1, tzinfo=UTC)


@pytest.fixture
def told(home):
    def told(campaign_id="spring", now=NOW):
        return report_campaign(home, campaign_id, now=now, rng=np.random.default_rng(0))

    return told


def test_what_a_campaign_brought_is_found_against_its_hold_out(run, told):
    run()
    report = told()
    assert (report.design, report.source, report.margin_from) == ("hold_out", "decisions", "outcomes")
    assert report.outcomes == {"model": 360, "random": 120, "hold_out": 120}
    # Half of the model's arm has A with .8, half B: 3/4 of (.45 A + .45 B) and 1/4 of (1/3 A + 1/3 B), of 800 and 100.
    truth = 0.75 * 0.45 * 900 + 0.25 * 900 / 3
    found = report.whole.incremental_margin
    assert found.lower < truth < found.upper
    assert report.whole.adjusted  # the spread of value, 5,000, is known
    assert found.upper - found.lower < 400
    assert report.whole.sent == sum(one.sent for one in report.sent.values())
    assert report.whole.cost == 100 * report.sent["A"].sent + 10 * report.sent["B"].sent
    cost = report.whole.cost / report.whole.decisions
    assert report.whole.net_value.value == pytest.approx(found.value - cost, abs=0.01)
    assert report.arms_p == pytest.approx(1.0)
    assert report.draws_p > 0.001


def test_groups_are_of_members_alike_in_both_arms(run, told):
    run()
    groups = told().groups
    assert {kind: set(of) for kind, of in groups.items()} == {
        "arm": {"model", "random"},
        "offer": {"A", "B"},  # for whom it was worth most
        "lifecycle_stage": {"active", "new"},
        "tier": {"gold"},
    }
    assert groups["offer"]["A"].decisions + groups["offer"]["B"].decisions == 480
    assert groups["offer"]["A"].net_value.value > groups["offer"]["B"].net_value.value
    assert groups["tier"]["gold"].net_value == told().whole.net_value


def test_the_promise_is_what_was_expected_of_what_was_drawn_from(run, told):
    run()
    report = told()
    # of odd members A is expected to bring 700 and B 90, of even ones 60 and 90
    odd, even = 0.8 * 700 + 0.1 * 90, 0.1 * 60 + 0.8 * 90
    assert report.groups["arm"]["model"].promised == pytest.approx((odd + even) / 2)
    assert report.groups["arm"]["random"].promised == pytest.approx((790 + 150) / 6)
    assert report.whole.kept in {True, False}
    assert report.cost_to_know.hold_out == pytest.approx(120 * (700 + 90) / 2)
    assert report.cost_to_know.random == pytest.approx(120 * ((700 + 90) / 2 - (790 + 150) / 6))
    assert report.cost_to_know.exploration == pytest.approx(360 * ((700 + 90) / 2 - (odd + even) / 2))


def test_a_shadow_price_is_no_part_of_the_promise(run, told):
    run(price=0.5, stock_prices=(20.0, 0.0), net_value=(700, 90))
    assert told().groups["arm"]["random"].promised == pytest.approx((700 + 90) / 3)


def test_what_had_no_chance_is_not_known(run, told):
    kept = {"treatment": "A", "propensity": 0.5, "probabilities": (0.5, 0.5, 0.0), "refusals": ("", "contacts")}
    run(outcome="random", net_value=(60, 90), **kept)  # B is worth more, and was kept back by a cap
    standing = told().standing
    assert standing["random eligible offer"].policy_value is not None
    assert (standing["model without caps"].policy_value, standing["model without caps"].unseen) == (None, 1.0)


def test_policies_are_judged_by_what_would_have_followed(run, told):
    run(n=600)
    standing = told().standing
    assert list(standing) == [
        "as it was", "no contact", "model", "random eligible offer", "best fixed offer", "churn score alone",
        "model without caps",
    ]  # fmt: skip
    best = standing["best fixed offer"].against_no_contact  # A for all: 800 - 100
    assert best.lower < 700 < best.upper
    assert standing["no contact"].against_no_contact.value == 0
    assert standing["model"].model_lead.value == 0
    assert standing["model"].effective_sample_size > 100
    assert all(row.unseen == 0 for row in standing.values())


def test_outcomes_before_after_and_beyond_the_window(home, decision, told):
    with DecisionLog(home.decisions) as log:
        for number in range(60):
            arm = "hold_out" if number % 2 else "model"
            values = {"member_id": f"m{number}", "decided_at": SENT, "outcome": arm, "campaign_id": "spring"}
            values |= {"treatment": "control", "propensity": 1.0, "probabilities": (1.0, 0.0)} if number % 2 else {}
            for day, amount in ((-1, 10_000), (2, 400), (27, 400), (28, 10_000)):
                when = SENT + timedelta(days=day)
                log.record(Outcome(f"o{number}{day}", f"d{number}", None, "purchase", when, amount), now=NOW)
            log.record(Outcome(f"r{number}", f"d{number}", None, "redemption", SENT, None), now=NOW)
            log.append([decision(f"d{number}", **values)], now=NOW).result()
    report = told()
    assert report.whole.incremental_margin.value == 0
    assert report.sent["A"].redeemed == report.sent["A"].sent == 30
    assert report.whole.cost == 30 * (100 + 50)
    assert report.whole.return_on_cost.value == pytest.approx(-1)


def test_a_purchase_of_the_warehouse_counts_once_for_the_last_decision_before_it(home, decision, told):
    with DecisionLog(home.decisions) as log:
        for number in range(60):
            for wave, sent in enumerate((datetime(2018, 4, 1, tzinfo=UTC), datetime(2018, 4, 20, tzinfo=UTC))):
                arm = "hold_out" if number % 2 else "model"
                values = {"member_id": f"m{number}", "decided_at": sent, "outcome": arm, "campaign_id": "spring"}
                log.append([decision(f"d{number}-{wave}", **values)], now=NOW).result()
    (home.settings).write_text("[campaigns.spring]\nattribution_days = 11\n")
    report = told()  # everybody bought for 1,000 on May 1st, 11 days after the second wave, and 30 after the first
    assert report.margin_from == "transactions"
    assert report.whole.decisions == 60


def test_a_window_that_has_not_passed_waits(run, told):
    run()
    first = SENT + timedelta(days=28, minutes=299)
    assert told(now=first).waiting == 300
    assert sum(told(now=first).outcomes.values()) == 300
    with pytest.raises(ContractError, match="600 are waiting"):
        told(now=SENT + timedelta(days=27))


def test_an_unknown_campaign_is_answered_with_those_there_are(run, told):
    run(n=5)
    with pytest.raises(NotFoundError, match="there are spring"):
        told("autumn")


def test_arms_that_are_not_as_planned_are_told(home, run, told):
    run()
    home.settings.write_text("[experiment]\nhold_out = 0.05\nrandom_arm = 0.2\n")
    report = told()
    assert report.arms_p < 0.001
    assert "believe no figure here" in str(next(sheets(report, read_programme(home.settings))).notes)


def test_sheets_picture_and_json_say_the_same(home, run, told):
    run()
    report, programme = told(), read_programme(home.settings)
    summary, groups, standing = sheets(report, programme)
    assert "an experiment with a hold-out" in summary.title
    assert [row[0] for row in groups.rows][:3] == ["all", "arm: model", "arm: random"]
    assert len(standing.rows) == 7
    assert picture(report, programme).startswith(b"\x89PNG")


@pytest.fixture
def contacts():
    """A wave in which everybody drew A or B with a quarter each, or nothing, and who bought what within a week."""

    def contacts(**columns):
        rng = np.random.default_rng(8)
        treatment = rng.choice(["control", "A", "B"], 600, p=[0.5, 0.25, 0.25])
        ids = [f"m{i}" for i in range(600)]
        chance = np.where(treatment == "control", 0.5, 0.25)
        wave = {"contact_id": [f"c{i}" for i in range(600)], "member_id": ids, "treatment": treatment}
        wave |= {"contacted_at": SENT, "campaign_id": "spring", "propensity": chance}
        gain = np.select([treatment == "A", treatment == "B"], [800, 100], 0)
        amount = 4 * (1000 + gain + rng.integers(0, 400, 600))
        bought = {"transaction_id": [f"w{i}" for i in range(600)], "member_id": ids, "amount": amount}
        bought |= {"occurred_at": SENT + timedelta(days=5)}
        redeemed = {"member_id": ids[:100], "offer_id": "A", "occurred_at": SENT + timedelta(days=1)}
        tables = {"contacts": pd.DataFrame(wave | columns), "transactions": pd.DataFrame(bought)}
        return tables | {"redemptions": pd.DataFrame(redeemed)}

    return contacts


def test_contacts_with_propensities_are_a_randomised_experiment(bring, contacts, told):
    tables = contacts()
    bring(tables)
    report = told()
    assert (report.source, report.design, report.margin_from) == ("contacts", "randomised", "transactions")
    assert report.redeemed_from == "redemptions"
    by_offer = report.groups["offer"]
    assert by_offer["A"].incremental_margin.lower < 800 < by_offer["A"].incremental_margin.upper
    reach = by_offer["B"].incremental_margin.upper - by_offer["B"].incremental_margin.value
    assert abs(by_offer["B"].incremental_margin.value - 100) < 1.5 * reach
    assert report.whole.incremental_margin.lower < 0.25 * 900 < report.whole.incremental_margin.upper
    wave = tables["contacts"]
    assert report.sent["A"].redeemed == (wave["treatment"][:100] == "A").sum()
    assert report.sent["A"].cost == 100 * report.sent["A"].sent + 50 * report.sent["A"].redeemed
    assert (report.arms_p, report.whole.promised) == (None, None)
    assert report.draws_p > 0.001
    best = report.standing["best fixed offer"].against_no_contact
    assert best.lower < 700 < best.upper
    assert "model" not in report.standing  # no release had been learned before


def test_without_propensities_it_is_called_observational_everywhere(home, bring, contacts, told):
    bring(contacts(propensity=None))
    report = told()
    assert (report.design, report.draws_p, report.standing) == ("observational", None, {})
    for sheet in sheets(report, read_programme(home.settings)):
        assert "OBSERVATIONAL" in f"{sheet.title} {sheet.notes}"
    assert report.whole.incremental_margin is not None


def test_outcomes_that_only_contacts_bring_are_told(home, bring, contacts, told):
    bring(contacts())
    with DecisionLog(home.decisions) as log:
        for number in np.flatnonzero(contacts()["contacts"]["treatment"] == "A"):
            log.record(Outcome(f"o{number}", None, f"c{number}", "purchase", SENT, 400), now=NOW).result()
    report = told()
    assert (report.margin_from, report.silent_control) == ("outcomes", True)
    assert "report those too" in str(next(sheets(report, read_programme(home.settings))).notes)


@pytest.fixture
def typed(home):
    return lambda *words: CliRunner().invoke(app, [*words, "--home", str(home.root)])


def test_outcomes_and_their_report_as_people_type_them(tmp_path, run, typed):
    run(n=200)
    rows = "outcome_id,decision_id,kind,occurred_at,amount\nx1,d1,purchase,2018-01-12,500\nx2,none,visit,2018-01-12,\n"
    (tmp_path / "o.csv").write_text(rows + "x3,d1,purchase,never,1\n")
    taken = typed("outcomes", str(tmp_path / "o.csv"))
    assert taken.exit_code == 0, taken.output
    assert "1 refused: occurred_at is no time" in " ".join(taken.stdout.split())
    waiting = typed("outcomes", "--unmatched", "--json")
    assert [row["outcome_id"] for row in json.loads(waiting.stdout)] == ["x2"]
    shown = typed("report", "campaign", "spring", "--picture", str(tmp_path / "spring.png"))
    assert shown.exit_code == 0, shown.output
    assert "an experiment with a hold-out" in shown.stdout
    assert (tmp_path / "spring.png").read_bytes().startswith(b"\x89PNG")
    told = json.loads(typed("report", "campaign", "spring", "--json").stdout)
    assert told["outcomes"] == {"model": 120, "hold_out": 40, "random": 40}
    assert "there are spring" in str(typed("report", "campaign", "autumn").exception)
    assert "either a file" in str(typed("outcomes").exception)


def test_what_was_decided_for_members_who_stay_promises_no_margin(home, run, told):
    run(n=200)
    home.settings.write_text(f'{home.settings.read_text()}\n[campaigns.spring]\nobjective = "retained_value"\n')
    report = told()
    assert (report.whole.promised, report.cost_to_know) == (None, None)
    assert "none was promised" in str(next(sheets(report, read_programme(home.settings))).notes)


def test_who_was_not_known_or_opted_out_is_no_arm(home, run, told, decision):
    run()
    found = told().whole
    with DecisionLog(home.decisions) as log:
        for number, outcome in enumerate(["fallback", "opt_out"] * 20):
            unscored = {"refusals": (), "uplift": (), "net_value": (), "value": None, "churn_probability": None}
            values = {"member_id": f"x{number}", "decided_at": SENT, "campaign_id": "spring", "outcome": outcome}
            control = {"treatment": "control", "propensity": 1.0, "treatments": ("control",), "probabilities": (1.0,)}
            empty = {"cost": (), "stock_prices": ()}
            log.append([decision(f"x{number}", **values | unscored | control | empty)], now=NOW).result()
    report = told()
    assert (report.outcomes["fallback"], report.outcomes["opt_out"]) == (20, 20)
    assert report.whole == found
