from datetime import UTC, date, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from features.errors import ContractError
from features.programme import Programme
from training.splits import disjoint, each_held_out, folds_of, split_by_time, time_folds

ZONES = ("UTC", "America/New_York", "Europe/Berlin", "Pacific/Auckland", "Asia/Kathmandu")

calendars = st.fixed_dictionaries(
    {
        "zone": st.sampled_from(ZONES),
        "horizon": st.integers(1, 60),
        "start": st.dates(date(2016, 1, 1), date(2018, 1, 1)),
        "gaps": st.lists(st.integers(1, 20), min_size=1, max_size=40),
    }
)


def lay(zone, horizon, start, gaps):
    """Lay snapshots at local midnights; windows are then compared by calendar days, with no arithmetic of instants."""
    days = [start]
    for gap in gaps:
        days.append(days[-1] + timedelta(days=gap))
    dates = [datetime.combine(day, time(), ZoneInfo(zone)).astimezone(UTC) for day in days]
    return dates, Programme(timezone=zone, horizon_days=horizon)


def day_of(as_of, programme):
    return as_of.astimezone(programme.zone).date()


def reaches(as_of, programme):
    """The first local day after the label window."""
    return day_of(as_of, programme) + timedelta(days=programme.horizon_days)


def judged_by(test_days, dates, programme):
    return dates, programme.model_copy(update={"test_days": test_days})


@settings(max_examples=150)
@given(calendar=calendars, test_days=st.integers(1, 90), data=st.data())
def test_no_label_window_of_training_reaches_into_the_test(calendar, test_days, data):
    dates, programme = judged_by(test_days, *lay(**calendar))
    shuffled = data.draw(st.permutations(dates))
    assume(reaches(dates[0], programme) <= day_of(dates[-1], programme) - timedelta(days=test_days))
    split = split_by_time(shuffled, programme=programme)
    first = min(day_of(as_of, programme) for as_of in split.test)
    assert max(reaches(as_of, programme) for as_of in split.train) <= first
    assert first >= day_of(dates[-1], programme) - timedelta(days=test_days)
    # nothing is wasted: what is left out is the embargo alone
    left_out = set(dates) - set(split.train) - set(split.test)
    assert all(reaches(as_of, programme) > first for as_of in left_out)


@settings(max_examples=150)
@given(calendar=calendars, n=st.integers(1, 6))
def test_no_label_window_of_a_fold_reaches_into_what_it_is_judged_on(calendar, n):
    dates, programme = lay(**calendar)
    assume(reaches(dates[0], programme) <= day_of(dates[-1], programme))
    try:
        folds = time_folds(dates, n, programme=programme)
    except ContractError:
        assume(False)
    for fold in folds:
        first = min(day_of(as_of, programme) for as_of in fold.test)
        assert [reaches(as_of, programme) <= first for as_of in dates] == [as_of in fold.train for as_of in dates]
    judged = [as_of for fold in folds for as_of in fold.test]
    assert judged == sorted(set(judged))
    assert len(folds) <= n
    assert judged[-1] == dates[-1]


@settings(max_examples=150)
@given(calendar=calendars)
def test_disjoint_dates_do_not_overlap_and_leave_no_room_for_another(calendar):
    dates, programme = lay(**calendar)
    kept = disjoint(dates[::-1], programme=programme)
    assert kept[-1] == dates[-1]
    assert all(reaches(a, programme) <= day_of(b, programme) for a, b in pairwise(kept))

    def overlap(a, b):
        return day_of(a, programme) < reaches(b, programme) and day_of(b, programme) < reaches(a, programme)

    assert all(any(overlap(as_of, other) for other in kept) for as_of in set(dates) - set(kept))


def test_a_week_of_clock_change_still_counts_as_seven_days():
    # 2017-03-05 to 2017-04-02 in New York is 28 days of 671 hours: an embargo of 672 hours would lose the date
    dates, programme = judged_by(1, *lay("America/New_York", 28, date(2017, 3, 5), [28]))
    split = split_by_time(dates, programme=programme)
    assert (split.train, split.test) == ((dates[0],), (dates[1],))


@pytest.mark.parametrize(("gaps", "test_days"), [([7, 7, 7], 1), ([7] * 7, 28)])
def test_too_short_a_history_is_refused(gaps, test_days):
    dates, programme = judged_by(test_days, *lay("UTC", 28, date(2017, 1, 1), gaps))
    with pytest.raises(ContractError, match=f"{len(dates)} snapshots .* too few .* history, .* smaller test_days"):
        split_by_time(dates, programme=programme)


def test_no_history_at_all_is_refused():
    with pytest.raises(ContractError, match="0 snapshots with labels are too few"):
        split_by_time([], programme=Programme())


@pytest.mark.parametrize("gaps", [[], [7, 7]])
def test_folds_of_too_short_a_history_are_refused(gaps):
    dates, programme = lay("UTC", 28, date(2017, 1, 1), gaps)
    with pytest.raises(
        ContractError, match=r"too few for time-respecting folds: none comes 28 .* smaller history_days"
    ):
        time_folds(dates, 3, programme=programme)


@settings(max_examples=100)
@given(rows=st.lists(st.tuples(st.sampled_from("abcdefghijk"), st.booleans()), min_size=1), n=st.integers(2, 5))
def test_folds_keep_a_member_together_and_spread_members_and_outcomes_evenly(rows, n):
    members, outcome = (np.array(column) for column in zip(*rows, strict=True))
    fold = folds_of(members, n, np.random.default_rng(len(rows)), outcome=outcome)
    fold_of = dict(zip(members, fold, strict=True))
    assert [fold_of[member] for member in members] == fold.tolist()
    ever = set(members[outcome])
    for some in (set(members), ever, set(members) - ever):
        sizes = np.bincount([fold_of[member] for member in some], minlength=n)
        assert sizes.max() - sizes.min() <= 1


def test_every_row_is_held_out_once_and_learnt_from_otherwise():
    fold = folds_of(np.arange(10), 3, np.random.default_rng(0))
    folds = each_held_out(fold)
    assert np.sum([held_out for _, held_out in folds], axis=0).tolist() == [1] * 10
    assert all((learnt ^ held_out).all() for learnt, held_out in folds)
