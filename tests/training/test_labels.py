from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ContractError
from features.programme import Programme
from training.labels import label, margins, mature

ZONE = ZoneInfo("America/New_York")
PROGRAMME = Programme(timezone="America/New_York")  # horizon 28 days, active in the 56 before
LATER = datetime(2019, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(), ZONE).astimezone(UTC)


def visits_of(*rows: tuple[str, datetime, int]) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["member_id", "occurred_at", "margin"])
    frame["occurred_at"] = pd.to_datetime(frame["occurred_at"], utc=True).astype("datetime64[us, UTC]")
    return frame.sort_values("occurred_at", ignore_index=True)


def labelled(visits, as_of):
    rows = label(visits, [as_of], known_until=LATER, programme=PROGRAMME)
    return rows.set_index("member_id")[["churned", "margin", "previous_margin"]].T.to_dict("list")


# Clocks go forward on 2017-03-12 and back on 2017-11-05: 28 local days are then 671 and 673 hours.
@pytest.mark.parametrize(
    ("day", "hours"), [(date(2017, 2, 20), 671), (date(2017, 6, 5), 672), (date(2017, 10, 16), 673)]
)
def test_the_label_window_holds_its_first_second_and_not_the_one_after_its_last(day, hours):
    as_of = midnight(day)
    end = as_of + timedelta(hours=hours)
    before = as_of - SECOND
    visits = visits_of(
        *[(name, before, 1) for name in ("first", "last", "after", "never")],
        ("first", as_of, 10),
        ("last", end - SECOND, 10),
        ("after", end, 10),
    )
    assert labelled(visits, as_of) == {
        "first": [0, 10, 1],
        "last": [0, 10, 1],
        "after": [1, 0, 1],
        "never": [1, 0, 1],
    }


def test_the_audience_bought_in_the_activity_window_before_as_of():
    as_of = midnight(date(2017, 4, 3))  # clocks went forward within the 56 days before
    opens = midnight(date(2017, 2, 6))
    visits = visits_of(
        ("long ago", opens - SECOND, 1),
        ("just active", opens, 1),
        ("a second ago", as_of - SECOND, 1),
        ("from now on", as_of, 1),
    )
    assert set(labelled(visits, as_of)) == {"just active", "a second ago"}


def test_a_purchase_after_the_window_changes_nothing():
    as_of = midnight(date(2017, 6, 5))
    visits = visits_of(("m", as_of - SECOND, 5), ("n", as_of - SECOND, 6), ("m", as_of, 7))
    after = midnight(date(2017, 7, 3))
    more = visits_of(*visits.itertuples(index=False), ("m", after, 900), ("n", after, 900), ("new", after, 900))
    pd.testing.assert_frame_equal(
        label(visits, [as_of], known_until=LATER, programme=PROGRAMME),
        label(more, [as_of], known_until=LATER, programme=PROGRAMME),
    )


def test_there_is_no_label_before_its_window_has_passed():
    as_of = midnight(date(2017, 2, 20))
    end = midnight(date(2017, 3, 20))
    visits = visits_of(("m", as_of - SECOND, 5))
    assert mature([as_of], known_until=end, programme=PROGRAMME) == [as_of]
    assert mature([as_of], known_until=end - SECOND, programme=PROGRAMME) == []
    with pytest.raises(ContractError, match=r"28 days after 2017-02-20 have not passed by 2017-03-20; train with"):
        label(visits, [as_of], known_until=end - SECOND, programme=PROGRAMME)


@settings(max_examples=60, deadline=None)
@given(
    day=st.dates(date(2017, 1, 1), date(2017, 12, 31)),
    horizon=st.integers(1, 40),
    activity=st.integers(1, 70),
    drawn=st.lists(
        st.tuples(
            st.sampled_from("abcd"),
            st.integers(-80 * 86_400, 50 * 86_400),
            st.integers(-500, 5000),
        ),
        min_size=1,
        max_size=25,
    ),
)
def test_labels_agree_with_a_count_over_calendar_days(day, horizon, activity, drawn):
    """The oracle knows no instants: it asks on which local day a purchase fell."""
    programme = Programme(timezone="America/New_York", horizon_days=horizon, activity_days=activity)
    as_of = midnight(day)
    rows = [(member, as_of + timedelta(seconds=offset), margin) for member, offset, margin in drawn]
    found = label(visits_of(*rows), [as_of], known_until=LATER, programme=programme)

    def within(member, first, end):
        days = [((at.astimezone(ZONE).date() - day).days, margin) for who, at, margin in rows if who == member]
        return [margin for passed, margin in days if first <= passed < end]

    wanted = [
        (member, as_of, int(not after), sum(after), sum(within(member, -horizon, 0)))
        for member in "abcd"
        for after in [within(member, 0, horizon)]
        if within(member, -activity, 0)
    ]
    assert list(found.itertuples(index=False, name=None)) == wanted


def test_every_date_has_its_own_audience():
    first, second = midnight(date(2017, 5, 1)), midnight(date(2017, 6, 5))
    visits = visits_of(("m", first - SECOND, 5), ("n", second - SECOND, 6))
    rows = label(visits, [first, second], known_until=LATER, programme=PROGRAMME)
    assert list(zip(rows["member_id"], rows["as_of"], strict=True)) == [("m", first), ("m", second), ("n", second)]


def test_a_visit_is_the_sum_of_its_lines_and_its_margin_is_rounded_once():
    at = datetime(2017, 5, 1, tzinfo=UTC)
    lines = pd.DataFrame(
        {
            "member_id": ["m", "m", "n", "m"],
            "transaction_id": ["t1", "t1", "t1", "t2"],  # ids are a till's: two members may share one
            "occurred_at": [at + 2 * SECOND, at + SECOND, at, at],
            "amount": [102, 102, 50, -40],
        }
    )
    rows = margins(lines, Programme(margin_rate=0.25))
    assert list(rows.itertuples(index=False, name=None)) == [
        ("m", at, -10),
        ("n", at, 12),  # 12.5 to the even cent
        ("m", at + SECOND, 51),  # line by line it would have been 25.5 twice, rounded to 26
    ]


def test_a_margin_that_is_known_is_not_assumed():
    at = datetime(2017, 5, 1, tzinfo=UTC)
    lines = pd.DataFrame(
        {"member_id": "m", "transaction_id": ["t"], "occurred_at": [at], "amount": [1000], "margin": [777]}
    )
    assert margins(lines, Programme(margin_rate=0.25))["margin"].tolist() == [777]
