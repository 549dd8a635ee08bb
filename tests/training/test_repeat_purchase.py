"""The oracle's numbers are those of the package lifetimes 0.11.3 (MIT) and of the papers, on their CDNOW sample."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.optimize import check_grad

from features.errors import ContractError
from features.programme import Programme
from training import repeat_purchase
from training.repeat_purchase import (
    BetaGeometric,
    GammaGamma,
    expected_in_horizon,
    fit_beta_geometric,
    fit_gamma_gamma,
    fit_repeat_purchases,
    purchase_history,
)

CDNOW = Path(__file__).parents[2].parent / "shared" / "data" / "cdnow" / "CDNOW_sample.txt"
PUBLISHED = BetaGeometric(r=0.243, alpha=4.414, a=0.793, b=2.426)  # Fader, Hardie and Lee 2005, table 2, in weeks
START = datetime(1997, 1, 1, tzinfo=UTC)
WEEK_39 = datetime(1997, 10, 1, tzinfo=UTC)


def history_of(frequency, recency, age, mean_margin=None):
    columns = {"frequency": frequency, "recency": recency, "age": age, "mean_margin": mean_margin}
    return pd.DataFrame({name: np.asarray(values, dtype=np.float64) for name, values in columns.items()})


# lifetimes 0.11.3: BetaGeoFitter with PUBLISHED in params_, GammaGammaFitter with the p, q and v of the test
FIVE = history_of([0, 1, 2, 7, 29], [0, 1.71, 30.43, 29.43, 37.71], [38.86] * 5, [np.nan, 22.35, 30.0, 9.5, 10.0])
ONE_WEEK = [0.005595657889482763, 0.0060629517982834545, 0.037447969741730654, 0.10662921297151902, 0.633718897438193]
A_YEARS_REST = [0.19509805201125396, 0.20318698707975183, 1.226028174767135, 3.3370532748513577, 19.26067712881962]
ALIVE = [1.0, 0.2121009853773791, 0.726578570080673, 0.6417563459461072, 0.9458122166781284]
MEANS = [35.21897810218978, 26.27224694104561, 30.938320209973753, 11.015809851580986]


@pytest.mark.parametrize(("weeks", "wanted"), [(1, ONE_WEEK), (39, A_YEARS_REST)])
def test_expected_purchases_are_those_of_the_library(weeks, wanted):
    np.testing.assert_allclose(PUBLISHED.expected_purchases(FIVE, weeks), wanted, rtol=1e-9)


def test_the_chance_to_be_active_and_the_mean_margin_are_those_of_the_library():
    np.testing.assert_allclose(PUBLISHED.alive(FIVE), ALIVE, rtol=1e-9)
    mean = GammaGamma(p=6.25, q=3.74, v=15.44).expected_margin(FIVE[:4])
    np.testing.assert_allclose(mean, MEANS, rtol=1e-9)


@pytest.fixture(scope="module")
def cdnow():
    if not CDNOW.exists():
        pytest.skip(f"{CDNOW} is not there")
    rows = pd.read_csv(CDNOW, sep=r"\s+", names=["_", "member_id", "day", "discs", "dollars"], dtype=str)
    day = pd.to_datetime(rows["day"], utc=True).astype("datetime64[us, UTC]")
    margin = (rows["dollars"].astype(float) * 100).round().astype(int)
    visits = pd.DataFrame({"member_id": rows["member_id"], "occurred_at": day, "margin": margin})
    return visits.sort_values("occurred_at", ignore_index=True)


@pytest.mark.real_data
def test_the_papers_parameters_come_out_of_its_data(cdnow):
    history = purchase_history(cdnow, WEEK_39, Programme())
    # The paper counts weeks of 7 days up to a day earlier than this, and takes two purchases of a week as two
    found = fit_beta_geometric(history.assign(recency=history["recency"] / 7, age=(history["age"] - 1) / 7))
    assert len(history) == 2357
    np.testing.assert_allclose(
        [found.r, found.alpha, found.a, found.b],
        [PUBLISHED.r, PUBLISHED.alpha, PUBLISHED.a, PUBLISHED.b],
        rtol=0.03,
    )
    money = fit_gamma_gamma(history)
    # Fader and Hardie 2013 give p = 6.25, q = 3.74, v = 15.44 dollars on what remains after rounding to the week
    np.testing.assert_allclose([money.p, money.q, money.v / 100], [6.25, 3.74, 15.44], rtol=0.03)


def world(n=4000, seed=0):
    """Let members buy as the model says: at their own rate, until they fall silent after a purchase."""
    rng = np.random.default_rng(seed)
    rate, quit_, mean = rng.gamma(0.8, 1 / 20.0, n), rng.beta(1.2, 4.0, n), 40.0 / rng.gamma(4.0, 1, n)
    age, purchases = rng.uniform(100, 200, n), np.zeros((n, 2))
    last, at, active = np.zeros(n), np.zeros(n), np.ones(n, dtype=bool)
    while active.any():
        at = at + rng.exponential(1 / rate)
        active &= at < age + 100
        before = active & (at < age)
        purchases[before, 0] += 1
        purchases[active & ~before, 1] += 1
        last[before] = at[before]
        active &= rng.random(n) >= quit_
    frequency = purchases[:, 0]
    spent = rng.gamma(6.0 * np.maximum(frequency, 1)) * mean / 6.0 / np.maximum(frequency, 1)
    return history_of(frequency, last, age, np.where(frequency > 0, spent, np.nan)), purchases[:, 1]


def test_known_parameters_are_found_and_the_next_days_are_as_many_as_expected():
    history, after = world()
    model = fit_beta_geometric(history)
    found = [model.r, model.r / model.alpha, model.a / (model.a + model.b)]  # a and b apart are hardly known
    np.testing.assert_allclose(found, [0.8, 0.8 / 20, 1.2 / 5.2], rtol=0.15)
    expected = model.expected_purchases(history, 100)
    for fifth in np.array_split(np.argsort(expected), 5):
        error = after[fifth].std() / np.sqrt(len(fifth))
        assert abs(expected[fifth].mean() - after[fifth].mean()) < 4 * error
    margin = fit_gamma_gamma(history)
    mean = float(margin.p * margin.v / (margin.q - 1))
    assert mean == pytest.approx(40.0 / 3, rel=0.1)  # of 40 / gamma(4)
    np.testing.assert_allclose(
        fit_repeat_purchases(history).expected_margin(history, 100), expected * margin.expected_margin(history)
    )


@pytest.mark.parametrize("fit", [fit_beta_geometric, fit_gamma_gamma])
def test_the_slopes_are_those_of_the_likelihood(fit, monkeypatch):
    losses = []
    monkeypatch.setattr(repeat_purchase, "_minimum", lambda loss, start, _: losses.append(loss) or start)
    fit(world(300)[0])
    for at in (-0.5, 0.0, 1.0):
        logs = np.full(4 if fit is fit_beta_geometric else 3, at)
        assert check_grad(lambda x: losses[0](x)[0], lambda x: losses[0](x)[1], logs) < 1e-5


@given(
    age=st.floats(1, 2000),
    shares=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    days=st.floats(0.1, 183),
    r=st.floats(0.05, 20),
    alpha=st.floats(1, 500),
    dropout=st.tuples(st.floats(0.05, 20), st.floats(0.05, 50)),
)
def test_more_days_bring_more_purchases_and_no_number_is_too_large(age, shares, days, r, alpha, dropout):  # noqa: PLR0917
    a, b = dropout
    assume(abs(a - 1) > 1e-3)  # where the formula divides by 0, as a fit never does
    assume(abs(a + b - 1) > 1e-3)
    x = np.floor(shares[0] * age)  # a purchase a day at most
    recency = x + shares[1] * (age - x)
    history = history_of([x], [recency if x else 0.0], [age])
    model = BetaGeometric(r, alpha, a, b)
    less, more = model.expected_purchases(history, days)[0], model.expected_purchases(history, 2 * days)[0]
    assert np.isfinite([less, more]).all()
    assert -1e-9 <= less <= more * (1 + 1e-9) + 1e-9
    assert 0 <= model.alive(history)[0] <= 1


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 60 * 24), st.integers(1, 900)), min_size=1))
def test_the_history_counts_local_days(drawn):
    programme = Programme(timezone="America/New_York")
    zone, start = programme.zone, datetime(2017, 3, 1, 5, tzinfo=UTC)  # midnight; clocks go forward on the 12th
    rows = [(who, start + timedelta(hours=hour), margin) for who, hour, margin in drawn]
    visits = pd.DataFrame(rows, columns=["member_id", "occurred_at", "margin"])
    as_of = datetime(2017, 5, 10, 4, tzinfo=UTC)
    found = purchase_history(visits, as_of, programme)
    for member in {who for who, *_ in rows}:
        days = {}
        for who, at, margin in rows:
            if who == member:
                day = at.astimezone(zone).date()
                days[day] = days.get(day, 0) + margin
        first, *again = sorted(days)
        means = np.mean([days[day] for day in again]) if again else np.nan
        wanted = [len(again), (max(days) - first).days, (as_of.astimezone(zone).date() - first).days, means]
        np.testing.assert_allclose(found.loc[member].to_numpy(), wanted)


def test_what_comes_later_changes_no_history():
    rows = [("a", START, 5), ("a", WEEK_39 - timedelta(seconds=1), 7), ("a", WEEK_39, 900), ("b", WEEK_39, 900)]
    visits = pd.DataFrame(rows, columns=["member_id", "occurred_at", "margin"])
    found = purchase_history(visits, WEEK_39, Programme())
    assert found.loc["a"].to_list() == [1.0, 272.0, 273.0, 7.0]
    assert found.index.to_list() == ["a"]


def test_the_horizon_begins_after_the_lead():
    history, _ = world(300)
    rng = np.random.default_rng(1)
    rows = [
        (f"m{i}", START + timedelta(days=float(at)), 100)
        for i, x in enumerate(history["frequency"])
        for at in (0.0, *rng.uniform(0, 270, int(x)))
    ]
    visits = pd.DataFrame(rows, columns=["member_id", "occurred_at", "margin"]).sort_values("occurred_at")
    asked = pd.DataFrame({"member_id": ["m7", "m3", "m7"], "as_of": [WEEK_39, WEEK_39, WEEK_39 - timedelta(days=90)]})
    whole, first, later = (
        expected_in_horizon(visits, asked, Programme(horizon_days=horizon, lead_days=lead))
        for horizon, lead in ((28, 0), (7, 0), (21, 7))
    )
    np.testing.assert_allclose(first + later, whole)
    assert whole[0] != whole[2]


def test_members_who_never_fall_silent_are_foretold_as_well():
    rng = np.random.default_rng(0)
    rate, age = rng.gamma(3.0, 1 / 60, 2000), rng.uniform(100, 200, 2000)
    frequency = rng.poisson(rate * age)
    recency = np.where(frequency > 0, age * rng.beta(np.maximum(frequency, 1), 1), 0.0)
    model = fit_beta_geometric(history := history_of(frequency, recency, age))
    expected = model.expected_purchases(history, 400)
    assert expected.mean() == pytest.approx((400 * rate).mean(), rel=0.05)


def test_what_can_not_be_learned_from_is_refused():
    few = history_of([0] * 50 + [1] * 9, [0.0] * 50 + [5.0] * 9, [30.0] * 59, [np.nan] * 50 + [100.0] * 9)
    with pytest.raises(ContractError, match="9 of 59 members came back; at least 10"):
        fit_beta_geometric(few)
    with pytest.raises(ContractError, match="9 of 59 members brought a margin"):
        fit_gamma_gamma(few)
    with pytest.raises(ContractError, match="1 histories are impossible"):
        fit_beta_geometric(history_of([1] * 20, [5.0] * 20, [4.0, *[30.0] * 19]))
