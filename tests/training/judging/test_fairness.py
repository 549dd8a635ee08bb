import numpy as np
import pandas as pd
import pytest

from features.programme import Programme
from training.judging.fairness import OTHER, group_rows, member_groups, tier_groups


def test_members_are_told_apart_by_what_the_company_brings():
    members = pd.DataFrame(
        {
            "member_id": ["a", "b", "c"],
            "joined_at": pd.Timestamp("2020-01-01", tz="UTC"),
            "gender": ["f", None, "m"],
            "birth_year": [1994, 1993, None],
        }
    )
    groups = member_groups(members, year=2023)
    assert list(groups) == ["gender", "age"]
    assert groups["age"].tolist()[:2] == ["below 30", "30 to 49"]
    assert groups.isna().sum().tolist() == [1, 1]
    assert list(member_groups(members[["member_id"]], year=2023)) == []


def test_the_tier_is_that_of_the_first_date():
    days = pd.to_datetime(["2024-02-01", "2024-01-01", "2024-01-01", "2024-01-01"], utc=True)
    rows = pd.DataFrame({"member_id": ["a", "a", "b", "c"], "as_of": days, "tier_level": [2, 1, 2, 0]})
    groups = tier_groups(rows, Programme().tiers)
    assert groups["tier"].to_dict() == {"a": "bronze", "b": "silver", "c": "none"}


def test_rare_words_are_taken_together():
    words = [f"r{i}" for i in range(12) for _ in range(5)] + ["rare", "rarer"]
    members = pd.DataFrame({"member_id": [str(i) for i in range(len(words))], "region": words})
    groups = member_groups(members, year=2023)["region"]
    assert groups.nunique() == 13
    assert (groups == OTHER).sum() == 2


def test_a_group_that_is_predicted_too_high_is_found_with_its_interval():
    rng = np.random.default_rng(0)
    ids = pd.Series([f"m{i}" for i in range(4000)])
    group = np.where(np.arange(4000) % 2, "one", "two")
    groups = pd.DataFrame({"gender": group}, index=ids)
    error = rng.normal(0.0, 0.3, 4000) + 0.1 * (group == "one")
    contact = np.where(group == "one", 1.0, 0.5)
    one, two = group_rows(groups, (ids, error), (ids, contact))
    assert (one.group, one.members) == ("one", 2000)
    assert one.calibration_gap.lower < 0.1 < one.calibration_gap.upper
    assert two.calibration_gap.lower < 0 < two.calibration_gap.upper
    assert one.contact_gap.value == pytest.approx(0.25)
    assert two.contact_gap.value == pytest.approx(-0.25)


def test_without_offers_nobody_is_contacted_more_and_one_member_has_no_interval():
    groups = pd.DataFrame({"gender": ["f", "m", "m"]}, index=["a", "b", "c"])
    one, two = group_rows(groups, (pd.Series(["a", "b", "c"]), np.array([0.1, 0.2, 0.3])), None)
    assert one.calibration_gap is None
    assert two.calibration_gap.n == 2
    assert two.contact_gap is None
