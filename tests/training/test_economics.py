import numpy as np
import pandas as pd
import pytest

from features.programme import Economics as Costs
from features.programme import Programme
from training.economics import by_segment, economics_sheet

PROGRAMME = Programme()
CAC = Programme(economics=Costs(acquisition_cost=2_000))


def members(n=400, seed=0, **columns):
    """Draw members of two tiers, of whom gold brings 50.00 in 28 days and silver 10.00."""
    rng = np.random.default_rng(seed)
    tier = np.where(np.arange(n) % 4 == 0, "gold", "silver")
    margin = rng.gamma(4.0, np.where(tier == "gold", 5_000, 1_000) / 4)
    frame = pd.DataFrame({"member_id": [f"m{i}" for i in range(n)], "tier": tier, "margin_28d": margin})
    return frame.assign(**{name: rng.gamma(4.0, mean / 4, n) for name, mean in columns.items()})


def economics(frame, programme=PROGRAMME):
    return by_segment(frame, "tier", programme=programme, rng=np.random.default_rng(1))


def test_what_nothing_says_is_not_known():
    found = economics(members())
    for figures in found.values():
        assert figures.lifetime_value is figures.acquisition_cost is figures.value_to_cost is None
        assert figures.contact_cost is figures.incremental_margin is figures.return_on_contacts is None
    rows = economics_sheet(found, segment="tier", programme=PROGRAMME).rows
    assert [row[0] for row in rows] == ["silver", "gold"]
    assert all(row[3:] == ("not known",) * 6 for row in rows)


def test_a_gap_in_a_column_makes_its_mean_unknown_where_it_is_and_not_elsewhere():
    frame = members(lifetime_value=20_000)
    frame.loc[0, "lifetime_value"] = np.nan  # of a member with gold
    found = economics(frame)
    assert found["gold"].lifetime_value is None
    assert found["silver"].lifetime_value.value == pytest.approx(20_000, rel=0.1)


def test_arpu_is_the_mean_margin_with_its_interval():
    """The standard error of 100 means of a gamma law of shape 4 is 5 % of the mean, of 300 2.9 %."""
    found = economics(members())
    for tier, mean, error in (("gold", 5_000, 0.05), ("silver", 1_000, 0.029)):
        arpu = found[tier].arpu
        assert arpu.value == pytest.approx(mean, rel=4 * error)
        assert (arpu.upper - arpu.lower) / 2 == pytest.approx(1.96 * error * mean, rel=0.25)


def test_the_cost_of_winning_a_member_is_the_column_and_else_the_setting():
    frame = members(lifetime_value=20_000)
    settings = economics(frame, CAC)["silver"]
    assert settings.acquisition_cost.value == settings.acquisition_cost.upper == 2_000
    assert settings.value_to_cost.value == pytest.approx(settings.lifetime_value.value / 2_000)
    column = economics(frame.assign(acquisition_cost=5_000), CAC)["silver"]
    assert column.acquisition_cost.value == 5_000


def test_the_return_is_that_of_the_sums_and_not_of_each_member():
    frame = members(contact_cost=100, incremental_margin=150)
    figures = economics(frame)["silver"]
    silver = frame[frame["tier"] == "silver"]
    wanted = silver["incremental_margin"].sum() / silver["contact_cost"].sum() - 1
    roi = figures.return_on_contacts
    assert roi.value == pytest.approx(wanted)
    assert roi.lower < 0.5 < roi.upper


def test_nothing_spent_has_no_return_and_a_segment_of_nine_no_figures():
    frame = members(contact_cost=100, incremental_margin=150).assign(contact_cost=0.0)
    frame.loc[:8, "tier"] = "platinum"
    found = economics(frame)
    assert found["silver"].return_on_contacts is None
    assert list(found) == ["gold", "silver"]


def test_money_is_shown_in_the_programmes_currency():
    sheet = economics_sheet(economics(members(lifetime_value=20_000), CAC), segment="tier", programme=CAC)
    assert sheet.title == "Economics by tier"
    silver = dict(zip(sheet.header, sheet.rows[0], strict=True))
    assert silver["CAC"] == "20.00"
    assert silver["members"] == "300"
    assert silver["ARPU, 28 days"].startswith(("9.", "10."))
    assert "USD per member" in sheet.notes[0]
