from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest

from features.errors import ContractError
from features.programme import Programme
from training.lifetime import back_test, judge_lifetime, learn_lifetime, longest_window, margin_within
from training.repeat_purchase import purchase_history

PROGRAMME = Programme()
START = datetime(2020, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
NOW = START + 400 * DAY
DATES = [NOW - back * DAY for back in (280, 240, 200, 0)]


def shop(n=500, seed=0):
    """Let members buy at a rate of their own until they stop for good; those with a card spend three times as much.

    The card is a feature that transactions do not show before the second purchase.
    """
    rng = np.random.default_rng(seed)
    card, rows = rng.random(n) < 0.5, []
    for member in range(n):
        at, stop = rng.uniform(0, 60), rng.exponential(500)
        first, rate = at, rng.gamma(2.0, 1 / 60)
        while at < 800 and at - first <= stop:
            rows.append((f"m{member}", START + at * DAY, int(rng.gamma(4.0, 250 * (3 if card[member] else 1)))))
            at += rng.exponential(1 / rate)
    visits = pd.DataFrame(rows, columns=["member_id", "occurred_at", "margin"])
    visits["occurred_at"] = visits["occurred_at"].astype("datetime64[us, UTC]")
    return visits.sort_values("occurred_at", ignore_index=True), pd.Series(card, [f"m{i}" for i in range(n)])


def features_of(visits, card, as_of):
    history = purchase_history(visits, as_of, PROGRAMME)
    return pd.DataFrame({"card": card[history.index], "silence": history["age"] - history["recency"]}, history.index)


@pytest.fixture(scope="module")
def data():
    visits, card = shop()
    return visits, {as_of: features_of(visits, card, as_of) for as_of in DATES}


def test_the_year_is_foretold_with_less_error_than_the_rivals(data):
    visits, features = data
    judged = judge_lifetime(visits, features, as_of=NOW, days=365, programme=PROGRAMME, rng=np.random.default_rng(0))
    assert judged["window_days"] == 199  # half of what was known, which began within the first day
    rows = judged["table"].rows
    assert list(rows) == ["model", "last period", "BG/NBD with Gamma-Gamma"]
    ours, last, purchases = (row["root_mean_squared_error"].value for row in rows.values())
    assert ours < min(last, purchases)
    # the window is shorter than the year, so that the interval may be too wide, and not much too narrow
    assert 0.9 < judged["within_interval"] <= 1.0


def test_what_comes_later_is_not_looked_at(data):
    visits, features = data
    later = visits.assign(margin=visits["margin"].where(visits["occurred_at"] < NOW, 10**6))
    X, history = features[NOW], purchase_history(visits, NOW, PROGRAMME).loc[features[NOW].index]
    one, two = (
        learn_lifetime(known, features, known_until=NOW, programme=PROGRAMME).predict(X, history)
        for known in (visits, later)
    )
    np.testing.assert_array_equal(one, two)


def test_more_days_bring_more_and_the_interval_holds_what_is_expected(data):
    visits, features = data
    model = learn_lifetime(visits, features, known_until=NOW, programme=PROGRAMME)
    X, history = features[NOW], purchase_history(visits, NOW, PROGRAMME).loc[features[NOW].index]
    month, year = (model.predict(X, history, days=days) for days in (30, 365))
    assert (month < year).all()
    lower, upper = model.interval(X, history)
    assert (lower <= upper).all()
    assert ((lower <= year) & (year <= upper)).mean() > 0.95


def test_the_window_is_half_of_what_is_known_and_no_longer_than_what_is_asked(data):
    visits, _ = data
    assert longest_window(visits, visits["occurred_at"].iloc[0] + 100 * DAY, 365) == 50
    assert longest_window(visits, NOW, 28) == 28


WEEKS = [START + 7 * week * DAY for week in range(12, 300)]


@pytest.mark.parametrize(("known", "past", "days"), [(365, 183, 182), (280, 168, 112), (900, 535, 365)])
def test_the_most_days_that_have_passed_are_foretold_from_as_many_before(data, known, past, days):
    """The first snapshot is of day 84: of 365 days half are foretold, of 280 there is too little before."""
    visits, now = data[0], START + known * DAY
    dates = [as_of for as_of in WEEKS if as_of <= now]
    as_of, ahead = back_test(visits, dates, known_until=now, programme=PROGRAMME)
    assert abs((as_of - START).days - past) <= 7
    assert ahead == (now - as_of).days
    assert abs(ahead - days) <= 7
    assert ahead <= longest_window(visits, now, 365)


def test_a_history_too_short_for_a_back_test_is_refused(data):
    dates = [as_of for as_of in WEEKS if as_of <= START + 130 * DAY]
    with pytest.raises(ContractError, match=r"129 days of purchases are too few.*28 that have passed"):
        back_test(data[0], dates, known_until=START + 130 * DAY, programme=PROGRAMME)


def test_margin_is_summed_from_its_first_moment_to_before_its_last():
    rows = [("a", START, 1), ("a", START + DAY, 2), ("a", START + 2 * DAY, 4), ("b", START + DAY, 8)]
    visits = pd.DataFrame(sorted(rows, key=lambda row: row[1]), columns=["member_id", "occurred_at", "margin"])
    found = margin_within(visits, pd.Index(["b", "c", "a"]), START, START + 2 * DAY)
    assert found.tolist() == [8.0, 0.0, 3.0]


def test_a_window_that_no_snapshot_has_is_refused_with_the_dates_that_would_do(data):
    visits, features = data
    with pytest.raises(
        ContractError, match=r"no features came whose 199 days.* by 2021-02-04.*build snapshots of then"
    ):
        learn_lifetime(visits, {NOW: features[NOW]}, known_until=NOW, programme=PROGRAMME)
