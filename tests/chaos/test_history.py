"""The checker finds every fault that is planted in a clean history, and none in the clean one."""

import json
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos.history import VIOLATIONS, Call, Diary, Limits, read_diaries, violations

NOW = datetime(2017, 12, 1, tzinfo=UTC)
LIMITS = Limits(budgets={"spring": 150}, stock={"A": 3}, days_between=1, per_period=2, period_days=7)


def row(number, member, key, **changes):
    values = {
        "decision_id": f"d{number}", "member_id": member, "idempotency_key": key, "campaign_id": "spring",
        "release_id": "r1", "treatment": "A", "propensity": 0.5, "treatments": ["control", "A"], "cost": [50],
        "decided_at": NOW,
    }  # fmt: skip
    return values | changes


def answered(key, *rows, **changes):
    said = ("decision_id", "member_id", "treatment", "propensity", "release_id")
    answer = json.dumps({"decisions": [{name: one[name] for name in said} for one in rows]})
    return replace(Call(key, tuple(one["member_id"] for one in rows), 200, answer), **changes)


@pytest.fixture
def rows():
    return [row(1, "m1", "k1"), row(2, "m2", "k1"), row(3, "m3", "k2"), row(4, "m4", "k3", treatment="control")]


@pytest.fixture
def calls(rows):
    """Two were answered, one of them twice, one died with its server after the log had it, one before."""
    first = answered("k1", rows[0], rows[1])
    again = replace(first, replayed=True)
    return [first, again, answered("k2", rows[2]), Call("k3", ("m4",)), Call("k4", ("m9",)), Call("k5", ("m9",), 503)]


def test_a_clean_history_has_no_violation(calls, rows):
    assert violations(calls, rows, LIMITS) == Counter()


def changed(place, **changes):
    return lambda calls, rows: (calls, [*rows[:place], rows[place] | changes, *rows[place + 1 :]])


PLANTED = {
    "a decision is gone": ({"lost", "half a request"}, lambda calls, rows: (calls, rows[1:])),
    "a whole answer is gone": ({"lost"}, lambda calls, rows: (calls, [*rows[:2], rows[3]])),
    "another treatment is logged": ({"lost"}, changed(0, treatment="control")),
    "another propensity is logged": ({"lost"}, changed(0, propensity=0.4)),
    "a key decided again": (
        {"two decisions under one key"},
        lambda calls, rows: (calls, [*rows, rows[3] | {"decision_id": "d9"}]),
    ),
    "a member of two is missing": (
        {"half a request"},
        lambda calls, rows: ([*calls, Call("k9", ("m4", "m5"))], [*rows, row(9, "m4", "k9", treatment="control")]),
    ),
    "an answer leaves a member out": (
        {"half a request"},
        lambda calls, rows: ([*calls, replace(calls[2], members=("m3", "m8"))], rows),
    ),
    "refused and stored": (
        {"refused, and stored"},
        lambda calls, rows: (calls, [*rows, row(9, "m9", "k5", treatment="control")]),
    ),
    "another answer to the same key": (
        {"unequal replay"},
        lambda calls, rows: ([*calls, replace(calls[2], answer=calls[2].answer + " ")], rows),
    ),
    "one contact too dear": ({"budget below zero"}, changed(0, cost=[51])),
    "one contact too many": (
        {"stock below zero"},
        lambda calls, rows: (calls, [*rows, row(9, "m9", None, campaign_id=None)]),
    ),
    "a contact too soon": (
        {"cap broken", "stock below zero"},
        lambda calls, rows: (
            calls,
            [*rows, row(9, "m1", None, campaign_id=None, decided_at=NOW + timedelta(hours=23))],
        ),
    ),
    "a third contact in a week": (
        {"cap broken", "stock below zero"},
        lambda calls, rows: (
            calls,
            [*rows, *(row(8 + n, "m1", None, campaign_id=None, decided_at=NOW + timedelta(days=n)) for n in (2, 4))],
        ),
    ),
    "two releases in the log": ({"mixed releases", "lost"}, changed(1, release_id="r2")),
    "two releases in an answer": (
        {"mixed releases"},
        lambda calls, rows: (
            [answered("k1", rows[0], rows[1] | {"release_id": "r2"}), *calls[2:]],
            [rows[0], rows[1] | {"release_id": "r2"}, *rows[2:]],
        ),
    ),
}


@pytest.mark.parametrize("planted", PLANTED)
def test_a_planted_fault_is_found_and_nothing_else(calls, rows, planted):
    wanted, plant = PLANTED[planted]
    assert set(violations(*plant(calls, rows), LIMITS)) == wanted


def test_every_kind_of_violation_is_planted_by_one_test():
    assert set().union(*(wanted for wanted, _ in PLANTED.values())) == set(VIOLATIONS)


def test_a_diary_tells_what_was_never_answered(tmp_path):
    diary = Diary(tmp_path / "client.jsonl")
    first, second = diary.asks("k1", ["m1"]), diary.asks("k2", ["m2", "m3"])
    diary.hears(first, 200, "{}", replayed=True)
    diary.close()
    assert second == 2
    assert read_diaries(tmp_path) == [Call("k1", ("m1",), 200, "{}", replayed=True), Call("k2", ("m2", "m3"))]
