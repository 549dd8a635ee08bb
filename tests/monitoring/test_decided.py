"""Decisions that are what they should be, and those that are not."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from features.home import Home
from monitoring.decided import frequencies, judge_decisions, skew, window

NOW = datetime(2017, 12, 1, tzinfo=UTC)
TREATMENTS = ("control", "A", "B")


def decisions(rng, n, probabilities=(0.05, 0.9, 0.05), drawn=None, **more):
    """Draw decisions by `drawn`, and log `probabilities`."""
    chosen = rng.choice(3, size=n, p=drawn or probabilities)
    row = {
        "outcome": "model", "fallback_reason": None, "refusals": ("", ""), "release_id": "r1", "decided_at": NOW,
        "treatments": TREATMENTS, "probabilities": probabilities,
    } | more  # fmt: skip
    return [
        row | {"member_id": f"m{number}", "treatment": TREATMENTS[one], "propensity": probabilities[one]}
        for number, one in enumerate(chosen)
    ]


def kinds(found):
    return {finding.kind for finding in found}


@pytest.fixture
def rng():
    return np.random.default_rng(6)


def test_clean_decisions_alarm_in_at_most_two_runs_of_a_thousand():
    # 1,000 clean runs at 0.2 %: nine or more alarms have probability below 0.03 %
    alarms = 0
    for seed in range(1000):
        rng = np.random.default_rng(seed)
        before, now = decisions(rng, 400), decisions(rng, 400)
        alarms += bool(judge_decisions(before, now, floor=0.05))
    assert alarms <= 8


def test_draws_that_are_not_as_logged_are_found(rng):
    found = frequencies(decisions(rng, 3000, drawn=(0.02, 0.93, 0.05)))
    assert kinds(found) == {"frequencies"}
    assert any("control was drawn" in finding.sentence and "add up to 150.0" in finding.sentence for finding in found)


def test_what_was_certain_is_no_draw(rng):
    held_out = [row | {"probabilities": (1.0, 0.0, 0.0), "treatment": "control"} for row in decisions(rng, 500)]
    assert frequencies(held_out) == []


def test_a_propensity_below_the_floor_is_found_and_what_was_refused_has_none(rng):
    rows = decisions(rng, 300, (0.01, 0.98, 0.01))
    assert kinds(judge_decisions([], rows, floor=0.025)) == {"floor"}
    refused = decisions(rng, 300, (0.05, 0.95, 0.0), refusals=("", "validity"))
    assert judge_decisions([], refused, floor=0.025) == []


def test_another_mix_and_more_fallbacks_are_found(rng):
    before = decisions(rng, 2000)
    lost = decisions(
        rng, 300, outcome="fallback", fallback_reason="features_unavailable", probabilities=(1.0, 0.0, 0.0)
    )
    now = decisions(rng, 1700, (0.2, 0.7, 0.1)) + [row | {"member_id": f"f{row['member_id']}"} for row in lost]
    found = judge_decisions(before, now, floor=0.0)
    assert kinds(found) == {"mix", "fallbacks"}
    assert any("the fallback features_unavailable went to 15.0% of members; 0.0%" in one.sentence for one in found)


def test_few_decisions_tell_nothing_of_a_mix(rng):
    assert judge_decisions(decisions(rng, 50), decisions(rng, 50, (0.9, 0.05, 0.05)), floor=0.0) == []


def test_a_window_is_of_one_release_and_one_time(rng):
    rows = (
        decisions(rng, 5) + decisions(rng, 5, release_id="r2") + decisions(rng, 5, decided_at=NOW - timedelta(days=9))
    )
    assert len(window(rows, NOW - timedelta(days=7), None, "r1")) == 5
    assert len(window(rows, NOW - timedelta(days=14), NOW, "r1")) == 5


def test_features_that_were_served_otherwise_than_trained_are_named(tmp_path, rng):
    home = Home(tmp_path)
    home.features.mkdir()
    stored = pd.DataFrame({"member_id": ["m0", "m1", "m2"], "visits": [1.0, np.nan, 3.0], "spend": [5.0, 6.0, 7.0]})
    stored.to_parquet(home.snapshot(NOW))
    served = [[1.0, 5.0], [np.nan, 6.0], [3.0, 70.0]]
    rows = [
        row | {"event_timestamp": NOW, "features": np.array(X, dtype=np.float32)}
        for row, X in zip(decisions(rng, 3), served, strict=True)
    ]
    (found,) = skew(home, rows, ("visits", "spend"), rng)
    assert (found.kind, found.column, found.statistic) == ("skew", "spend", 1.0)
    assert skew(home, rows[:2], ("visits", "spend"), rng) == []
    assert skew(home, [row | {"event_timestamp": NOW + timedelta(hours=1)} for row in rows], ("spend",), rng) == []
