from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from training.calibration import sigmoid
from training.churn import MONOTONE, cross_predict, fit_churn, fold_losses, logistic_rival, train_booster
from training.metrics import auc, log_loss
from training.splits import Split

DATES = tuple(datetime(2017, 1, 1, tzinfo=UTC) + timedelta(days=28 * i) for i in range(5))
FOLDS = [Split(DATES[: i + 1], (DATES[i + 1],)) for i in range(3)]
PARAMETERS = {"max_depth": 3, "learning_rate": 0.1, "rounds": 60, "subsample": 0.8, "nthread": 1}
COLUMNS = [*MONOTONE, "season"]


class World(NamedTuple):
    X: pd.DataFrame
    probability: np.ndarray
    churned: np.ndarray
    rows: pd.DataFrame


def world(n_members=700, seed=0) -> World:
    """Draw members whose chance to leave is known: it rises with silence, falls with visits, and swings otherwise."""
    rng = np.random.default_rng(seed)
    n = n_members * len(DATES)
    X = pd.DataFrame(rng.normal(size=(n, len(COLUMNS))), columns=COLUMNS)
    X = X.mask(rng.random(X.shape) < 0.05)
    x = X.fillna(0.0)
    p = sigmoid((-1 + x["recency_days"] - 0.8 * x["visits_56d"] + np.sin(2 * x["season"])).to_numpy())
    rows = pd.DataFrame({"member_id": np.tile(np.arange(n_members), len(DATES)), "as_of": np.repeat(DATES, n_members)})
    return World(X, p, (rng.random(n) < p).astype(np.float64), rows)


@pytest.fixture(scope="module")
def data():
    return world()


@pytest.fixture(scope="module")
def model(data):
    return fit_churn(data.X, data.churned, data.rows, FOLDS, PARAMETERS)


@pytest.mark.parametrize(("name", "sign"), MONOTONE.items())
def test_more_silence_never_lowers_the_risk_and_more_visits_never_raise_it(model, data, name, sign):
    X = data.X[:200].to_numpy(dtype=np.float32)
    column = COLUMNS.index(name)
    risks = []
    for value in np.linspace(-4, 4, 33):
        X[:, column] = value
        risks.append(model.predict(X))
    assert (sign * np.diff(risks, axis=0) >= 0).all()


def test_what_has_no_known_sign_may_go_both_ways(model, data):
    X = np.tile(data.X[:1].to_numpy(dtype=np.float32), (33, 1))
    X[:, COLUMNS.index("season")] = np.linspace(-2, 2, 33)
    change = np.diff(model.predict(X))
    assert change.min() < 0 < change.max()


def test_probabilities_hold_on_members_not_seen(model):
    fresh = world(seed=9)
    p = model.predict(fresh.X.to_numpy(dtype=np.float32))
    n = len(p)
    # the mean of n draws has a standard error of at most sqrt(p (1 - p) / n), and so has what was learned from
    assert abs(p.mean() - fresh.churned.mean()) < 4 * np.sqrt(2 * 0.25 / n)
    for decile in np.array_split(np.argsort(p), 10):
        assert abs(p[decile].mean() - fresh.probability[decile].mean()) < 0.06
    assert auc(fresh.churned, p) > auc(fresh.churned, fresh.probability) - 0.02


def test_the_same_data_gives_the_same_bytes(model, data):
    again = fit_churn(data.X, data.churned, data.rows, FOLDS, PARAMETERS)
    assert bytes(again.booster.save_raw("json")) == bytes(model.booster.save_raw("json"))
    assert again.calibration == model.calibration


@pytest.mark.parametrize("fold", range(3))
def test_a_fold_is_predicted_from_earlier_dates_only(data, fold):
    as_of = data.rows["as_of"]
    judged = as_of.isin(FOLDS[fold].test).to_numpy()
    later = (as_of >= FOLDS[fold].test[0]).to_numpy()
    # what is not known yet is turned upside down: its labels, and the features after the fold
    poisoned = np.where(later, 1 - data.churned, data.churned)
    X = data.X.copy()
    X[later & ~judged] = 1e6
    np.testing.assert_array_equal(
        cross_predict(X, poisoned, FOLDS, as_of, PARAMETERS)[judged],
        cross_predict(data.X, data.churned, FOLDS, as_of, PARAMETERS)[judged],
    )


def test_dates_in_no_fold_have_no_prediction(data):
    p = cross_predict(data.X, data.churned, FOLDS, data.rows["as_of"], PARAMETERS)
    assert set(data.rows["as_of"][~np.isnan(p)]) == set(DATES[1:4])


def test_a_folds_loss_is_that_of_its_held_out_predictions(data):
    as_of = data.rows["as_of"]
    p = cross_predict(data.X, data.churned, FOLDS, as_of, PARAMETERS)
    wanted = [log_loss(data.churned[as_of == date], p[as_of == date]) for date in DATES[1:4]]
    assert list(fold_losses(data.X, data.churned, FOLDS, as_of, PARAMETERS)) == pytest.approx(wanted)


def test_folds_are_trained_one_after_the_other_so_that_a_bad_trial_stops_early(data, monkeypatch):
    trained = []
    monkeypatch.setattr(
        "training.churn.train_booster", lambda X, *rest: trained.append(len(X)) or train_booster(X, *rest)
    )
    losses = iter(fold_losses(data.X, data.churned, FOLDS, data.rows["as_of"], PARAMETERS))
    next(losses)
    assert len(trained) == 1


def test_the_logistic_rival_copes_with_missing_values():
    learn, test = world(seed=1), world(seed=2)
    X = test.X.copy()
    X.loc[:9] = np.nan  # rows of nothing
    p = logistic_rival(learn.X.mask(learn.X > 2.5), learn.churned, X)
    assert np.isfinite(p).all()
    assert ((p > 0) & (p < 1)).all()
    # it can't follow the swing of the season, so it stays below the truth, and far above chance
    assert 0.7 < auc(test.churned, p) < auc(test.churned, test.probability)
