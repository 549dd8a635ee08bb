"""What a member is worth within the horizon: expected margin without an offer, zero-inflated as spend is."""

from typing import Any, Final

import numpy as np
import pandas as pd
import xgboost as xgb
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# A Tweedie loss with a power between 1 and 2 is a compound Poisson of gammas: some members bring nothing, the others
# an amount with a long tail (Jorgensen and Paes de Souza, 1994). Its mean is what money needs, so no median loss.
PARAMETERS: Final[dict[str, Any]] = {
    "objective": "reg:tweedie",
    "tweedie_variance_power": 1.4,
    "max_depth": 4,
    "learning_rate": 0.05,
    "min_child_weight": 1000.0,
    "subsample": 0.8,
    "colsample_bytree": 0.6,
    "reg_lambda": 5.0,
    "seed": 0,
}
ROUNDS: Final = 200


def fit_value(X: pd.DataFrame, margin: Floats) -> xgb.Booster:
    """Fit expected margin `(n_members,)` in minor units; a negative one (more refunds than sales) counts as nothing."""
    data = xgb.QuantileDMatrix(X.to_numpy(dtype=np.float32), np.maximum(margin, 0.0))
    return xgb.train(PARAMETERS, data, num_boost_round=ROUNDS)


def predict_value(booster: xgb.Booster, X: NDArray[np.float32]) -> Floats:
    """Predict margin within the horizon, `(n_members,)`, in minor units."""
    return np.asarray(booster.inplace_predict(X), dtype=np.float64)
