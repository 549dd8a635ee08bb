"""What a release says of its offers: plain numbers and one booster, with nothing of how they came about."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from training.prediction import predict

Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Student:
    """Hold a booster of standardised targets, and of each, `(n_outputs,)`, what it takes to read what it says."""

    booster: xgb.Booster
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    lowest: tuple[float, ...]  # that its teacher said of anybody
    highest: tuple[float, ...]

    def predict(self, X: Matrix) -> Floats:
        """Predict every target, `(n_rows, n_outputs)`, in its own unit and nowhere beyond what its teacher said."""
        said = predict(self.booster, X).astype(np.float64).reshape(len(X), -1)
        return np.clip(said * self.spread + self.mean, self.lowest, self.highest)

    def to_json(self) -> dict[str, Any]:
        """Give all but the booster as JSON values."""
        return {name: list(value) for name, value in vars(self).items() if name != "booster"}


@dataclass(frozen=True)
class EffectBands:
    """Hold one offer's mean effect by band of served uplift, lowest first: plain numbers that a release can carry."""

    edges: tuple[float, ...]  # (n_bands - 1,) ascending; an uplift at an edge belongs to the band below
    effect: tuple[float, ...]  # (n_bands,) in the outcome's unit
    error: tuple[float, ...]  # (n_bands,) standard errors


@dataclass(frozen=True)
class Effects:
    """Hold what a release says of its offers: what they add to margin and to retention, and who redeems them."""

    student: Student  # of 3 n_offers targets: margin, retention, redemption
    margin: tuple[EffectBands, ...]  # by offer
    retention: tuple[EffectBands, ...]

    def predict(self, X: Matrix) -> dict[str, Floats]:
        """Give what `training.artifacts.Scores` holds of offers, by its names there, `(n_rows, n_offers)` each."""
        margin, retention, redemption = np.hsplit(self.student.predict(X), 3)
        return {
            "uplift": margin,
            "uplift_error": standard_error(self.margin, margin),
            "retention_uplift": retention,
            "retention_error": standard_error(self.retention, retention),
            "redemption": redemption,
        }

    def to_json(self) -> dict[str, Any]:
        """Give all but the booster as JSON values."""
        return {
            "student": self.student.to_json(),
            "margin": [vars(one) for one in self.margin],
            "retention": [vars(one) for one in self.retention],
        }


def effects_from_json(value: dict[str, Any], booster: xgb.Booster) -> Effects:
    """Read back what `Effects.to_json` gave."""
    student = Student(booster, **{name: tuple(numbers) for name, numbers in value["student"].items()})
    return Effects(student, *(tuple(map(_bands, value[name])) for name in ("margin", "retention")))


def _bands(value: dict[str, Any]) -> EffectBands:
    return EffectBands(**{name: tuple(numbers) for name, numbers in value.items()})


def mean_effect(bands: Sequence[EffectBands], uplift: Floats) -> Floats:
    """Give the mean effect of the members of each one's band, `(n_members, n_offers)`.

    >>> mean_effect([EffectBands(edges=(0.5,), effect=(0.0, 1.0), error=(0.1, 0.2))], np.array([[0.5], [0.6]])).tolist()
    [[0.0], [1.0]]
    """
    return np.column_stack([np.array(one.effect)[_band(one, u)] for one, u in zip(bands, uplift.T, strict=True)])


def standard_error(bands: Sequence[EffectBands], uplift: Floats) -> Floats:
    """Give the standard error of `mean_effect`, `(n_members, n_offers)`."""
    return np.column_stack([np.array(one.error)[_band(one, u)] for one, u in zip(bands, uplift.T, strict=True)])


def _band(bands: EffectBands, uplift: Floats) -> NDArray[np.intp]:
    return np.searchsorted(np.array(bands.edges), uplift)
