import numpy as np
import pandas as pd
import pytest

from features.programme import Economics as Costs
from features.programme import Programme
from training.artifacts import Scores
from training.judging.economics import (
    contact_terms,
    economics_sheet,
    return_by_segment,
    returns_sheet,
    worth_by_segment,
)
from training.logged.log import ExperimentLog
from training.releases.manifest import OfferSpec, plain

PROGRAMME = Programme()
CAC = Programme(economics=Costs(acquisition_cost=2_000))
TIMES = ("2017-01-01", "2018-01-01")
OFFERS = (OfferSpec("A", "a", "mail", 50, 0, *TIMES), OfferSpec("B", "b", "mail", 20, 0, *TIMES))


def members(n=400, seed=0, **columns):
    """Draw members of two tiers, of whom gold brings 50.00 in 28 days and silver 10.00."""
    rng = np.random.default_rng(seed)
    tier = np.where(np.arange(n) % 4 == 0, "gold", "silver")
    margin = rng.gamma(4.0, np.where(tier == "gold", 5_000, 1_000) / 4)
    frame = pd.DataFrame({"member_id": [f"m{i}" for i in range(n)], "tier": tier, "margin_28d": margin})
    return frame.assign(**{name: rng.gamma(4.0, mean / 4, n) for name, mean in columns.items()})


def worth(frame, programme=PROGRAMME):
    return worth_by_segment(frame, "tier", programme=programme, rng=np.random.default_rng(1))


def returns(frame):
    return return_by_segment(frame, "tier", rng=np.random.default_rng(1))


def evidence(worth, returns=None, *, experiment="randomised"):
    sides = {"worth": {"tier": worth}, "returns": {} if returns is None else {"tier": returns}}
    return plain({"as_of": "2017-12-04T05:00:00+00:00", "experiment": experiment} | sides)


def test_what_nothing_says_is_not_known():
    found = worth(members())
    for figures in found.values():
        assert figures.lifetime_value is figures.acquisition_cost is figures.value_to_cost is None
    rows = economics_sheet(evidence(found), "tier", programme=PROGRAMME).rows
    assert [row[0] for row in rows] == ["silver", "gold"]
    assert all(row[3:] == ("not known",) * 3 for row in rows)


def test_a_gap_in_a_column_makes_its_mean_unknown_where_it_is_and_not_elsewhere():
    frame = members(lifetime_value=20_000)
    frame.loc[0, "lifetime_value"] = np.nan  # of a member with gold
    found = worth(frame)
    assert found["gold"].lifetime_value is None
    assert found["silver"].lifetime_value.value == pytest.approx(20_000, rel=0.1)


def test_arpu_is_the_mean_margin_with_its_interval():
    """The standard error of 100 means of a gamma law of shape 4 is 5 % of the mean, of 300 2.9 %."""
    found = worth(members())
    for tier, mean, error in (("gold", 5_000, 0.05), ("silver", 1_000, 0.029)):
        arpu = found[tier].arpu
        assert arpu.value == pytest.approx(mean, rel=4 * error)
        assert (arpu.upper - arpu.lower) / 2 == pytest.approx(1.96 * error * mean, rel=0.25)


def test_the_cost_of_winning_a_member_is_the_column_and_else_the_setting():
    frame = members(lifetime_value=20_000)
    settings = worth(frame, CAC)["silver"]
    assert settings.acquisition_cost.value == settings.acquisition_cost.upper == 2_000
    assert settings.value_to_cost.value == pytest.approx(settings.lifetime_value.value / 2_000)
    column = worth(frame.assign(acquisition_cost=5_000), CAC)["silver"]
    assert column.acquisition_cost.value == 5_000


def test_the_return_is_that_of_the_sums_and_not_of_each_member():
    frame = members(contact_cost=100, incremental_margin=150)
    figures = returns(frame)["silver"]
    silver = frame[frame["tier"] == "silver"]
    wanted = silver["incremental_margin"].sum() / silver["contact_cost"].sum() - 1
    roi = figures.return_on_contacts
    assert roi.value == pytest.approx(wanted)
    assert roi.lower < 0.5 < roi.upper


def test_nothing_spent_has_no_return_and_a_segment_of_nine_no_figures():
    frame = members(contact_cost=100, incremental_margin=150).assign(contact_cost=0.0)
    frame.loc[:8, "tier"] = "platinum"
    assert returns(frame)["silver"].return_on_contacts is None
    assert list(returns(frame)) == list(worth(frame)) == ["gold", "silver"]


def test_nine_members_of_many_decisions_are_still_nine():
    frame = members(contact_cost=100, incremental_margin=150)
    frame = frame.assign(member_id=np.where(frame["tier"] == "gold", np.arange(len(frame)) % 9, frame["member_id"]))
    assert list(returns(frame)) == ["silver"]


def test_contacts_bring_what_a_randomised_log_says_whatever_the_model_promises():
    """A brings 300 to everybody and costs 50. The model promises 500, and sends A to half of the members.

    The difference of two means of 2,000 rows, each of standard deviation 400, has a standard error of 13; the doubly
    robust term of a decision that sends nothing is 0, so the mean over all is half of the effect.
    """
    n, rng = 4_000, np.random.default_rng(0)
    treatment = rng.choice(["control", "A"], n)
    outcome = 1_000 + 300 * (treatment == "A") + rng.normal(0, 400, n)
    columns = {"member_id": [f"m{i}" for i in range(n)], "as_of": 0, "treatment": treatment, "propensity": 0.5}
    log = ExperimentLog("randomised", OFFERS, test=pd.DataFrame(columns | {"outcome": outcome}))
    sent = np.arange(n) % 2 == 0
    uplift = np.column_stack([np.where(sent, 500.0, -100.0), np.full(n, -100.0)])
    scores = Scores(np.full(n, 0.5), np.full(n, 1_000.0), uplift, *[0 * uplift] * 4)
    terms = contact_terms(log, scores, np.column_stack([~sent, sent, 0 * sent]).astype(float))
    assert terms["contact_cost"].tolist() == np.where(sent, 50.0, 0.0).tolist()
    assert (terms["incremental_margin"][~sent] == 0).all()
    assert terms["incremental_margin"].mean() == pytest.approx(150, abs=4 * 13)


def test_money_is_shown_in_the_programmes_currency():
    found = evidence(worth(members(lifetime_value=20_000), CAC))
    sheet = economics_sheet(found, "tier", programme=CAC)
    assert sheet.title == "Economics by tier, of everybody who had bought by 2017-12-04"
    silver = dict(zip(sheet.header, sheet.rows[0], strict=True))
    assert silver["CAC"] == "20.00"
    assert silver["members"] == "300"
    assert silver["ARPU, 28 days"].startswith(("9.", "10."))
    assert "USD of margin per member" in sheet.notes[0]


@pytest.mark.parametrize(
    ("kind", "words"),
    [("simulated", "from a SIMULATED experiment, not from customers;"), ("randomised", "a RANDOMISED experiment;")],
)
def test_an_amount_says_what_kind_of_experiment_it_is_from(kind, words):
    found = returns(members(contact_cost=100, incremental_margin=150))
    sheet = returns_sheet(evidence(worth(members()), found, experiment=kind), programme=PROGRAMME)
    silver = dict(zip(sheet.header, sheet.rows[1], strict=True))
    assert silver[""] == "tier: silver"
    assert silver["contacts cost"].startswith(("0.9", "1.0"))
    assert words in sheet.notes[0]
