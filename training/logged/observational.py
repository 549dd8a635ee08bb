"""What campaigns seem to have done that were targeted, not randomised; and whether that can be known at all.

Members who were chosen differ from those who were not. Comparing alike with alike repairs that only where alike exists
(overlap) and only for what is recorded. So an estimate comes with three checks: how well features predict who was
chosen, what share of members could have gone either way, and a placebo: the same estimate for the weeks before the
contact, where the true effect is zero.

* Overlap: Crump, Hotz, Imbens and Mitnik, "Dealing with limited overlap in estimation of average treatment effects",
  Biometrika 2009.
* Effect: augmented inverse propensity weighting, cross-fitted: Robins, Rotnitzky and Zhao, 1994; Chernozhukov et al.,
  2018.
* Balance: standardised mean differences; Stuart, "Matching methods for causal inference", 2010.
"""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import pandas as pd
import xgboost as xgb
from sklearn.exceptions import ConvergenceWarning
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from features.errors import ContractError
from training.judging.evidence import estimate
from training.learning.learners import BASELINE, Flags, Floats, Ints, Matrix, Trees, at, grow
from training.metrics import Estimate, auc, log_loss
from training.splits import folds_of

Identification = Literal["randomised", "adjusted", "not identified"]

FOLDS: Final = 3
PROPENSITY_TREES: Final = Trees(depth=2, rounds=80, leaf_share=0.02)


@dataclass(frozen=True)
class Limits:
    """Set what an estimate has to pass to be believed."""

    trim: float = 0.1  # propensities below it, or above 1 less it, have no counterpart (Crump et al.)
    least_overlap: float = 0.5  # share of members that have to be left
    least_members: int = 100  # of each side, that have to be left
    random_auc: float = 0.55  # below, features hardly tell who was chosen
    worst_imbalance: float = 0.25  # standardised mean difference after weighting (Stuart)


@dataclass(frozen=True)
class ObservationalEffect:
    """Hold an effect as far as it can be known; amounts in the outcome's unit per member.

    `effect` and `placebo` are of the members with overlap; where none have, they are the naive differences.
    """

    verdict: Identification
    reasons: tuple[str, ...]
    effect: Estimate
    naive: Estimate
    placebo: Estimate
    naive_placebo: Estimate
    propensity_auc: float
    overlap_share: float
    imbalance_before: float  # the worst feature's standardised mean difference
    imbalance_after: float | None  # None where too few members have overlap
    n_treated: int


def observational_effect(
    frame: pd.DataFrame,
    *,
    features: Sequence[str],
    rng: np.random.Generator,
    limits: Limits | None = None,
    money: Callable[[float], str] = "{:,.0f}".format,
    cluster: str = "member_id",
) -> ObservationalEffect:
    """Estimate what a targeted campaign brought, and say whether that can be known.

    Parameters
    ----------
    frame
        One row per member who could have been chosen: `features`, known before the placebo's weeks begin; `treated` (0
        or 1); `outcome`, over the weeks after the contact; `placebo_outcome`, over as many weeks before it; and the
        column `cluster`, whose rows are one piece of evidence.

    Raises
    ------
    ContractError
        For missing columns or values, one side with too few members, or a placebo that is among the features.
    """
    limits = limits or Limits()
    _check(frame, [*features], cluster)
    rows = _read(frame, features, cluster, rng)
    kept = (rows.propensity >= limits.trim) & (rows.propensity <= 1 - limits.trim)
    left = rows.take(kept)
    enough = min(left.treated.sum(), (1 - left.treated).sum()) >= limits.least_members
    naive, naive_placebo = naive_difference(rows.outcome, rows), naive_difference(rows.before, rows)
    effect, placebo = (
        (augmented(left.outcome, left), augmented(left.before, left)) if enough else (naive, naive_placebo)
    )
    found = ObservationalEffect(
        verdict="not identified",
        reasons=(),
        effect=effect,
        naive=naive,
        placebo=placebo,
        naive_placebo=naive_placebo,
        propensity_auc=auc(rows.treated, rows.propensity),
        overlap_share=float(kept.mean()),
        imbalance_before=_imbalance(rows, np.ones(len(kept))),
        imbalance_after=_imbalance(left, left.weight) if enough else None,
        n_treated=int(rows.treated.sum()),
    )
    verdict, reasons = _judge(found, limits, money)
    return replace(found, verdict=verdict, reasons=reasons)


@dataclass(frozen=True)
class Rows:
    """Hold the members who could have been contacted, as arrays of one length."""

    X: Matrix
    treated: Ints
    outcome: Floats
    before: Floats
    member: Ints
    fold: Ints
    propensity: Floats

    @property
    def weight(self) -> Floats:
        """Weigh each row by the inverse of the probability of what happened to it."""
        return np.where(self.treated == 1, 1 / self.propensity, 1 / (1 - self.propensity))

    def take(self, kept: Flags) -> "Rows":
        """Give some of the rows."""
        return Rows(**{name: value[kept] for name, value in vars(self).items()})


def cross_fitted_propensity(X: Matrix, treated: Ints, fold: Ints) -> Floats:
    """Estimate the probability of treatment `(n,)`, each row by a model that has not seen its member.

    Regularised logistic regression and shallow boosted trees are both fitted; the one of lower held-out log loss
    is kept.
    """
    logistic, boosted = np.empty(len(X)), np.empty(len(X))
    for k in np.unique(fold):
        rest, held_out = fold != k, fold == k
        logistic[held_out] = _logistic(X[rest], treated[rest], X[held_out])
        params = PROPENSITY_TREES.params(int(rest.sum())) | {"objective": "binary:logistic", "min_child_weight": 5.0}
        data = xgb.QuantileDMatrix(X[rest], treated[rest], max_bin=64, nthread=1)
        boosted[held_out] = at([xgb.train(params, data, num_boost_round=PROPENSITY_TREES.rounds)], X[held_out])
    better = logistic if log_loss(treated, logistic) <= log_loss(treated, boosted) else boosted
    return np.clip(better, 1e-3, 1 - 1e-3)


def augmented(y: Floats, rows: Rows) -> Estimate:
    """Estimate the average effect: mean of m1 - m0 + t (y - m1) / e - (1 - t)(y - m0) / (1 - e), by member.

    m0 and m1 are boosted regressions, cross-fitted; it is right where either they or the propensities are.
    """
    means = np.empty((len(y), 2))
    for k in np.unique(rows.fold):
        for arm in (0, 1):
            others = (rows.fold != k) & (rows.treated == arm)
            booster = grow(xgb.QuantileDMatrix(rows.X[others], max_bin=64, nthread=1), y[others], BASELINE)
            means[rows.fold == k, arm] = at([booster], rows.X[rows.fold == k])
    error = y - means[np.arange(len(y)), rows.treated]
    sign = np.where(rows.treated == 1, 1.0, -1.0)
    return estimate(means[:, 1] - means[:, 0] + sign * rows.weight * error, rows.member)


def naive_difference(y: Floats, rows: Rows) -> Estimate:
    """Difference the two sides' means, whoever was chosen."""
    share = rows.treated.mean()
    mean_treated, mean_control = y[rows.treated == 1].mean(), y[rows.treated == 0].mean()
    # Terms whose mean is the difference, and whose spread is its error.
    terms = np.where(rows.treated == 1, (y - mean_treated) / share, -(y - mean_control) / (1 - share))
    return estimate(mean_treated - mean_control + terms, rows.member)


def _judge(
    found: ObservationalEffect, limits: Limits, money: Callable[[float], str]
) -> tuple[Identification, tuple[str, ...]]:
    chosen = f"features tell who was contacted with an AUC of {found.propensity_auc:.2f}"
    overlap = f"{found.overlap_share:.0%} of members have a propensity of {limits.trim} to {1 - limits.trim}"
    before = (
        f"in the weeks before, where nothing can have happened, the same estimate gives {_words(found.placebo, money)}"
    )
    left = found.imbalance_after
    balance = f"weighted, the worst feature differs by {left or 0:.2f} standard deviations"
    wrong = []
    if found.overlap_share < limits.least_overlap or left is None:
        wanted = f"at least {limits.least_overlap:.0%}, and {limits.least_members} members of each side, were wanted"
        wrong.append(f"{overlap}; {wanted}")
    if not found.placebo.lower <= 0 <= found.placebo.upper:
        wrong.append(f"the placebo fails: {before}, which excludes 0")
    if left is not None and left > limits.worst_imbalance:
        wrong.append(f"{balance}; at most {limits.worst_imbalance} was wanted")
    if wrong:
        return "not identified", (chosen, *wrong)
    passed = (overlap, f"the placebo holds: {before}", balance)
    if found.propensity_auc < limits.random_auc:
        return "randomised", (f"{chosen}, as good as chance", *passed)
    return "adjusted", (f"{chosen}, so the contact was targeted", *passed)


def _words(value: Estimate, money: Callable[[float], str]) -> str:
    return f"{money(value.value)} [{money(value.lower)}, {money(value.upper)}]"


def _imbalance(rows: Rows, weight: Floats) -> float:
    """Give the worst standardised mean difference over features, on the scale of these rows unweighted."""
    sides = [rows.treated == 1, rows.treated == 0]
    one, two = (_weighted_mean(rows.X[side], weight[side]) for side in sides)
    spread = np.sqrt(np.mean([_variance(rows.X[side]) for side in sides], axis=0))
    return float(np.max(np.abs(one - two) / np.where(spread > 0, spread, np.inf)))


def _variance(X: Matrix) -> Floats:
    mean = _weighted_mean(X, np.ones(len(X)))
    return _weighted_mean(np.asarray((X - mean) ** 2), np.ones(len(X)))


def _weighted_mean(X: Matrix, weight: Floats) -> Floats:
    there = ~np.isnan(X)
    total = (there * weight[:, None]).sum(axis=0)
    return np.asarray((np.nan_to_num(X) * weight[:, None]).sum(axis=0) / np.where(total > 0, total, 1))


def _logistic(X: Matrix, treated: Ints, at_rows: Matrix) -> Floats:
    # Spends and counts are heavy-tailed: on a log scale one large household does not carry the fit.
    model = make_pipeline(
        SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True),
        StandardScaler(),
        LogisticRegression(C=0.1, max_iter=1000),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # its log loss is what it is judged by
        model.fit(_log_scale(X), treated)
    return np.asarray(model.predict_proba(_log_scale(at_rows))[:, 1], dtype=np.float64)


def _log_scale(X: Matrix) -> Matrix:
    return np.asarray(np.sign(X) * np.log1p(np.abs(X)), dtype=np.float32)


def _read(frame: pd.DataFrame, features: Sequence[str], cluster: str, rng: np.random.Generator) -> Rows:
    X = frame[list(features)].to_numpy(dtype=np.float32, na_value=np.nan)
    treated = frame["treated"].to_numpy(dtype=np.int64)
    member = np.unique(frame[cluster].to_numpy(), return_inverse=True)[1]
    fold = folds_of(member, FOLDS, rng)
    return Rows(
        X=X,
        treated=treated,
        outcome=frame["outcome"].to_numpy(dtype=np.float64),
        before=frame["placebo_outcome"].to_numpy(dtype=np.float64),
        member=member,
        fold=fold,
        propensity=cross_fitted_propensity(X, treated, fold),
    )


def _check(frame: pd.DataFrame, features: list[str], cluster: str) -> None:
    needed = [*features, "treated", "outcome", "placebo_outcome", cluster]
    missing = sorted(set(needed) - set(frame.columns))
    if missing or not features:
        raise ContractError(f"columns {missing or 'named as features'} are missing; wanted {needed}")
    empty = [name for name in ("treated", "outcome", "placebo_outcome", cluster) if frame[name].isna().any()]
    if empty:
        raise ContractError(f"columns {empty} have missing values; wanted one for every row, 0 for no purchase")
    sides = frame.groupby(frame["treated"].astype(int))[cluster].nunique().to_dict()
    if set(sides) != {0, 1} or min(sides.values()) < 2 * FOLDS:
        raise ContractError(f"members by treated are {sides}; wanted 0 and 1, each with at least {2 * FOLDS} members")
    placebo = frame["placebo_outcome"].to_numpy(dtype=np.float64)
    same = [
        name for name in features if _proportional(frame[name].to_numpy(dtype=np.float64, na_value=np.nan), placebo)
    ]
    if same:
        raise ContractError(f"the placebo is the feature {same[0]!r}; take features from before the placebo's weeks")


def _proportional(feature: Floats, placebo: Floats) -> bool:
    there: Flags = ~np.isnan(feature)
    if there.sum() < 3 or np.ptp(feature[there]) == 0 or np.ptp(placebo[there]) == 0:  # noqa: PLR2004 (two always correlate)
        return False
    return bool(np.corrcoef(feature[there], placebo[there])[0, 1] > 0.9999)  # noqa: PLR2004 (equal up to its unit)
