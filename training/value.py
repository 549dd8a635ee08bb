"""What a member is worth within the horizon: expected margin without an offer, and an interval for what it will be.

The mean is what money needs. Its loss is Tweedie's, a compound Poisson of gammas: some members bring nothing, the
others an amount with a long tail (Jorgensen and Paes de Souza, Scandinavian Actuarial Journal 1994).

The interval is for a member's own margin, not for the mean: quantiles learned by boosting, made to cover on members
who were held out. Romano, Patterson and Candès, "Conformalized quantile regression", NeurIPS 2019. Its two ends are
corrected apart, because spend is skewed, and a member who may well bring nothing has all of the chance to be missed
above.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import xgboost as xgb
from numpy.typing import ArrayLike, NDArray

from features.errors import ContractError
from training.learning.encoding import Encoding, fit_encoding
from training.shape import Matrix, Parameters, choose_shape
from training.splits import Flags, each_held_out, folds_of

Floats = NDArray[np.float64]

# Of powers from 1.05 to 1.8 this had the least squared error on a grocer's 20,000 and 2,000 rows and a web shop's
POWER: Final = 1.1
FIXED: Final[Parameters] = {"objective": "reg:tweedie", "tweedie_variance_power": POWER, "seed": 0}
FOLDS: Final = 5
MOST_ROWS: Final = 10_000  # on which trees are chosen: 55,000 took two and a half minutes of a processor's time
FEWEST_MEMBERS: Final = 40  # in whose margins a 2.5 % tail is seen at all
MISSED: Final = 0.05  # of the margins lie outside their interval, half of them on each side if there are two
LEVELS: Final = (MISSED / 2, 1 - MISSED, 1 - MISSED / 2)
# A tail's quantile needs many members to a leaf; rows are all of one weight here
QUANTILES: Final[Parameters] = {
    "objective": "reg:quantileerror",
    "quantile_alpha": LEVELS,
    "max_depth": 3,
    "learning_rate": 0.1,
    "subsample": 0.8,
    "colsample_bytree": 0.8,
    "seed": 0,
}
QUANTILE_ROUNDS: Final = 100
_NOTHING: Final = 1e-3  # of the scale: an interval that would start below starts at 0, which then is inside
TAIL_ROWS: Final = (20, 100)  # to a leaf: one in fifty, within these


@dataclass(frozen=True)
class Bounds:
    """Hold what an interval is made of: quantiles of log(1 + margin / scale), and a correction of each end."""

    booster: xgb.Booster
    scale: float  # minor units
    below: float
    above: float

    def __call__(self, X: Matrix) -> tuple[Floats, Floats]:
        """Give the lower and the upper end `(n_rows,)`, in minor units."""
        low, one_sided, two_sided = _quantiles(self.booster, X)
        lower = np.maximum(low - self.below, 0.0)
        lower[lower < _NOTHING] = 0.0
        upper = np.where(lower > 0, two_sided, one_sided) + self.above
        return self.scale * np.expm1(lower), self.scale * np.expm1(np.maximum(upper, lower))


@dataclass(frozen=True)
class ValueModel:
    """Hold the booster of the expected margin, the bounds of its interval, and how a frame becomes what they read."""

    booster: xgb.Booster
    bounds: Bounds
    encoding: Encoding
    parameters: Parameters

    def predict(self, X: pd.DataFrame | ArrayLike) -> Floats:
        """Expect margin within the horizon, `(n_rows,)`, in minor units, for a frame with the training's columns."""
        return predict_value(self.booster, self.encoding.matrix(X))

    def interval(self, X: pd.DataFrame | ArrayLike) -> tuple[Floats, Floats]:
        """Bound the margin that a member will bring, 19 times in 20: the lower and the upper end `(n_rows,)`.

        It holds for members like those of the training, on average over them and not for each kind of member.
        """
        return self.bounds(self.encoding.matrix(X))


def fit_value(
    X: pd.DataFrame | ArrayLike,
    margin: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    weight: ArrayLike | None = None,
    parameters: Parameters | None = None,
    rng: np.random.Generator | None = None,
) -> ValueModel:
    """Fit expected margin and its interval; a negative one (more refunds than sales) counts as nothing.

    Parameters
    ----------
    X : (n_rows, n_features) numbers, booleans or words known before the horizon; missing allowed
    margin : (n_rows,) in minor units
    clusters : (n_rows,) the member of each row, whose rows stay together in a fold. Each row its own if not given
    weight : (n_rows,) how much a row counts for the mean
    parameters : XGBoost's for the mean, and `rounds`; chosen by the loss on held-out rows if not given
    rng : draws the folds; the same ones every time if not given

    Raises
    ------
    ContractError
        For lengths that differ, too few members, margins or features that are not finite, or no margin at all.
    """
    encoding = fit_encoding(X)
    matrix, brought = encoding.matrix(X), np.asarray(margin, dtype=np.float64)
    members = np.arange(len(brought)) if clusters is None else np.asarray(clusters)
    _check(matrix, brought, members)
    rows = Rows(matrix, np.maximum(brought, 0.0), members, _normed(weight, len(brought)))
    rng = rng or np.random.default_rng(0)
    parameters = parameters or _choose(rows, rng)
    return ValueModel(_mean_booster(rows, parameters), fit_bounds(rows, rng), encoding, parameters)


@dataclass(frozen=True)
class Rows:
    """Hold what is learned from, as arrays of one length."""

    X: Matrix  # (n_rows, n_features)
    margin: Floats  # (n_rows,) from 0
    members: NDArray[Any]  # (n_rows,)
    weight: Floats  # (n_rows,) of mean 1

    def take(self, places: Flags) -> "Rows":
        """Give some rows."""
        return Rows(self.X[places], self.margin[places], self.members[places], self.weight[places])


def predict_value(booster: xgb.Booster, X: Matrix) -> Floats:
    """Predict margin within the horizon, `(n_rows,)`, in minor units."""
    return np.asarray(booster.inplace_predict(X), dtype=np.float64)


def share_within(margin: Floats, interval: tuple[Floats, Floats]) -> float:
    """Give the share of margins that lie in their intervals, to the minor unit; a negative one counts as nothing.

    >>> share_within(np.array([-5.0, 7.0]), (np.array([0.0, 0.0]), np.array([1.0, 6.0])))
    0.5
    """
    brought, (lower, upper) = np.maximum(margin, 0.0), interval
    return float(((brought >= np.floor(lower)) & (brought <= np.ceil(upper))).mean())


def fit_bounds(rows: Rows, rng: np.random.Generator) -> Bounds:
    """Learn quantiles on two thirds of the members, and correct both ends by what they miss on the other third."""
    scale = float(rows.margin.mean())
    logs = np.log1p(rows.margin / scale)
    learn, held_out = each_held_out(folds_of(rows.members, 3, rng, outcome=rows.margin > 0))[0]
    fewest, most = TAIL_ROWS
    leaf = {"min_child_weight": float(np.clip(learn.sum() / 50, fewest, most))}
    data = xgb.QuantileDMatrix(rows.X[learn], logs[learn])
    booster = xgb.train({**QUANTILES, **leaf}, data, num_boost_round=QUANTILE_ROUNDS)
    low, one_sided, two_sided = _quantiles(booster, rows.X[held_out])
    seen = logs[held_out]
    below = _exceeded(low - seen, MISSED / 2)
    lower = np.maximum(low - below, 0.0)
    left = MISSED - float((seen < lower).mean())
    above = _exceeded(seen - np.where(lower > 0, two_sided, one_sided), left)
    return Bounds(booster, scale, below, above)


def _exceeded(scores: Floats, share: float) -> float:
    """Give what a further score exceeds with a chance of at most `share`: the ⌈(n + 1)(1 - share)⌉-th smallest."""
    place = min(int(np.ceil((len(scores) + 1) * (1 - share))), len(scores))
    return float(np.partition(scores, place - 1)[place - 1])


def _quantiles(booster: xgb.Booster, X: Matrix) -> tuple[Floats, Floats, Floats]:
    """Predict the quantiles of `LEVELS`, put in order where the trees crossed them."""
    low, one_sided, two_sided = np.sort(np.asarray(booster.inplace_predict(X), dtype=np.float64), axis=1).T
    return low, one_sided, two_sided


def _choose(rows: Rows, rng: np.random.Generator) -> Parameters:
    """Choose on margins of mean 1, in which a leaf's weight counts rows of the mean."""
    members = np.unique(rows.members)
    drawn = rng.permutation(members)[: max(FEWEST_MEMBERS, len(members) * MOST_ROWS // len(rows.members))]
    rows = rows.take(np.isin(rows.members, drawn))
    folds = each_held_out(folds_of(rows.members, FOLDS, rng, outcome=rows.margin > 0))
    fixed, scaled = {**FIXED, "base_score": 1.0}, rows.margin / np.average(rows.margin, weights=rows.weight)
    return choose_shape(rows.X, scaled, folds, fixed=fixed, metric=f"tweedie-nloglik@{POWER}", weight=rows.weight)


def _mean_booster(rows: Rows, parameters: Parameters) -> xgb.Booster:
    """Boost trees on margins as they are: the release reads the booster alone, which has to speak minor units.

    Tweedie's curvature grows with the margin's scale to the power of 2 - POWER, which the rows' weight takes back.
    """
    mean = float(np.average(rows.margin, weights=rows.weight))
    tree = {name: value for name, value in parameters.items() if name != "rounds"}
    data = xgb.QuantileDMatrix(rows.X, rows.margin, weight=rows.weight * mean ** (POWER - 2))
    return xgb.train({**FIXED, "base_score": mean, **tree}, data, num_boost_round=parameters["rounds"])


def _normed(weight: ArrayLike | None, n: int) -> Floats:
    given = np.ones(n) if weight is None else np.asarray(weight, dtype=np.float64)
    return np.asarray(given / given.mean())


def _check(X: Matrix, margin: Floats, members: NDArray[Any]) -> None:
    lengths = {"X": len(X), "margin": len(margin), "clusters": len(members)}
    if len(set(lengths.values())) > 1:
        raise ContractError(f"rows of {lengths} came, one length for all was wanted")
    if not np.isfinite(margin).all():
        raise ContractError(f"{(~np.isfinite(margin)).sum()} margins are infinite or missing; wanted minor units")
    n_members = len(np.unique(members))
    if n_members < FEWEST_MEMBERS:
        raise ContractError(
            f"{n_members} members came; at least {FEWEST_MEMBERS} were wanted to learn from and to be judged on; "
            f"take a longer history"
        )
    if not (margin > 0).any():
        raise ContractError("no member brought a margin; wanted some above 0, in a longer horizon or a longer history")
