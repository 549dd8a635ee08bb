"""Who is about to leave: a calibrated probability of no purchase within the horizon."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import pandas as pd
import xgboost as xgb
from numpy.typing import NDArray

from training.artifacts import Matrix
from training.calibration import IDENTITY, Calibration, Isotonic, fit_platt
from training.metrics import log_loss
from training.splits import Split

Floats = NDArray[np.float64]

# what the business knows: more silence never lowers the risk, more visits never raise it
MONOTONE: Final = {
    "recency_days": 1,
    "overdue_ratio": 1,
    "visits_28d": -1,
    "visits_56d": -1,
    "visits_84d": -1,
    "active_weeks_84d": -1,
}
BEST_SINGLE_FEATURE: Final = "visits_56d"  # the rival everybody has: fewer visits in the last 8 weeks, more risk


@dataclass(frozen=True)
class ChurnModel:
    """Hold a booster and the calibration of its probabilities."""

    booster: xgb.Booster
    calibration: Calibration

    def predict(self, X: Matrix) -> Floats:
        """Give `churn_probability` `(n_members,)`."""
        return self.calibration(np.asarray(self.booster.inplace_predict(X), dtype=np.float64))


def fit_churn(X: pd.DataFrame, churned: Floats, folds: Sequence[Split], as_of: pd.Series, parameters: dict[str, Any]) -> ChurnModel:
    """Fit the booster on every row, and its calibration on predictions for dates later than their training.

    Parameters
    ----------
    X : (n_members, n_features)
    churned : (n_members,) 0 or 1
    as_of : (n_members,) the date of each row, which `folds` split
    """
    probability = cross_predict(X, churned, folds, as_of, parameters)
    seen = ~np.isnan(probability)
    last = seen & as_of.isin(folds[-1].test).to_numpy()
    calibration = choose_calibration(probability, churned, fit=seen & ~last, judge=last)
    return ChurnModel(train_booster(X, churned, parameters), calibration)


def train_booster(X: pd.DataFrame, churned: Floats, parameters: dict[str, Any]) -> xgb.Booster:
    """Boost trees on the log loss, monotone where the sign is known; classes are never reweighted."""
    tree = {name: value for name, value in parameters.items() if name != "rounds"}
    signs = tuple(MONOTONE.get(name, 0) for name in X.columns)
    data = xgb.QuantileDMatrix(X.to_numpy(dtype=np.float32), churned)
    return xgb.train(
        {**tree, "objective": "binary:logistic", "monotone_constraints": signs, "seed": 0},
        data,
        num_boost_round=parameters["rounds"],
    )


def cross_predict(X: pd.DataFrame, churned: Floats, folds: Sequence[Split], as_of: pd.Series, parameters: dict[str, Any]) -> Floats:
    """Predict each fold's test dates by a model of its training dates; NaN for dates in no fold."""
    probability = np.full(len(X), np.nan)
    for train, test in _masks(folds, as_of):
        booster = train_booster(X[train], churned[train], parameters)
        probability[test] = booster.inplace_predict(X[test].to_numpy(dtype=np.float32))
    return probability


def fold_losses(X: pd.DataFrame, churned: Floats, folds: Sequence[Split], as_of: pd.Series, parameters: dict[str, Any]) -> Iterable[float]:
    """Give each fold's log loss, one after the other, so that a bad trial can be stopped early."""
    for train, test in _masks(folds, as_of):
        booster = train_booster(X[train], churned[train], parameters)
        probability = np.asarray(booster.inplace_predict(X[test].to_numpy(dtype=np.float32)), dtype=np.float64)
        yield log_loss(churned[test], probability)


def choose_calibration(probability: Floats, churned: Floats, *, fit: NDArray[np.bool_], judge: NDArray[np.bool_]) -> Calibration:
    """Take no map, Platt's or the isotonic one: whichever has the lowest log loss on later dates, refitted on all of them.

    Boosting on the log loss is often calibrated as it is, and a map learned in another season can make it worse.
    """
    kinds = (lambda p, y: IDENTITY, fit_platt, fit_isotonic)
    if not fit.any():
        return IDENTITY
    losses = [log_loss(churned[judge], kind(probability[fit], churned[fit])(probability[judge])) for kind in kinds]
    both = fit | judge
    return kinds[int(np.argmin(losses))](probability[both], churned[both])


def fit_isotonic(probability: Floats, churned: Floats) -> Isotonic:
    """Fit a non-decreasing map by pool-adjacent-violators."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(out_of_bounds="clip").fit(probability, churned)
    return Isotonic(tuple(map(float, fitted.X_thresholds_)), tuple(map(float, fitted.y_thresholds_)))


def logistic_rival(X: pd.DataFrame, churned: Floats, X_test: pd.DataFrame) -> Floats:
    """Predict by logistic regression on the same features: signed logs, medians for missing, standardised."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    model = make_pipeline(
        FunctionTransformer(lambda values: np.sign(values) * np.log1p(np.abs(values))),
        SimpleImputer(strategy="median", add_indicator=True),
        StandardScaler(),
        LogisticRegression(C=0.05, max_iter=500),
    )
    model.fit(X.to_numpy(dtype=np.float64), churned)
    return np.asarray(model.predict_proba(X_test.to_numpy(dtype=np.float64))[:, 1])


def _masks(folds: Sequence[Split], as_of: pd.Series) -> Iterable[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    for fold in folds:
        yield _among(as_of, fold.train), _among(as_of, fold.test)


def _among(as_of: pd.Series, dates: Sequence[datetime]) -> NDArray[np.bool_]:
    return as_of.isin(list(dates)).to_numpy()
