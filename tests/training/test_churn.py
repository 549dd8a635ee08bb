from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from features.errors import ContractError
from training.calibration import sigmoid
from training.churn import (
    MONOTONE,
    Rows,
    best_single_feature,
    cross_predict,
    fit_churn,
    fold_losses,
    rivals,
    train_booster,
)
from training.metrics import auc, log_loss
from training.splits import Split, row_folds

DATES = tuple(datetime(2017, 1, 1, tzinfo=UTC) + timedelta(days=28 * i) for i in range(5))
FOLDS = [Split(DATES[: i + 1], (DATES[i + 1],)) for i in range(3)]
PARAMETERS = {"max_depth": 3, "learning_rate": 0.1, "rounds": 60, "subsample": 0.8, "nthread": 1}
COLUMNS = [*MONOTONE, "season"]


class World(NamedTuple):
    X: pd.DataFrame
    probability: np.ndarray
    churned: np.ndarray
    rows: pd.DataFrame

    @property
    def folds(self):
        return row_folds(FOLDS, self.rows["as_of"])


def as_rows(X, churned):
    return Rows(X.to_numpy(dtype=np.float32), churned, tuple(X.columns))


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
    return fit_churn(data.X, data.churned, clusters=data.rows["member_id"], folds=data.folds, parameters=PARAMETERS)


def test_what_learns_from_every_row_elsewhere_is_told_the_same_parameters(model, data):
    asked = []

    def boost(parameters):
        asked.append(parameters)
        return model.booster

    found = fit_churn(data.X, data.churned, clusters=data.rows["member_id"], parameters=PARAMETERS, boost=boost)
    signs = tuple(MONOTONE.get(name, 0) for name in COLUMNS)
    assert asked == [PARAMETERS | {"objective": "binary:logistic", "monotone_constraints": signs, "seed": 0}]
    assert found.booster is model.booster


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
    p = model.predict(fresh.X)
    n = len(p)
    # the mean of n draws has a standard error of at most sqrt(p (1 - p) / n), and so has what was learned from
    assert abs(p.mean() - fresh.churned.mean()) < 4 * np.sqrt(2 * 0.25 / n)
    for decile in np.array_split(np.argsort(p), 10):
        assert abs(p[decile].mean() - fresh.probability[decile].mean()) < 0.06
    assert auc(fresh.churned, p) > auc(fresh.churned, fresh.probability) - 0.02


def test_the_same_data_gives_the_same_bytes(model, data):
    again = fit_churn(data.X, data.churned, clusters=data.rows["member_id"], folds=data.folds, parameters=PARAMETERS)
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
        cross_predict(as_rows(X, poisoned), data.folds, PARAMETERS)[judged],
        cross_predict(as_rows(data.X, data.churned), data.folds, PARAMETERS)[judged],
    )


def test_dates_in_no_fold_have_no_prediction(data):
    p = cross_predict(as_rows(data.X, data.churned), data.folds, PARAMETERS)
    assert set(data.rows["as_of"][~np.isnan(p)]) == set(DATES[1:4])


def test_a_folds_loss_is_that_of_its_held_out_predictions(data):
    as_of = data.rows["as_of"]
    p = cross_predict(as_rows(data.X, data.churned), data.folds, PARAMETERS)
    wanted = [log_loss(data.churned[as_of == date], p[as_of == date]) for date in DATES[1:4]]
    assert list(fold_losses(as_rows(data.X, data.churned), data.folds, PARAMETERS)) == pytest.approx(wanted)


def test_folds_are_trained_one_after_the_other_so_that_a_bad_trial_stops_early(data, monkeypatch):
    trained = []
    monkeypatch.setattr(
        "training.churn.train_booster", lambda rows, *rest: trained.append(len(rows.X)) or train_booster(rows, *rest)
    )
    losses = iter(fold_losses(as_rows(data.X, data.churned), data.folds, PARAMETERS))
    next(losses)
    assert len(trained) == 1


def test_the_logistic_rival_copes_with_missing_values():
    learn, test = world(seed=1), world(seed=2)
    X = test.X.copy()
    X.loc[:9] = np.nan  # rows of nothing
    p = rivals(learn.X.mask(learn.X > 2.5), learn.churned, X)["logistic regression"]
    assert np.isfinite(p).all()
    assert ((p > 0) & (p < 1)).all()
    # it can't follow the swing of the season, so it stays below the truth, and far above chance
    assert 0.7 < auc(test.churned, p) < auc(test.churned, test.probability)


def test_the_best_single_feature_is_chosen_where_it_is_learned():
    learn, test = world(seed=1), world(seed=2)
    noise = np.random.default_rng(0).normal(size=len(test.X))
    X, X_test = learn.X.assign(lucky=noise), test.X.assign(lucky=test.churned)  # knows the answer in the test alone
    found = rivals(X, learn.churned, X_test)
    assert list(found) == ["logistic regression", "best single feature (recency_days)"]
    ranks = auc(test.churned, found["best single feature (recency_days)"])
    assert ranks == pytest.approx(auc(test.churned, test.X["recency_days"].fillna(-9)), abs=0.01)


@pytest.mark.parametrize(("sign", "missing"), [(1, 0), (1, 1), (-1, 0), (-1, 1)])
def test_a_single_feature_ranks_the_way_round_that_its_gaps_and_values_say(sign, missing):
    rng = np.random.default_rng(0)
    churned = (rng.random(2000) < 0.5).astype(float)
    column = sign * churned + rng.normal(size=2000)
    column[rng.random(2000) < 0.6 * (churned == missing)] = np.nan
    X = np.column_stack([rng.normal(size=2000), column]).astype(np.float32)
    best = best_single_feature(X, churned)
    assert best.place == 1
    assert best.auc == pytest.approx(auc(churned, best.score(X)))
    assert best.auc > 0.7


def test_rivals_read_words_and_say_few_expected_purchases_are_a_risk():
    X, churned = plain()
    expected = np.random.default_rng(0).random(50)
    found = rivals(X, churned, X[:50], expected_purchases=expected)
    assert [len(prediction) for prediction in found.values()] == [50, 50, 50]
    np.testing.assert_array_equal(found["BG/NBD expected purchases"], -expected)
    assert auc(churned[:50], found["logistic regression"]) > 0.7


def plain(n=600, seed=0):
    """Draw what a person brings from elsewhere: numbers, flags, words, numbers written as text, gaps."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "tenure": rng.integers(1, 72, n),
            "charges": [f" {value:.2f}" if value > 25 else " " for value in rng.uniform(20, 110, n)],
            "paperless": rng.random(n) < 0.6,
            "plan": pd.Categorical(rng.choice(["monthly", "yearly", "two years"], n)),
            "region": pd.Series(rng.choice(["north", "south", None], n), dtype="string"),
            "score": pd.array(np.where(rng.random(n) < 0.1, None, rng.normal(size=n)), dtype="Float64"),
        }
    )
    logit = 1.5 - 0.05 * frame["tenure"] - 1.5 * (frame["plan"] != "monthly") + 0.8 * frame["paperless"]
    churned = rng.random(n) < sigmoid(logit.to_numpy(dtype=np.float64))
    return frame, churned


def test_any_frame_is_enough_and_gives_probabilities_that_hold():
    model = fit_churn(*plain())
    X, churned = plain(4000, seed=1)
    p = model.predict(X)
    assert p.shape == (4000,)
    assert auc(churned, p) > 0.78  # the truth itself ranks at 0.82
    assert abs(p.mean() - churned.mean()) < 0.05


def test_the_choice_is_the_same_every_time_and_rows_may_come_as_an_array():
    X, churned = plain()
    again = fit_churn(X, churned)
    assert bytes(again.booster.save_raw("json")) == bytes(fit_churn(X, churned).booster.save_raw("json"))
    numbers = X[["tenure", "paperless"]].to_numpy(dtype=np.float64)
    one, two = fit_churn(numbers, churned), fit_churn(X[["tenure", "paperless"]], churned)
    np.testing.assert_array_equal(one.predict(numbers), two.predict(X))


def test_a_word_never_seen_is_none_of_those_seen():
    X, churned = plain()
    model = fit_churn(X, churned)
    strange = X.assign(plan="lifetime")
    spoken = strange.assign(plan="none of them either")
    np.testing.assert_array_equal(model.predict(strange), model.predict(spoken))
    assert np.isfinite(model.predict(strange)).all()


def test_noise_gets_the_base_rate_and_rare_outcomes_a_loss_no_worse_than_it():
    rng = np.random.default_rng(3)
    X, churned = rng.normal(size=(3000, 20)), rng.random(3000) < 0.03
    fresh, followed = rng.normal(size=(3000, 20)), rng.random(3000) < 0.03
    p = fit_churn(X, churned).predict(fresh)
    assert log_loss(followed, p) < log_loss(followed, np.full(3000, churned.mean())) * 1.03


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda X, y: (X, y * 0.0), "0 members left and 600 stayed"),
        (lambda X, y: (X[:12], y[:12]), "at least 10 of each"),
        (lambda X, y: (X.assign(tenure=np.inf), y), "'tenure'.*infinite"),
        (lambda X, y: (X.assign(cancelled_on_file=y), y), "cancelled_on_file.*written afterwards"),
        (lambda X, y: (X.assign(reason=np.where(y, 1.0, np.nan)), y), "reason.*written afterwards"),
        (lambda X, y: (X, y * 2.0), r"labels \[2.0\]"),
        (lambda X, y: (X, np.where(y, np.nan, 0.0)), r"labels \[nan\]"),
        (lambda X, y: (X, y[:-1]), "one length"),
        (lambda X, y: (X.assign(at=pd.Timestamp("2020-01-01")), y), "'at'.*times"),
        (lambda X, y: (X[[]], y), "shape"),
    ],
)
def test_what_can_not_be_learnt_from_is_refused_with_its_reason(spoil, said):
    X, churned = plain()
    with pytest.raises(ContractError, match=said):
        fit_churn(*spoil(X, churned))


def test_a_frame_that_lacks_a_column_or_says_it_otherwise_is_refused():
    X, churned = plain()
    model = fit_churn(X, churned)
    with pytest.raises(ContractError, match=r"\['plan'\] are missing"):
        model.predict(X.drop(columns="plan"))
    with pytest.raises(ContractError, match="'tenure' held numbers"):
        model.predict(X.assign(tenure="long"))


def test_constant_columns_and_shuffled_columns_change_nothing():
    X, churned = plain()
    model = fit_churn(X.assign(constant=1.0), churned)
    more = X.assign(constant=1.0, further="x")
    np.testing.assert_array_equal(model.predict(more[sorted(more)]), model.predict(more))
