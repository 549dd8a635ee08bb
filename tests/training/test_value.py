import numpy as np
import pandas as pd
import pytest

from training.value import fit_value, predict_value


def spend(n, seed):
    """Draw compound Poisson sums of gammas, as a Tweedie law of power 1.4 has it, in cents; most members bring 0."""
    rng = np.random.default_rng(seed)
    X = pd.DataFrame(rng.normal(size=(n, 4)), columns=list("abcd"))
    X = X.mask(rng.random(X.shape) < 0.05)
    mean = np.exp(7.5 + 0.6 * X["a"].fillna(0) + 0.3 * (X["b"].fillna(0) > 0)).to_numpy()
    visits = rng.poisson(0.8, n)
    shape = 1.5
    margin = np.where(visits > 0, rng.gamma(np.maximum(visits, 1) * shape, mean / (0.8 * shape)), 0.0)
    return X, mean, np.round(margin)


@pytest.fixture(scope="module")
def booster():
    X, _, margin = spend(6000, 0)
    return fit_value(X, margin)


def test_the_mean_is_right(booster):
    X, mean, margin = spend(6000, 1)
    predicted = predict_value(booster, X.to_numpy(dtype=np.float32))
    error = np.sqrt(margin.var() / len(margin))  # of the mean learned from, and of the one compared with
    assert abs(predicted.mean() - mean.mean()) < 4 * error
    for fifth in np.array_split(np.argsort(predicted), 5):
        error = np.sqrt(2 * margin[fifth].var() / len(fifth))
        assert abs(predicted[fifth].mean() - margin[fifth].mean()) < 4 * error
    assert np.abs(predicted - mean).mean() < 0.6 * np.abs(margin.mean() - mean).mean()


def test_no_member_is_expected_to_bring_less_than_nothing(booster):
    extreme = np.array([[v] * 4 for v in (-1e6, -3.0, 0.0, 3.0, 1e6, np.nan)], dtype=np.float32)
    predicted = predict_value(booster, extreme)
    assert np.isfinite(predicted).all()
    assert (predicted >= 0).all()


def test_the_same_data_gives_the_same_bytes(booster):
    X, _, margin = spend(6000, 0)
    assert bytes(fit_value(X, margin).save_raw("json")) == bytes(booster.save_raw("json"))


def test_more_refunds_than_sales_count_as_nothing():
    X, _, margin = spend(500, 2)
    refunds = np.where(margin == 0, -500.0, margin)
    assert bytes(fit_value(X, refunds).save_raw("json")) == bytes(fit_value(X, margin).save_raw("json"))
