"""The tables a model is judged by: every figure out of time, with its interval, beside its rivals."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.metrics import (
    Estimate,
    Metric,
    auc,
    average_precision,
    bootstrap,
    brier_loss,
    calibration_error,
    log_loss,
    mean_absolute_error,
    paired_bootstrap,
    r_squared,
    root_mean_squared_error,
)

Floats = NDArray[np.float64]
MODEL: Final = "model"  # the row of the product's own model; every other row is a rival
CHURN_METRICS: Final = {
    "auc": auc,
    "average_precision": average_precision,
    "log_loss": log_loss,
    "brier_loss": brier_loss,
    "calibration_error": calibration_error,
}
VALUE_METRICS: Final = {
    "mean_absolute_error": mean_absolute_error,
    "root_mean_squared_error": root_mean_squared_error,
    "r_squared": r_squared,
}


@dataclass(frozen=True)
class Judged:
    """Hold a table, row -> metric -> estimate, and how far the model leads each rival in the table's first metric."""

    rows: dict[str, dict[str, Estimate]]
    lead: dict[str, Estimate]


def judge_churn(
    churned: Floats, predictions: Mapping[str, Floats], members: NDArray[Any], rng: np.random.Generator
) -> Judged:
    """Set the model beside its rivals; a score that is no probability is judged by its ranking alone."""
    rows = {
        name: {
            metric: bootstrap(compute, churned, values, clusters=members, rng=rng)
            for metric, compute in CHURN_METRICS.items()
            if metric in {"auc", "average_precision"} or _is_probability(values)
        }
        for name, values in predictions.items()
    }
    lead = _lead(auc, churned, predictions, members, rng=rng)
    return Judged(rows, lead)


def judge_value(
    margin: Floats, predictions: Mapping[str, Floats], members: NDArray[Any], rng: np.random.Generator
) -> Judged:
    """Set expected margin beside its rivals; a lead below 0 is an error made smaller."""
    rows = {
        name: {
            metric: bootstrap(compute, margin, values, clusters=members, rng=rng)
            for metric, compute in VALUE_METRICS.items()
        }
        for name, values in predictions.items()
    }
    lead = _lead(mean_absolute_error, margin, predictions, members, rng=rng)
    return Judged(rows, lead)


def _lead(
    metric: Metric,
    outcome: Floats,
    predictions: Mapping[str, Floats],
    members: NDArray[Any],
    *,
    rng: np.random.Generator,
) -> dict[str, Estimate]:
    return {
        rival: paired_bootstrap(metric, outcome, model=predictions[MODEL], rival=values, clusters=members, rng=rng)
        for rival, values in predictions.items()
        if rival != MODEL
    }


def _is_probability(values: Floats) -> bool:
    return bool((values >= 0).all() and (values <= 1).all())
