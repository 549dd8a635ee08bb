"""The verdict on equal and on shifted windows, and what each finding says."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from features.errors import CorruptError
from features.programme import Programme
from monitoring.drift import monitor_drift
from monitoring.reference import read_reference, summarise, write_reference
from monitoring.report import verdict_table

N_MEMBERS, N_WEEKS, N_CURRENT = 300, 12, 4
NUMBERS = [f"feature_{i}" for i in range(18)]
MONEY = ["spend_28d", "spend_84d"]


def world(rng, *, members=N_MEMBERS, weeks=N_WEEKS):
    """Draw members who differ and stay as they are from week to week (correlation 0.5), in 20 numbers and one text."""
    who, when = np.tile(np.arange(members), weeks), np.repeat(np.arange(weeks), members)
    scores = np.sqrt(0.5) * (rng.normal(size=(members, 20))[who] + rng.normal(size=(members * weeks, 20)))
    frame = pd.DataFrame(scores, columns=NUMBERS + MONEY)
    frame[MONEY] = np.round(np.exp(8 + frame[MONEY]))
    frame["lifecycle_stage"] = rng.choice(["new", "active", "dormant"], size=len(frame), p=[0.1, 0.7, 0.2])
    frame["member_id"] = np.char.add("m", who.astype(str))
    frame["as_of"] = pd.Timestamp("2017-01-02", tz="UTC") + pd.to_timedelta(7 * when, unit="D")
    return frame


def split(frame, share):
    """Part the members of a frame; ids are in random relation to values."""
    first = frame["member_id"].isin(frame["member_id"].unique()[: int(share * frame["member_id"].nunique())])
    return frame[first], frame[~first]


@pytest.fixture
def windows(rng):
    """Two windows that differ by chance alone: other weeks of the same members."""
    frame = world(rng, weeks=N_WEEKS + N_CURRENT)
    weeks = np.sort(frame["as_of"].unique())
    reference = frame[frame["as_of"] < weeks[N_WEEKS]].reset_index(drop=True)
    return reference, frame[frame["as_of"] >= weeks[N_WEEKS]].reset_index(drop=True)


@pytest.fixture
def rng():
    return np.random.default_rng(20170101)


def judge(reference, current, rng, ageing=(), **more):
    return monitor_drift(
        summarise(reference, money=MONEY, ageing=ageing, rng=rng), current, rng=rng, report=None, **more
    )


def found(verdict):
    return {(finding.column, finding.kind) for finding in verdict.findings}


def test_equal_windows_alarm_in_at_most_one_run_of_a_hundred():
    # 40 clean runs at a rate of 1 %: three or more alarms have probability 0.7 %
    alarms = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        reference, current = split(world(rng, members=500, weeks=2), 0.6)
        alarms += judge(reference, current, rng).status != "no_drift"
    assert alarms <= 2


def test_other_weeks_of_the_same_members_are_no_drift(windows, rng):
    verdict = judge(*windows, rng)
    assert (verdict.status, verdict.findings, verdict.exit_code, verdict.judged) == ("no_drift", (), 0, 21)
    assert (verdict.n_reference, verdict.n_current) == (N_MEMBERS * N_WEEKS, N_MEMBERS * N_CURRENT)


def test_weeks_that_differ_by_season_are_not_told_apart_from_chance(rng):
    # every week moves one column by a shock of its own, of 0.3 standard deviations; the current weeks do as the others
    frame = world(rng, weeks=24)
    weeks = pd.factorize(frame["as_of"], sort=True)[0]
    frame["feature_0"] += rng.normal(0, 0.3, size=24)[weeks]
    assert judge(frame[weeks < 20], frame[weeks >= 20], rng).status == "no_drift"


def test_the_same_seed_gives_the_same_verdict(windows):
    current = windows[1].assign(feature_3=windows[1]["feature_3"] + 1)
    first, second = (judge(windows[0], current, np.random.default_rng(3)) for _ in range(2))
    assert first == second


def test_a_quarter_of_a_standard_deviation_in_one_of_20_columns_is_found(rng):
    # 2,000 members: the standard error of a mean of members is 0.03 standard deviations
    reference, current = split(world(rng, members=4000, weeks=1), 0.5)
    current = current.assign(feature_7=current["feature_7"] + 0.25)
    verdict = judge(reference, current, rng)
    assert verdict.status == "drift"
    assert {column for column, _ in found(verdict)} == {"feature_7"}
    assert verdict.findings[0].statistic == pytest.approx(0.25, abs=4 * 0.03)
    assert verdict.exit_code == 1


def test_a_drop_of_spend_by_70_percent_is_found_and_said_in_money(windows, rng):
    reference, current = windows
    current = current.assign(spend_28d=current["spend_28d"] * 0.3)
    verdict = judge(reference, current, rng, programme=Programme(currency="EUR"))
    assert {column for column, _ in found(verdict)} == {"spend_28d"}
    before, after = (frame["spend_28d"].median() / 100 for frame in (reference, current))
    assert verdict.findings[0].sentence == f"spend_28d fell from a median of {before:.2f} EUR to {after:.2f} EUR"


def test_missing_values_are_found_where_the_rest_is_unchanged(windows, rng):
    reference, current = windows
    current = current.assign(feature_2=current["feature_2"].mask(rng.random(len(current)) < 0.3))
    verdict = judge(reference, current, rng)
    assert found(verdict) == {("feature_2", "missing")}
    assert re.fullmatch(r"(29|30|31)\.\d% of feature_2 is missing; 0\.0% was", verdict.findings[0].sentence)


def test_a_new_category_is_found_and_named(windows, rng):
    reference, current = windows
    current = current.assign(lifecycle_stage=current["lifecycle_stage"].mask(rng.random(len(current)) < 0.03, "paused"))
    verdict = judge(reference, current, rng)
    assert ("lifecycle_stage", "new_category") in found(verdict)
    assert any("'paused'" in finding.sentence for finding in verdict.findings)


def test_a_changed_mix_of_categories_is_found(windows, rng):
    reference, current = windows
    current = current.assign(lifecycle_stage=rng.permutation(np.resize(["new", "active", "dormant"], len(current))))
    verdict = judge(reference, current, rng)
    assert found(verdict) == {("lifecycle_stage", "psi")}
    assert "lifecycle_stage is 'active' in 33.3% of rows; 70." in verdict.findings[0].sentence


def test_a_column_that_ages_is_said_and_not_judged(windows, rng):
    reference, current = (frame.assign(tenure_days=i * 28.0) for i, frame in enumerate(windows))
    verdict = judge(reference, current, rng, ageing={"tenure_days"})
    assert verdict.status == "no_drift"
    assert verdict.not_judged == (("tenure_days", "grows with time"),)


def test_thirty_rows_are_too_few_to_judge_by(windows, rng):
    verdict = judge(windows[0], windows[1].head(30), rng)
    assert (verdict.status, verdict.exit_code, verdict.judged) == ("insufficient_data", 3, 0)
    assert verdict.findings[0].sentence == "the current window holds 30 members; at least 50 are needed to judge by"


def test_one_broken_column_does_not_hide_another_that_moved(windows, rng):
    current = windows[1].drop(columns="feature_1").assign(feature_4=windows[1]["feature_4"] + 2)
    verdict = judge(windows[0], current, rng)
    assert verdict.status == "broken_data"
    assert {("feature_1", "lost_column"), ("feature_4", "wasserstein")} <= found(verdict)
    assert "1 of the checks before measuring failed; of 20 columns that passed, 1 moved" in verdict.sentence


def test_constant_columns_are_no_drift_until_they_change(windows, rng):
    reference, current = (frame.assign(constant=7.0) for frame in windows)
    assert judge(reference, current, rng).status == "no_drift"
    assert ("constant", "wasserstein") in found(judge(reference, current.assign(constant=8.0), rng))


def test_a_verdict_is_plain_json_and_a_table(windows, rng):
    verdict = judge(windows[0], windows[1].drop(columns="feature_1"), rng, ageing={"feature_2"})
    told = json.loads(json.dumps(verdict.to_json(), allow_nan=False))
    assert (told["status"], told["exit_code"], told["false_alarm_rate"]) == ("broken_data", 1, 0.01)
    assert told["findings"][0]["column"] == "feature_1"
    assert verdict_table(verdict, Programme()).row_count == len(verdict.findings)


def test_a_reference_that_was_stored_judges_as_the_one_that_was_made(windows, tmp_path):
    reference, current = windows
    current = current.assign(spend_28d=current["spend_28d"] * 0.3, lifecycle_stage="active")
    made = summarise(reference, money=MONEY, ageing=("feature_1",), rng=np.random.default_rng(4))
    write_reference(tmp_path / "release", made)
    first, second = (
        monitor_drift(one, current, rng=np.random.default_rng(5), report=None)
        for one in (made, read_reference(tmp_path / "release"))
    )
    assert first == second
    assert {"spend_28d", "lifecycle_stage"} <= {column for column, _ in found(first)}


def test_a_stored_reference_holds_no_id(windows, tmp_path):
    marked = windows[0].assign(member_id="mark-" + windows[0]["member_id"])
    write_reference(tmp_path / "release", summarise(marked, money=MONEY, rng=np.random.default_rng(4)))
    files = list((tmp_path / "release").iterdir())
    assert files
    for file in files:
        assert b"mark-" not in file.read_bytes()
        if file.suffix == ".parquet":
            assert "mark-" not in pd.read_parquet(file).to_csv()


def test_a_torn_reference_is_refused_with_what_to_do(windows, tmp_path):
    write_reference(tmp_path / "release", summarise(windows[0], money=MONEY, rng=np.random.default_rng(4)))
    (tmp_path / "release" / "sample.parquet").write_bytes(b"PAR1")
    with pytest.raises(CorruptError, match="delete it, and it is made anew"):
        read_reference(tmp_path / "release")
