"""Why a member is at risk, in words, from exact contributions of the churn booster."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from features.programme import Programme
from training.artifacts import Matrix
from training.releases.manifest import FeatureSpec

REASONS: Final = 3
LARGE: Final = 100.0  # from here on decimals say nothing

Show = Callable[[float], str]


class Explainer:
    """Put the largest contributions into words; built once per release."""

    def __init__(self, features: Sequence[FeatureSpec], programme: Programme) -> None:
        self._names = [(feature.name, feature.meaning.strip().rstrip(".")) for feature in features]
        shows: dict[str, Show] = {"money": programme.money, "share": _percent}
        self._shows = [shows.get(feature.unit, number) for feature in features]

    def reasons(self, X: Matrix, effects: NDArray[np.float32]) -> list[tuple[dict[str, Any], ...]]:
        """Name up to three features per member, the largest effect first; one without effect is no reason.

        Parameters
        ----------
        X : (n_members, n_features)
        effects : (n_members, n_features) as `training.shares` gives them
        """
        largest = np.argsort(-np.abs(effects), axis=1, kind="stable")[:, :REASONS]
        values, strengths = np.take_along_axis(X, largest, axis=1), np.take_along_axis(effects, largest, axis=1)
        return [
            tuple(self._reason(*reason) for reason in zip(*row, strict=True) if reason[2])
            for row in zip(largest.tolist(), values.tolist(), strengths.tolist(), strict=True)
        ]

    def _reason(self, column: int, value: float, effect: float) -> dict[str, Any]:
        name, meaning = self._names[column]
        missing = value != value  # noqa: PLR0124 (only NaN differs from itself; one float, so no NumPy call)
        shown = "not known" if missing else self._shows[column](value)
        moves = "raises" if effect > 0 else "lowers"
        return {
            "feature": name,
            "value": None if missing else round(value, 4),
            "effect": round(effect, 4),
            "text": f"{meaning}: {shown} ({moves} the risk)",
        }


def number(value: float) -> str:
    """Show a number with no more digits than a person reads.

    >>> number(23.0), number(0.123456), number(1234.5)
    ('23', '0.12', '1,234')
    """
    return f"{value:,.0f}" if value.is_integer() or abs(value) >= LARGE else f"{value:.2f}"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %"
