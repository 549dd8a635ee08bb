from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from features.programme import Programme
from training.logged.campaigns import cohorts, judge_campaigns

PROGRAMME = Programme(horizon_days=28, activity_days=56)
MONDAYS = [datetime(2017, 1, 2, tzinfo=UTC) + timedelta(days=7 * week) for week in range(30)]
START = datetime(2017, 4, 12, 9, tzinfo=UTC)  # a Wednesday
# The last Monday 28 days before is 13 March; who is active then bought from 16 January on
AS_OF = datetime(2017, 3, 13, tzinfo=UTC)
SECOND = timedelta(seconds=1)
HORIZON = timedelta(days=28)


def visits_of(*rows):
    frame = pd.DataFrame(rows, columns=["member_id", "occurred_at", "margin"])
    frame["occurred_at"] = pd.to_datetime(frame["occurred_at"], utc=True)
    return frame.sort_values("occurred_at", ignore_index=True)


def contacts_of(*rows):
    frame = pd.DataFrame(rows, columns=["member_id", "treatment", "contacted_at"])
    return frame.assign(contacted_at=pd.to_datetime(frame["contacted_at"], utc=True))


VISITS = visits_of(
    ("chosen", AS_OF - SECOND, 1),
    ("chosen", START - HORIZON - SECOND, 2),
    ("chosen", START - HORIZON, 10),
    ("chosen", START - SECOND, 20),
    ("chosen", START, 100),
    ("chosen", START + HORIZON - SECOND, 200),
    ("chosen", START + HORIZON, 4000),
    ("left alone", AS_OF - timedelta(days=56), 5),
    ("left alone", START + SECOND, 50),
    ("quiet", AS_OF - timedelta(days=56) - SECOND, 7),
    ("joined later", AS_OF, 8),
    ("joined later", START, 9),
)
CONTACTS = contacts_of(
    ("chosen", "A", START), ("joined later", "A", START), ("quiet", "A", START), ("left alone", "control", START)
)


def found(contacts=CONTACTS, snapshots=MONDAYS):
    return cohorts(contacts, VISITS, snapshots=snapshots, programme=PROGRAMME)


def test_a_cohort_by_hand():
    cohort = found()["A"]
    assert cohort.to_dict("list") == {
        # who joined or came back later than as_of, and who was silent by then, could not have been told apart
        "member_id": ["chosen", "left alone"],
        "as_of": [pd.Timestamp(AS_OF)] * 2,
        "treated": [1, 0],
        "outcome": [300.0, 50.0],
        "placebo_outcome": [30.0, 0.0],
    }


def test_control_is_no_campaign():
    assert list(found()) == ["A"]


def test_each_campaign_of_an_offer_has_its_own_cohort():
    later = START + timedelta(days=35)
    more = pd.concat([CONTACTS, contacts_of(("left alone", "A", later), ("chosen", "B", later))], ignore_index=True)
    by_offer = found(more)
    assert list(by_offer) == ["A", "B"]
    # by 17 April "left alone" is not active before the second campaign any more, and "joined later" is
    second = by_offer["A"].iloc[2:]
    assert second["member_id"].tolist() == ["chosen", "joined later", "left alone"]
    assert second["treated"].tolist() == [0, 0, 1]
    assert by_offer["B"]["treated"].tolist() == [1, 0, 0]
    assert set(second["as_of"]) == {pd.Timestamp("2017-04-17", tz="UTC")}


def test_without_a_snapshot_a_horizon_before_there_is_no_cohort():
    assert found(snapshots=[as_of for as_of in MONDAYS if as_of > START - HORIZON]) == {}


@pytest.mark.parametrize(("last", "offers"), [(START + HORIZON, ["A"]), (START + HORIZON - SECOND, [])])
def test_a_campaign_whose_horizon_has_not_passed_is_left_out(last, offers):
    assert list(found(snapshots=[AS_OF, last])) == offers


def test_whatever_is_not_known_is_not_acted_on():
    """Members are chosen by what they spend, and spend accordingly: the campaign itself brings nothing."""
    rng = np.random.default_rng(0)
    n = 900
    spend = rng.gamma(4, 1000, n)
    treated = (spend > np.quantile(spend, 0.6)).astype(int)
    cohort = pd.DataFrame(
        {
            "member_id": [f"m{i}" for i in range(n)],
            "as_of": AS_OF,
            "treated": treated,
            "outcome": spend + rng.normal(0, 300, n),
            "placebo_outcome": spend + rng.normal(0, 300, n),
        }
    )
    asked = []
    judged = judge_campaigns(
        {"A": cohort},
        lambda frame: asked.append(list(frame)) or frame.assign(spend_84d=spend),
        features=["spend_84d"],
        contact_cost={"A": 10.0},
        programme=PROGRAMME,
        rng=np.random.default_rng(1),
    )["A"]
    assert asked == [list(cohort)]
    assert judged.effect.naive.lower > 10
    assert judged.effect.verdict == "not identified"
    assert not judged.gate.promote
    assert any("not identified" in reason for reason in judged.gate.reasons)
