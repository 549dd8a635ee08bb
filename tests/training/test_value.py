import numpy as np
import pandas as pd
import pytest

from features.errors import ContractError
from training.value import fit_value, predict_value

PARAMETERS = {"max_depth": 3, "learning_rate": 0.1, "rounds": 60}


def spend(n, seed):
    """Draw compound Poisson sums of gammas, as a Tweedie law has it, in cents; most members bring 0."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.normal(size=(n, 4)), columns=list("abcd"))
    X = X.mask(rng.random(X.shape) < 0.05)
    mean = np.exp(7.5 + 0.6 * X["a"].fillna(0) + 0.3 * (X["b"].fillna(0) > 0)).to_numpy()
    visits = rng.poisson(0.8, n)
    shape = 1.5
    margin = np.where(visits > 0, rng.gamma(np.maximum(visits, 1) * shape, mean / (0.8 * shape)), 0.0)
    return X, mean, np.round(margin)


@pytest.fixture(scope="module")
def model():
    X, _, margin = spend(6000, 0)
    return fit_value(X, margin)


def test_the_mean_is_right(model):
    X, mean, margin = spend(6000, 1)
    predicted = model.predict(X)
    error = np.sqrt(margin.var() / len(margin))  # of the mean learned from, and of the one compared with
    assert abs(predicted.mean() - mean.mean()) < 4 * error
    for fifth in np.array_split(np.argsort(predicted), 5):
        error = np.sqrt(2 * margin[fifth].var() / len(fifth))
        assert abs(predicted[fifth].mean() - margin[fifth].mean()) < 4 * error
    assert np.abs(predicted - mean).mean() < 0.6 * np.abs(margin.mean() - mean).mean()


def test_the_booster_alone_speaks_minor_units(model):
    X, *_ = spend(200, 1)
    np.testing.assert_array_equal(predict_value(model.booster, X.to_numpy(dtype=np.float32)), model.predict(X))


def test_no_member_is_expected_to_bring_less_than_nothing(model):
    extreme = np.array([[v] * 4 for v in (-1e6, -3.0, 0.0, 3.0, 1e6, np.nan)], dtype=np.float32)
    predicted, (lower, upper) = model.predict(extreme), model.interval(extreme)
    assert np.isfinite([predicted, lower, upper]).all()
    assert (predicted >= 0).all()
    assert ((lower >= 0) & (lower <= upper)).all()


def test_the_same_data_gives_the_same_bytes(model):
    X, _, margin = spend(6000, 0)
    again = fit_value(X, margin)
    assert bytes(again.booster.save_raw("json")) == bytes(model.booster.save_raw("json"))
    assert bytes(again.bounds.booster.save_raw("json")) == bytes(model.bounds.booster.save_raw("json"))


def test_more_refunds_than_sales_count_as_nothing():
    X, _, margin = spend(500, 2)
    refunds = np.where(margin == 0, -500.0, margin)
    one, two = (fit_value(X, brought, parameters=PARAMETERS).predict(X) for brought in (refunds, margin))
    np.testing.assert_array_equal(one, two)


def test_a_currency_of_other_units_gives_the_same_in_these():
    X, _, margin = spend(800, 3)
    cents, yen = fit_value(X, margin), fit_value(X, 128 * margin)
    assert cents.parameters == yen.parameters
    np.testing.assert_allclose(yen.predict(X), 128 * cents.predict(X), rtol=1e-3)
    np.testing.assert_allclose(yen.interval(X)[1], 128 * cents.interval(X)[1], rtol=1e-3)


def lognormal(n, rng, *, inactive):
    """Draw what a grocer's members bring: nothing with a chance that is their own, else amounts with a long tail."""
    X = rng.normal(size=(n, 4))
    nothing = rng.random(n) < 1 / (1 + np.exp(-(inactive + X[:, 0])))
    amount = np.exp(7 + 0.7 * X[:, 1] + (0.6 + 0.3 * (X[:, 2] > 0)) * rng.normal(size=n))
    return X, np.where(nothing, 0.0, np.round(amount))


@pytest.mark.parametrize("inactive", [-9.0, -2.0, 1.0])  # nobody, every seventh, two thirds bring nothing
def test_nineteen_of_twenty_members_are_within_their_interval(inactive):
    """Ten runs that were corrected on 400 members each have a standard error of sqrt(0.05 · 0.95 / 4000) = 0.35 %."""
    covered = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        X, margin = lognormal(1200, rng, inactive=inactive)
        fresh, brought = lognormal(4000, rng, inactive=inactive)
        lower, upper = fit_value(X, margin, parameters=PARAMETERS).interval(fresh)
        covered.append(((brought >= lower) & (brought <= upper)).mean())
    assert 0.93 < np.mean(covered) < 0.97


def test_an_interval_is_wider_where_more_can_happen_and_starts_at_0_for_who_may_bring_nothing():
    X, margin = lognormal(6000, np.random.default_rng(1), inactive=-4.0)
    asked = np.array([[-1.0, 0.0, -1.0, 0.0], [-1.0, 0.0, 1.0, 0.0], [4.0, 0.0, -1.0, 0.0]])  # 1 in 150, half: nothing
    (steady, swinging, may_leave), upper = fit_value(X, margin, parameters=PARAMETERS).interval(asked)
    assert upper[1] > 1.3 * upper[0]  # e to 1.96 · 0.3 is 1.8
    assert steady > swinging > may_leave == 0


def test_words_gaps_and_flags_are_enough():
    rng = np.random.default_rng(0)
    X = pd.DataFrame(
        {
            "plan": rng.choice(["basic", "plus", None], 400),
            "paperless": rng.random(400) < 0.5,
            "visits": np.where(rng.random(400) < 0.2, np.nan, rng.poisson(3, 400)),
        }
    )
    margin = np.where(X["plan"] == "plus", 5000.0, 1000.0) * rng.gamma(2.0, 0.5, 400)
    model = fit_value(X, margin, clusters=np.arange(400) // 2)
    assert model.predict(X[X["plan"] == "plus"]).mean() == pytest.approx(5000, rel=0.2)
    assert model.predict(X[X["plan"] == "basic"]).mean() == pytest.approx(1000, rel=0.3)


def test_weights_that_are_all_the_same_change_nothing():
    X, _, margin = spend(500, 5)
    one, two = fit_value(X, margin), fit_value(X, margin, weight=np.full(500, 8.0))
    assert one.parameters == two.parameters
    np.testing.assert_array_equal(one.predict(X), two.predict(X))


def test_a_weight_says_how_much_a_row_counts_for_the_mean():
    X, margin = np.zeros((200, 1)), np.repeat([100.0, 300.0], 100)
    model = fit_value(X, margin, weight=np.repeat([3.0, 1.0], 100), parameters=PARAMETERS)
    np.testing.assert_allclose(model.predict(X), 150.0, rtol=1e-4)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda X, y: (X, np.where(y > 0, np.inf, y)), "infinite or missing"),
        (lambda X, y: (X, np.where(y > 0, np.nan, y)), "infinite or missing"),
        (lambda X, y: (X.assign(a=np.inf), y), "'a'.*infinite"),
        (lambda X, y: (X, -y), "no member brought a margin"),
        (lambda X, y: (X[:12], y[:12]), "12 members came; at least 40"),
        (lambda X, y: (X, y[:-1]), "one length"),
    ],
)
def test_what_can_not_be_learned_from_is_refused_with_its_reason(spoil, said):
    X, _, margin = spend(300, 4)
    with pytest.raises(ContractError, match=said):
        fit_value(*spoil(X, margin))
