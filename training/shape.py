"""Which trees, and how many: chosen by the loss on held-out rows where nobody tuned.

Library defaults lose to logistic regression on data of this kind. Three shapes are tried, because none is best
everywhere: shallow trees with heavy leaves where much is noise, deeper ones on large clean sets, and deep ones with
hardly a limit on leaves where little is noise but few members, or few of those who leave, are there: a leaf weighs the
sum of p (1 - p) over its members, which is little for any number of them where p is small.
"""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from training.splits import Fold

Parameters = dict[str, Any]
Matrix = NDArray[np.float32]
Floats = NDArray[np.float64]

MOST_ROUNDS: Final = 600
PATIENCE: Final = 50  # rounds without a lower loss, after which more are not tried
SHALLOW: Final[Parameters] = {
    "max_depth": 3,
    "learning_rate": 0.05,
    "min_child_weight": 10.0,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "reg_lambda": 5.0,
}
DEEP: Final[Parameters] = SHALLOW | {"max_depth": 5, "min_child_weight": 3.0, "colsample_bytree": 0.6}
FINE: Final[Parameters] = SHALLOW | {"max_depth": 6, "min_child_weight": 0.3, "reg_lambda": 1.0}


def choose_shape(
    X: Matrix,
    outcome: Floats,
    folds: Sequence[Fold],
    *,
    fixed: Parameters,
    metric: str,
    weight: Floats | None = None,
) -> Parameters:
    """Give the parameters, `rounds` among them, with the lowest mean loss over folds.

    Parameters
    ----------
    X : (n_rows, n_features)
    outcome : (n_rows,)
    fixed : what every trial has, such as the objective
    metric : the loss, by XGBoost's name
    weight : (n_rows,) how much a row counts; one as much as the other if not given
    """
    data = xgb.DMatrix(X, outcome, weight=weight)
    places = [(np.flatnonzero(train), np.flatnonzero(test)) for train, test in folds]
    tried: list[tuple[float, Parameters]] = []
    for shape in (SHALLOW, DEEP, FINE):
        losses = xgb.cv(
            {**fixed, **shape},
            data,
            num_boost_round=MOST_ROUNDS,
            folds=places,
            metrics=metric,
            early_stopping_rounds=PATIENCE,
        )[f"test-{metric}-mean"].to_numpy()
        tried.append((float(losses.min()), shape | {"rounds": int(losses.argmin()) + 1}))
    return min(tried, key=lambda trial: trial[0])[1]
