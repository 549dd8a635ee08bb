"""The tables a model is judged by: every figure out of time, with its interval, beside its rivals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.judging.estimators import Log
from training.judging.uplift_metrics import RANKING_METRICS, calibration_bins, ranking_metrics, uplift_calibration_error
from training.metrics import (
    Estimate,
    Metric,
    auc,
    average_precision,
    bootstrap,
    bootstrap_all,
    brier_loss,
    calibration_error,
    lift,
    log_loss,
    mean_absolute_error,
    paired_bootstrap,
    r_squared,
    root_mean_squared_error,
)

Floats = NDArray[np.float64]
MODEL: Final = "model"  # the row of the product's own model; every other row is a rival
RANDOM: Final = "random"
BY_CHURN: Final = "churn probability"  # as a ranking for uplift, the usual rival: treat who is likeliest to leave
CHURN_METRICS: Final = {
    "auc": auc,
    "average_precision": average_precision,
    "lift": lift,  # at a tenth
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
            if metric in {"auc", "average_precision", "lift"} or _is_probability(values)
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


def judge_uplift(
    log: Log, predictions: Mapping[str, Floats], *, offers: Sequence[str], rng: np.random.Generator
) -> dict[str, Judged]:
    """Judge predicted uplift offer by offer, on who got it and who got nothing, beside a random ranking.

    A lead is the difference of the Qini coefficients. All rows of a table stand on the same draws of members.

    Parameters
    ----------
    log : treatment 0 is control, 1 + j is `offers[j]`
    predictions : by name, `MODEL` among them: uplift (n, n_offers), or a ranking of members (n,) that is judged by its
        order alone, such as the churn probability ("treat the likeliest to leave")
    """
    by_row = {**predictions, RANDOM: np.zeros(len(log))}
    tables = {}
    for arm, offer in enumerate(offers, 1):
        rows = np.isin(log.treatment, (0, arm))
        scores = {name: (v[rows] if v.ndim == 1 else v[rows, arm - 1]) for name, v in by_row.items()}
        promises = [name for name, v in by_row.items() if v.ndim > 1]
        tables[offer] = _judge_offer(log.take(rows), scores, promises, rng)
    return tables


def _judge_offer(log: Log, scores: Mapping[str, Floats], promises: Sequence[str], rng: np.random.Generator) -> Judged:
    treated, inverse = (log.treatment > 0).astype(np.float64), 1 / log.propensity
    model = list(scores).index(MODEL)

    def table(outcome: Floats, *columns: Floats, weight: Floats | None) -> Floats:
        *ranked, treated, inverse = columns
        w = inverse if weight is None else inverse * weight
        rows = np.array([list(ranking_metrics(outcome, score, treated, weight=w).values()) for score in ranked])
        return np.column_stack([rows, rows[model, 0] - rows[:, 0]])

    drawn = bootstrap_all(table, log.outcome, *scores.values(), treated, inverse, clusters=log.member_ids, rng=rng)
    found = {
        name: [Estimate(value, lower, upper, len(log)) for value, lower, upper in zip(*numbers, strict=True)]
        for name, *numbers in zip(scores, *(part.tolist() for part in drawn), strict=True)
    }
    rows = {name: dict(zip(RANKING_METRICS, estimates[:-1], strict=True)) for name, estimates in found.items()}
    calibration = partial(_calibration, bins=calibration_bins(treated))
    for name in promises:
        rows[name]["uplift_calibration_error"] = bootstrap(
            calibration, log.outcome, scores[name], treated, inverse, clusters=log.member_ids, rng=rng
        )
    return Judged(rows, {name: estimates[-1] for name, estimates in found.items() if name != MODEL})


def _calibration(
    outcome: Floats, uplift: Floats, treated: Floats, inverse: Floats, *, weight: Floats | None, bins: int
) -> float:
    w = inverse if weight is None else inverse * weight
    return uplift_calibration_error(outcome, uplift, treated, weight=w, bins=bins)


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
