"""What a release says of its offers: plain numbers and one booster, with nothing of how they came about."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class Student:
    """Hold a booster of standardised targets, and their means and spreads."""

    booster: xgb.Booster
    mean: tuple[float, ...]  # (n_outputs,)
    spread: tuple[float, ...]  # (n_outputs,)

    def predict(self, X: Matrix) -> Floats:
        """Predict every target, `(n_rows, n_outputs)`, in its own unit."""
        said = np.asarray(self.booster.inplace_predict(X), dtype=np.float64).reshape(len(X), -1)
        return np.asarray(said * self.spread + self.mean)


@dataclass(frozen=True)
class EffectBands:
    """Hold one offer's mean effect by band of served uplift, lowest first: plain numbers that a release can carry."""

    edges: tuple[float, ...]  # (n_bands - 1,) ascending; an uplift at an edge belongs to the band below
    effect: tuple[float, ...]  # (n_bands,) in the outcome's unit
    error: tuple[float, ...]  # (n_bands,) standard errors


@dataclass(frozen=True)
class Effects:
    """Hold what a release says of its offers: on margin first, then on retention, and how sure the first is."""

    student: Student  # of 2 n_offers targets
    bands: tuple[EffectBands, ...]  # of the effect on margin, by offer

    def predict(self, X: Matrix) -> tuple[Floats, Floats, Floats]:
        """Give the uplift of margin and of retention, and the first one's standard error, `(n_rows, n_offers)` each."""
        margin, retention = np.hsplit(self.student.predict(X), 2)
        return margin, retention, standard_error(self.bands, margin)

    def to_json(self) -> dict[str, Any]:
        """Give all but the booster as JSON values."""
        student = {"mean": list(self.student.mean), "spread": list(self.student.spread)}
        return student | {"bands": [{name: list(numbers) for name, numbers in vars(one).items()} for one in self.bands]}


def effects_from_json(value: dict[str, Any], booster: xgb.Booster) -> Effects:
    """Read back what `Effects.to_json` gave."""
    bands = tuple(EffectBands(**{name: tuple(numbers) for name, numbers in one.items()}) for one in value["bands"])
    return Effects(Student(booster, tuple(value["mean"]), tuple(value["spread"])), bands)


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
