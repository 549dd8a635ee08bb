"""Shares from a table are the library's, and those of a row are the same whoever is beside it."""

import numpy as np
import pytest
import xgboost as xgb

from training.prediction import contributions
from training.shares import shares_of

FEATURES = 6


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(600, FEATURES)).astype(np.float32).round(1)  # many lie right on a threshold
    X[rng.random(X.shape) < 0.2] = np.nan
    return X


@pytest.fixture(scope="module")
def trained(rows):
    risk = np.nan_to_num(rows[:, 0]) + np.nan_to_num(rows[:, 1]) * np.nan_to_num(rows[:, 2])
    churned = (risk > np.random.default_rng(4).normal(size=len(rows))).astype(float)

    def trained(**settings):
        parameters = {"objective": "binary:logistic", "nthread": 1, "eta": 0.2, **settings}
        return xgb.train(parameters, xgb.DMatrix(rows, churned), num_boost_round=40)

    return trained


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_they_are_what_the_library_finds_tree_by_tree(rows, trained, depth):
    booster = trained(max_depth=depth)
    shares = shares_of(booster)
    assert type(shares).__name__ == "_Table"
    np.testing.assert_allclose(shares(rows), contributions(booster, rows), atol=1e-5)


def test_a_feature_that_comes_again_on_a_way_is_one(rows, trained):
    booster = trained(max_depth=6, interaction_constraints="[[0, 1], [2]]")  # long ways, two features on each
    shares = shares_of(booster)
    assert type(shares).__name__ == "_Table"
    np.testing.assert_allclose(shares(rows), contributions(booster, rows), atol=1e-5)


def test_a_rows_shares_are_to_the_bit_its_own(rows, trained):
    shares = shares_of(trained(max_depth=3))
    together = shares(rows)
    assert all((shares(rows[place : place + 1]) == together[place]).all() for place in range(0, 600, 7))
    assert (shares(rows[5:60]) == together[5:60]).all()


@pytest.mark.filterwarnings("ignore:.*booster=dart. is deprecated")
@pytest.mark.parametrize("settings", [{"max_depth": 5}, {"booster": "dart"}, {"max_depth": 1, "gamma": 1e9}])
def test_what_no_table_is_made_of_is_left_to_the_library(rows, trained, settings):
    booster = trained(**settings)
    shares = shares_of(booster)
    assert type(shares).__name__ == "partial"
    assert (shares(rows) == contributions(booster, rows)).all()
