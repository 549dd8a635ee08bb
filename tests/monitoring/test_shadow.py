"""A shadow beside its champion: numbers that can be checked by hand, and nothing said of too few."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from features.errors import NotFoundError
from features.home import Home
from features.programme import Programme
from features.shadow import ShadowFile, ShadowRow
from monitoring.shadow import compare, compare_shadow, shadow_sheets
from training.releases.shadow import shadow_path

ROW = ShadowRow(
    decision_id="d",
    member_id="m",
    decided_at=datetime(2024, 3, 1, tzinfo=UTC),
    campaign_id=None,
    champion="first",
    shadow="second",
    treatment="A",
    shadow_treatment="A",
    propensity=0.9,
    shadow_propensity=0.9,
    churn_probability=0.25,
    shadow_churn_probability=0.5,
    net_value=100.0,
    net_value_by_shadow=80.0,
    shadow_net_value=110.0,
    shadow_net_value_by_champion=95.0,
    seconds=0.001,
    shadow_seconds=0.002,
)


def rows(n=200):
    """Of four, three get the same."""
    return [
        replace(ROW, decision_id=f"d{i}", member_id=f"m{i}", shadow_treatment="A" if i % 4 else "control")
        for i in range(n)
    ]


def test_agreement_value_scores_and_time_are_those_of_the_rows():
    found = compare(rows(), np.random.default_rng(1))
    assert found.agreement.value == 0.75
    assert found.agreement.lower < 0.75 < found.agreement.upper
    assert (found.gain_by_champion.value, found.gain_by_shadow.value) == (-5.0, 30.0)
    assert found.moved == (("A", "control", 50),)
    assert {one.name: (one.champion[2], one.shadow[2]) for one in found.spreads} == {
        "churn probability": (0.25, 0.5),
        "expected net value": (100.0, 110.0),
    }
    assert (found.milliseconds, found.shadow_milliseconds) == (1.0, 2.0)


def test_a_member_who_is_asked_about_again_and_again_is_no_fresh_evidence():
    alone, often = rows(), [one for one in rows() for _ in range(9)]
    first, second = (compare(told, np.random.default_rng(1)).agreement for told in (alone, often))
    assert second.upper - second.lower == pytest.approx(first.upper - first.lower)


def test_only_rows_beside_the_last_champion_count_and_few_say_nothing(tmp_path):
    home = Home(tmp_path)
    home.releases.mkdir()
    shadow_path(home).write_text('{"release_id": "second"}')
    with pytest.raises(NotFoundError, match="no shadow has decided anything yet"):
        compare_shadow(home)
    with ShadowFile(home.shadow) as file:
        with file.writing():
            file.add([replace(one, champion="before") for one in rows()])
        assert compare_shadow(home).decisions == 200
        with file.writing():
            file.add(rows(99))
    found = compare_shadow(home)
    assert (found.champion, found.decisions, found.members, found.compared) == ("first", 99, 99, None)
    (sheet,) = shadow_sheets(found, Programme())
    assert sheet.notes == ("of fewer than 100 members nothing is said",)


def test_the_sheets_say_it_in_money(tmp_path):
    home = Home(tmp_path)
    home.releases.mkdir()
    with pytest.raises(NotFoundError, match="there is no shadow"):
        compare_shadow(home)
    shadow_path(home).write_text('{"release_id": "second"}')
    with ShadowFile(home.shadow) as file, file.writing():
        file.add(rows())
    whole, spread, moved = shadow_sheets(compare_shadow(home), Programme())
    told = dict(whole.rows)
    assert told["its policy earns more a decision, by the champion's numbers"] == "-0.05 USD [-0.05 USD, -0.05 USD]"
    assert ("churn probability, shadow", *["0.500"] * 5) in spread.rows
    assert moved.rows == (("A -> control", "50"),)
