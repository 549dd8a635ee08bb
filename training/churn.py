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
from training.calibration import EDGE, IDENTITY, Calibration, Isotonic, fit_platt
from training.metrics import log_loss
from training.ope import estimate
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


def fit_churn(
    X: pd.DataFrame, churned: Floats, rows: pd.DataFrame, folds: Sequence[Split], parameters: dict[str, Any]
) -> ChurnModel:
    """Fit the booster on every row, and its calibration on predictions for dates later than their training.

    Parameters
    ----------
    X : (n_members, n_features)
    churned : (n_members,) 0 or 1
    rows : (n_members,) member_id and as_of of each row; `folds` split by the latter
    """
    as_of = rows["as_of"]
    probability = cross_predict(X, churned, folds, as_of, parameters)
    seen = ~np.isnan(probability)
    last = seen & as_of.isin(folds[-1].test).to_numpy()
    calibration = choose_calibration(probability, churned, rows["member_id"].to_numpy(), fit=seen & ~last, judge=last)
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


def cross_predict(
    X: pd.DataFrame, churned: Floats, folds: Sequence[Split], as_of: pd.Series, parameters: dict[str, Any]
) -> Floats:
    """Predict each fold's test dates by a model of its training dates; NaN for dates in no fold."""
    probability = np.full(len(X), np.nan)
    for train, test in _masks(folds, as_of):
        booster = train_booster(X[train], churned[train], parameters)
        probability[test] = booster.inplace_predict(X[test].to_numpy(dtype=np.float32))
    return probability


def fold_losses(
    X: pd.DataFrame, churned: Floats, folds: Sequence[Split], as_of: pd.Series, parameters: dict[str, Any]
) -> Iterable[float]:
    """Give each fold's log loss, one after the other, so that a bad trial can be stopped early."""
    for train, test in _masks(folds, as_of):
        booster = train_booster(X[train], churned[train], parameters)
        probability = np.asarray(booster.inplace_predict(X[test].to_numpy(dtype=np.float32)), dtype=np.float64)
        yield log_loss(churned[test], probability)


def choose_calibration(
    probability: Floats, churned: Floats, members: NDArray[Any], *, fit: NDArray[np.bool_], judge: NDArray[np.bool_]
) -> Calibration:
    """Take Platt's or the isotonic map, refitted on all rows, if it lowers the log loss on later dates beyond chance.

    Boosting on the log loss is often calibrated as it is, and a map learned in one season can make the next one worse:
    so the gain's 95 % interval, by member, has to lie above 0.
    """
    if not fit.any():
        return IDENTITY
    kinds = (fit_platt, fit_isotonic)
    before = _losses(churned[judge], probability[judge])
    gains = [
        estimate(
            before - _losses(churned[judge], kind(probability[fit], churned[fit])(probability[judge])), members[judge]
        )
        for kind in kinds
    ]
    best = int(np.argmax([gain.value for gain in gains]))
    both = fit | judge
    return kinds[best](probability[both], churned[both]) if gains[best].lower > 0 else IDENTITY


def _losses(churned: Floats, probability: Floats) -> Floats:
    p = np.clip(probability, EDGE, 1 - EDGE)
    return np.asarray(-np.where(churned > 0, np.log(p), np.log1p(-p)))


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
