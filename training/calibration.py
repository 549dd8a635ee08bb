"""Turn a model's raw probability into one that holds: of the members given 0.2, one in five leaves.

Two maps are known, both monotone, both plain numbers in a release:

* Platt scaling, p' = sigmoid(slope · logit(p) + intercept): Platt, "Probabilistic outputs for support vector
  machines", 1999.
* Isotonic regression, a step-free interpolation between knots: Zadrozny and Elkan, "Transforming classifier scores into
  accurate multiclass probability estimates", KDD 2002.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.errors import ContractError

Floats = NDArray[np.float64]
NEWTON_STEPS: Final = 50
CONVERGED: Final = 1e-10
EDGE: Final = 1e-6  # a probability of exactly 0 or 1 has no finite logit, and no evidence either


def logit(probability: Floats) -> Floats:
    """Compute log(p / (1 - p)), with p kept within [1e-6, 1 - 1e-6]."""
    p = np.clip(probability, EDGE, 1 - EDGE)
    return np.asarray(np.log(p / (1 - p)))


def sigmoid(x: Floats) -> Floats:
    """Compute 1 / (1 + exp(-x)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * x)))


@dataclass(frozen=True)
class Platt:
    """Hold p' = sigmoid(slope · logit(p) + intercept)."""

    slope: float
    intercept: float

    def __call__(self, probability: Floats) -> Floats:
        """Calibrate probabilities `(n,)`."""
        return sigmoid(self.slope * logit(probability) + self.intercept)

    def to_json(self) -> dict[str, Any]:
        """Give the map as JSON values."""
        return {"kind": "platt", "slope": self.slope, "intercept": self.intercept}


@dataclass(frozen=True)
class Isotonic:
    """Hold a non-decreasing, piecewise linear map through knots `(x, y)`."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    def __call__(self, probability: Floats) -> Floats:
        """Calibrate probabilities `(n,)`."""
        return np.clip(np.interp(probability, self.x, self.y), EDGE, 1 - EDGE)

    def to_json(self) -> dict[str, Any]:
        """Give the map as JSON values."""
        return {"kind": "isotonic", "x": list(self.x), "y": list(self.y)}


Calibration = Platt | Isotonic
IDENTITY: Final = Platt(slope=1.0, intercept=0.0)


def calibration_from_json(value: dict[str, Any]) -> Calibration:
    """Read back what `to_json` gave; a ContractError for any other kind.

    >>> calibration_from_json(Platt(1.0, 0.0).to_json())
    Platt(slope=1.0, intercept=0.0)
    """
    if value["kind"] == "platt":
        return Platt(slope=float(value["slope"]), intercept=float(value["intercept"]))
    if value["kind"] == "isotonic":
        return Isotonic(x=tuple(value["x"]), y=tuple(value["y"]))
    raise ContractError(f"a calibration of kind {value['kind']!r} came, 'platt' or 'isotonic' was wanted")


def fit_platt(probability: Floats, outcome: Floats) -> Platt:
    """Fit slope and intercept by Newton's method on the log loss, with Platt's smoothed targets.

    Parameters
    ----------
    probability : (n,) raw probabilities of members the model was not trained on
    outcome : (n,) 0 or 1
    """
    positives, negatives = float(outcome.sum()), float((1 - outcome).sum())
    target = np.where(outcome > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.column_stack([logit(probability), np.ones(len(probability))])
    weights = np.array([1.0, 0.0])
    for _ in range(NEWTON_STEPS):
        p = sigmoid(design @ weights)
        curvature = (design * (p * (1 - p))[:, None]).T @ design + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, design.T @ (p - target))
        weights = weights - step
        if float(np.max(np.abs(step))) < CONVERGED:
            break
    return Platt(slope=float(weights[0]), intercept=float(weights[1]))
