"""Who is about to leave: a calibrated probability of no purchase within the horizon."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import xgboost as xgb
from numpy.typing import ArrayLike, NDArray

from features.errors import ContractError
from training.calibration import IDENTITY, Calibration, Isotonic, fit_platt
from training.judging.evidence import estimate
from training.learning.encoding import Encoding, fit_encoding
from training.metrics import auc, log_loss, log_losses
from training.shape import Floats, Matrix, Parameters, choose_shape
from training.splits import Flags, Fold, each_held_out, folds_of

# what the business knows: more silence never lowers the risk, more visits never raise it
MONOTONE: Final = {
    "recency_days": 1,
    "overdue_ratio": 1,
    "visits_28d": -1,
    "visits_56d": -1,
    "visits_84d": -1,
    "active_weeks_84d": -1,
}
FOLDS: Final = 5
FEWEST_MEMBERS: Final = 10  # of each class: two in each fold
LEAK: Final = 0.999  # AUC of one feature alone
SIGNS: Final[tuple[Literal[1, -1], ...]] = (1, -1)
FIRST: Final = float(np.finfo(np.float32).min)
LOGISTIC: Final = "logistic regression"
BEST_SINGLE: Final = "best single feature"
PURCHASES: Final = "BG/NBD expected purchases"
Boost = Callable[[Parameters], xgb.Booster]  # by XGBoost's parameters and `rounds`


@dataclass(frozen=True)
class ChurnModel:
    """Hold a booster, the calibration of its probabilities, and how a frame becomes what the booster reads."""

    booster: xgb.Booster
    calibration: Calibration
    encoding: Encoding
    parameters: Parameters

    def predict(self, X: pd.DataFrame | ArrayLike) -> Floats:
        """Give `churn_probability` `(n_members,)` for a frame with the columns of the training."""
        raw = self.booster.inplace_predict(self.encoding.matrix(X))
        return self.calibration(np.asarray(raw, dtype=np.float64))


def fit_churn(
    X: pd.DataFrame | ArrayLike,
    churned: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    folds: Sequence[Fold] | None = None,
    parameters: Parameters | None = None,
    rng: np.random.Generator | None = None,
    boost: Boost | None = None,
) -> ChurnModel:
    """Fit the booster on every row, and its calibration on predictions for rows it had not seen.

    Parameters
    ----------
    X : (n_rows, n_features) numbers, booleans or words known before the horizon; missing allowed
    churned : (n_rows,) 0 or 1
    clusters : (n_rows,) the member of each row, whose rows stay together in a fold. Each row its own if not given
    folds : rows to learn from and later rows to be judged on, the last fold the latest; drawn by member if not given
    parameters : XGBoost's, and `rounds`; chosen by the loss on held-out rows if not given
    rng : draws the folds; the same folds every time if not given
    boost : learns from every row at last, elsewhere than here

    Raises
    ------
    ContractError
        For lengths that differ, labels other than 0 and 1, too few rows of a class, infinite features, or a feature
        that knows the answer.
    """
    encoding = fit_encoding(X)
    matrix, outcome = encoding.matrix(X), np.asarray(churned, dtype=np.float64)
    members = np.arange(len(outcome)) if clusters is None else np.asarray(clusters)
    _check(matrix, outcome, members, encoding)
    data = Rows(matrix, outcome, encoding.names)
    if folds is None:
        fold = folds_of(members, FOLDS, rng or np.random.default_rng(0), outcome=outcome)
        folds = each_held_out(fold)
    if parameters is None:
        parameters = choose_shape(matrix, outcome, folds, fixed=_fixed(encoding.names), metric="logloss")
    probability = cross_predict(data, folds, parameters)
    last = folds[-1][1]
    fit = ~np.isnan(probability) & ~last
    calibration = choose_calibration(probability, outcome, members, fit=fit, judge=last)
    learned = train_booster(data, parameters) if boost is None else boost(_fixed(encoding.names) | parameters)
    return ChurnModel(learned, calibration, encoding, parameters)


@dataclass(frozen=True)
class Rows:
    """Hold what a booster learns from, as arrays of one length."""

    X: Matrix  # (n_rows, n_features)
    churned: Floats  # (n_rows,) 0 or 1
    names: tuple[str, ...]  # of the features, for the signs that are known

    def take(self, rows: Flags) -> "Rows":
        """Give some rows."""
        return Rows(self.X[rows], self.churned[rows], self.names)


def train_booster(rows: Rows, parameters: Parameters) -> xgb.Booster:
    """Boost trees on the log loss, monotone where the sign is known; classes are never reweighted."""
    tree = {name: value for name, value in parameters.items() if name != "rounds"}
    data = xgb.QuantileDMatrix(rows.X, rows.churned)
    return xgb.train({**_fixed(rows.names), **tree}, data, num_boost_round=parameters["rounds"])


def cross_predict(rows: Rows, folds: Sequence[Fold], parameters: Parameters) -> Floats:
    """Predict each fold's held-out rows by a model of its training rows; NaN for rows held out in none."""
    probability = np.full(len(rows.churned), np.nan)
    for train, test in folds:
        probability[test] = train_booster(rows.take(train), parameters).inplace_predict(rows.X[test])
    return probability


def fold_losses(rows: Rows, folds: Sequence[Fold], parameters: Parameters) -> Iterable[float]:
    """Give each fold's log loss, one after the other, so that a bad trial can be stopped early."""
    for train, test in folds:
        raw = train_booster(rows.take(train), parameters).inplace_predict(rows.X[test])
        yield log_loss(rows.churned[test], np.asarray(raw, dtype=np.float64))


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
    before = log_losses(churned[judge], probability[judge])
    gains = [
        estimate(
            before - log_losses(churned[judge], kind(probability[fit], churned[fit])(probability[judge])),
            members[judge],
        )
        for kind in kinds
    ]
    best = int(np.argmax([gain.value for gain in gains]))
    both = fit | judge
    return kinds[best](probability[both], churned[both]) if gains[best].lower > 0 else IDENTITY


def fit_isotonic(probability: Floats, churned: Floats) -> Isotonic:
    """Fit a non-decreasing map by pool-adjacent-violators."""
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(out_of_bounds="clip").fit(probability, churned)
    return Isotonic(tuple(map(float, fitted.X_thresholds_)), tuple(map(float, fitted.y_thresholds_)))


def rivals(
    X: pd.DataFrame | ArrayLike,
    churned: ArrayLike,
    X_test: pd.DataFrame | ArrayLike,
    *,
    expected_purchases: Floats | None = None,
) -> dict[str, Floats]:
    """Predict the test rows as one would without this product; each `(n_test,)`, higher for more risk.

    Parameters
    ----------
    X, churned, X_test : as for `fit_churn`
    expected_purchases : (n_test,) within the horizon, from transactions alone, where there are these: fewer, more risk
    """
    encoding, outcome = fit_encoding(X), np.asarray(churned, dtype=np.float64)
    learn, test = encoding.matrix(X), encoding.matrix(X_test)
    best = best_single_feature(learn, outcome)
    found = {
        LOGISTIC: logistic_rival(learn, outcome, test),
        f"{BEST_SINGLE} ({encoding.names[best.place]})": best.score(test),
    }
    return found if expected_purchases is None else found | {PURCHASES: -expected_purchases}


def logistic_rival(X: Matrix, churned: Floats, X_test: Matrix) -> Floats:
    """Predict by logistic regression on the same features: signed logs, medians for missing, standardised."""
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    model = make_pipeline(
        FunctionTransformer(lambda values: np.sign(values) * np.log1p(np.abs(values))),
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(C=0.05, max_iter=500),
    )
    model.fit(X.astype(np.float64), churned)
    return np.asarray(model.predict_proba(X_test.astype(np.float64))[:, 1])


@dataclass(frozen=True)
class SingleFeature:
    """Hold which column ranks who left best, which way round, and where its missing values rank."""

    place: int
    sign: Literal[1, -1]
    missing: float
    auc: float

    def score(self, X: Matrix) -> Floats:
        """Score rows `(n_rows,)`, higher for more risk."""
        return self.sign * np.nan_to_num(X[:, self.place].astype(np.float64), nan=self.missing)


def best_single_feature(X: Matrix, churned: Floats) -> SingleFeature:
    """Find the column that alone ranks who left best, on the rows that are learned from."""
    every = [
        SingleFeature(place, sign, missing, ranked if sign > 0 else 1 - ranked)
        for place, column in enumerate(X.T)
        for missing, ranked in _rankings(column, churned)
        for sign in SIGNS
    ]
    return max(every, key=lambda feature: feature.auc)


def _fixed(names: Sequence[str]) -> Parameters:
    signs = tuple(MONOTONE.get(name, 0) for name in names)
    return {"objective": "binary:logistic", "monotone_constraints": signs, "seed": 0}


def _check(X: Matrix, churned: Floats, members: NDArray[Any], encoding: Encoding) -> None:
    lengths = {"X": len(X), "churned": len(churned), "clusters": len(members)}
    if len(set(lengths.values())) > 1:
        raise ContractError(f"rows of {lengths} came, one length for all was wanted")
    strange = np.unique(churned[~np.isin(churned, (0, 1))])[:3].tolist()
    if strange:
        raise ContractError(f"labels {strange} came; wanted 0 for a member who stayed and 1 for one who left")
    left, stayed = (len(np.unique(members[churned == label])) for label in (1, 0))
    if min(left, stayed) < FEWEST_MEMBERS:
        raise ContractError(
            f"{left} members left and {stayed} stayed; at least {FEWEST_MEMBERS} of each were wanted to learn from and "
            f"to be judged on; take a longer history or another horizon"
        )
    knows = [
        name
        for name, column in zip(encoding.names, X.T, strict=True)
        if max(max(ranked, 1 - ranked) for _, ranked in _rankings(column, churned)) > LEAK
    ]
    if knows:
        raise ContractError(
            f"columns {knows} tell who left without a doubt, so they were written afterwards; leave them out, or bring "
            f"them as they were at the time: of subscriptions a row for every term, and not the last end alone"
        )


def _rankings(column: NDArray[np.float32], churned: Floats) -> list[tuple[float, float]]:
    """Say how well a feature ranks who left, with missing values ranked first, and last."""
    ends = (FIRST, -FIRST) if np.isnan(column).any() else (FIRST,)
    return [(end, auc(churned, np.nan_to_num(column, nan=end))) for end in ends]
