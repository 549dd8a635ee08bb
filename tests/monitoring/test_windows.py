"""The gate: whatever is wrong with a window is a finding with a sentence, never a traceback."""

import numpy as np
import pandas as pd
import pytest

from monitoring.drift import monitor_drift
from monitoring.reference import summarise
from monitoring.windows import kind_of

N = 400


def frame(**columns):
    rng = np.random.default_rng(5)
    plain = {
        "member_id": [f"m{i}" for i in range(N)],
        "recency_days": rng.integers(0, 60, size=N),
        "visits_28d": rng.poisson(4, size=N).astype(float),
        "segment": rng.choice(["champions", "at_risk"], size=N),
    }
    return pd.DataFrame({name: value for name, value in (plain | columns).items() if value is not None})


def judge(reference, current):
    rng = np.random.default_rng(1)
    return monitor_drift(summarise(reference, money=(), rng=rng), current, rng=rng, report=None)


NAN, INFINITE = np.full(N, np.nan), np.where(np.arange(N) < 3, np.inf, 1.0)
BROKEN = {
    "renamed": ({"visits_28d": None, "visits_4w": 1.0}, {("visits_28d", "lost_column"), ("visits_4w", "new_column")}),
    "new": ({"visits_4w": 1.0}, {("visits_4w", "new_column")}),
    "all missing": ({"visits_28d": NAN}, {("visits_28d", "all_missing")}),
    "all missing text": ({"segment": np.full(N, None)}, {("segment", "all_missing")}),
    "infinite": ({"visits_28d": INFINITE}, {("visits_28d", "infinite")}),
    "retyped number": ({"visits_28d": ["4"] * N}, {("visits_28d", "retyped")}),
    "retyped text": ({"segment": np.ones(N)}, {("segment", "retyped")}),
    "mixed": ({"segment": ["champions", 1] * (N // 2)}, {("segment", "retyped")}),
}


@pytest.mark.parametrize(("columns", "wanted"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_column_is_a_finding_and_the_others_are_still_judged(columns, wanted):
    verdict = judge(frame(), frame(**columns))
    assert (verdict.status, verdict.exit_code) == ("broken_data", 1)
    assert {(finding.column, finding.kind) for finding in verdict.findings} == wanted
    assert verdict.judged >= 2


def test_infinite_values_of_the_reference_are_found_too():
    verdict = judge(frame(visits_28d=INFINITE), frame())
    assert verdict.findings[0].sentence == "visits_28d is infinite in 3 rows of the reference window"
    assert (verdict.status, verdict.judged) == ("broken_data", 2)


@pytest.mark.parametrize("empty", [frame().iloc[:0], pd.DataFrame()], ids=["no rows", "nothing"])
def test_an_empty_window_is_broken_data_on_either_side(empty):
    for reference, current in ((frame(), empty), (empty, frame())):
        verdict = judge(reference, current)
        assert (verdict.status, verdict.findings[0].kind) == ("broken_data", "empty")


def test_a_column_that_comes_twice_is_broken_data():
    twice = pd.concat([frame(), frame()[["segment"]]], axis=1)
    verdict = judge(frame(), twice)
    assert [(finding.column, finding.kind) for finding in verdict.findings] == [("segment", "twice")]


def test_keys_without_features_are_no_verdict():
    keys = frame()[["member_id"]]
    verdict = judge(keys, keys)
    assert (verdict.status, verdict.judged) == ("insufficient_data", 0)


def test_members_count_and_not_rows():
    # 800 rows of 40 members are 40 members
    few = pd.concat([frame().head(40)] * 20)
    verdict = judge(frame(), few)
    assert (verdict.status, verdict.findings[0].statistic) == ("insufficient_data", 40)


def test_the_same_numbers_in_another_type_are_no_drift():
    current = frame().astype({"recency_days": "Int32", "visits_28d": "float32", "segment": "category"})
    verdict = judge(frame(), current)
    assert (verdict.status, verdict.findings) == ("no_drift", ())


def test_times_are_not_judged_and_said_so():
    since = pd.date_range("2017-01-01", periods=N, freq="h", tz="UTC")
    verdict = judge(frame(at=since), frame(at=since))
    assert verdict.not_judged == (("at", "neither numbers nor text"),)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([True, None], "number"),
        ([1, 2.5], "number"),
        (["a", None], "text"),
        ([None, np.nan], "missing"),
        (["a", 1], "mixed"),
    ],
)
def test_kinds_are_read_from_values(values, kind):
    assert kind_of(pd.Series(values, dtype=object)) == kind
