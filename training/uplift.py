"""Uplift for several offers: what each would add to each member's outcome, in one booster.

Four meta-learners are cross-fitted by member, their heterogeneity is shrunk as far as held-out members do not bear it out,
and the one whose policy earns most on held-out members is kept, if it beats the average effects alone by a standard error.
Its estimates, smoothed over the folds, are distilled into one booster with an output per offer: training such a booster
straight on pseudo-outcomes ranks far worse.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import xgboost as xgb
from numpy.typing import ArrayLike

from features.errors import ContractError
from features.schema import CONTROL
from training.learners import LEARNERS, Flags, Floats, Ints, Log, Matrix, Trees, fit_nuisance, folds_of
from training.metrics import Estimate

FOLDS: Final = 5
CONSTANT: Final = "constant"  # the average effect of each offer: the best single offer for everybody
FEWEST_MEMBERS: Final = 30  # of an arm: below, a fold and its inner halves would hold a handful
STUDENT: Final = Trees(depth=5, rate=0.1, rounds=120, leaf_share=0.0, ridge=1.0)
Strategy = Literal["multi_output_tree", "one_output_per_tree"]


@dataclass(frozen=True)
class UpliftRecord:
    """Say how an uplift model came about; amounts in the outcome's unit per row."""

    learner: str  # the one chosen
    policy_values: dict[str, Estimate]  # by learner: held-out value against no contact, after contact costs
    gain_over_constant: dict[str, Estimate]  # by learner, paired
    average_effect: dict[str, Estimate]  # by offer, doubly robust
    heterogeneity_kept: dict[str, float]  # by offer: 0 (average only) to 1
    winsorised_at: float  # distance from the baseline at which training outcomes were cut
    fidelity: float  # correlation of the distilled booster with its teacher on members it had not seen
    propensity: Literal["known", "estimated"]
    n_members: int


@dataclass(frozen=True)
class UpliftModel:
    """Predict the uplift of every offer against control."""

    offers: tuple[str, ...]
    features: tuple[str, ...]  # empty when it was fitted on a plain array
    booster: xgb.Booster
    record: UpliftRecord

    def predict(self, X: pd.DataFrame | ArrayLike) -> Floats:
        """Predict uplift `(n_members, n_offers)` in the outcome's unit; columns as in `offers`."""
        if isinstance(X, pd.DataFrame) and self.features:
            missing = [name for name in self.features if name not in X]
            if missing:
                raise ContractError(f"features {missing} are missing; wanted the columns of training {self.features}")
            X = X[list(self.features)]
        matrix = _matrix(X)
        if matrix.shape[1] != self.booster.num_features():
            raise ContractError(f"{matrix.shape[1]} features came, {self.booster.num_features()} were wanted")
        return np.asarray(self.booster.inplace_predict(matrix), dtype=np.float64).reshape(len(matrix), -1)


def fit_uplift(
    X: pd.DataFrame | ArrayLike,
    treatment: ArrayLike,
    outcome: ArrayLike,
    propensity: ArrayLike | None = None,
    *,
    clusters: ArrayLike | None = None,
    contact_cost: Mapping[str, float] | None = None,
    rng: np.random.Generator,
    nthread: int = 2,
) -> UpliftModel:
    """Learn from an experiment's log what each offer adds for each member.

    Parameters
    ----------
    X : (n_rows, n_features) numbers or booleans known before the treatment, missing allowed
    treatment : (n_rows,) offer ids and `control`
    outcome : (n_rows,) before contact costs, higher is better; money or 0 and 1
    propensity : (n_rows,) the logging policy's probability of the logged treatment; estimated from X if not given
    clusters : (n_rows,) the member of each row; rows of a member stay together in a fold. Each row its own if not given
    contact_cost : by offer, in the outcome's unit; what a policy has to earn back when learners are compared
    nthread : threads of XGBoost; the model's bytes do not depend on it

    Raises
    ------
    ContractError
        For columns that are no numbers, infinities, missing outcomes, propensities outside (0, 1), no control, or a
        treatment too few members had.
    """
    matrix = _matrix(X)
    log, offers = _log(matrix, treatment, outcome, propensity, clusters)
    cost = np.array([(contact_cost or {}).get(offer, 0.0) for offer in offers])
    if propensity is None:
        log = replace(log, propensity=_estimated_propensity(log, rng, nthread))
    fold = folds_of(log.cluster, FOLDS, rng)
    parts = [_cross_fit(log, fold == k, rng, nthread) for k in range(FOLDS)]
    choice = _choose(log, fold, parts, cost)
    booster, fidelity = _distil(log, choice.teacher, nthread=nthread, held_out=fold == 0)
    record = UpliftRecord(
        learner=choice.learner,
        policy_values=choice.policy_values,
        gain_over_constant=choice.gains,
        average_effect=dict(zip(offers, choice.average_effect, strict=True)),
        heterogeneity_kept=dict(zip(offers, choice.kept.tolist(), strict=True)),
        winsorised_at=float(np.mean([part.cap for part in parts])),
        fidelity=fidelity,
        propensity="estimated" if propensity is None else "known",
        n_members=int(log.cluster.max()) + 1,
    )
    names = tuple(str(name) for name in X.columns) if isinstance(X, pd.DataFrame) else ()
    return UpliftModel(offers=offers, features=names, booster=booster, record=record)


@dataclass(frozen=True)
class _Part:
    """Hold what one fold's training members say of every row, and the scores of its held-out members."""

    held_out: Flags
    average: Floats  # (n_offers,)
    effects: dict[str, Floats]  # (n, n_offers) by learner, about 0
    scores: Floats  # (n_held_out, arms)
    cap: float


def _cross_fit(log: Log, held_out: Flags, rng: np.random.Generator, nthread: int) -> _Part:
    nuisance = fit_nuisance(log.take(~held_out), rng=rng, nthread=nthread)
    effects = {name: learner(nuisance, log.X) for name, learner in LEARNERS.items()}
    return _Part(
        held_out=held_out,
        average=nuisance.contrasts.mean(axis=0),
        effects={name: effect - effect[~held_out].mean(axis=0) for name, effect in effects.items()},
        scores=nuisance.scores(log.take(held_out)),
        cap=nuisance.cap,
    )


@dataclass(frozen=True)
class _Choice:
    learner: str
    teacher: Floats  # (n, n_offers)
    kept: Floats  # (n_offers,)
    average_effect: list[Estimate]
    policy_values: dict[str, Estimate]
    gains: dict[str, Estimate]


def _choose(log: Log, fold: Ints, parts: Sequence[_Part], cost: Floats) -> _Choice:
    scores = _gather(fold, [part.scores for part in parts])
    contrast = scores[:, 1:] - scores[:, :1]
    average = _gather(fold, [np.tile(part.average, (int(part.held_out.sum()), 1)) for part in parts])
    earned = {CONSTANT: _earned(average, contrast, cost)}
    kept = {}
    for name in LEARNERS:
        effect = _gather(fold, [part.effects[name][part.held_out] for part in parts])
        kept[name] = _share_kept(effect, contrast, log.cluster)
        # A fold's own members have no say in how far their effects are shrunk.
        share = np.array([_share_kept(effect[fold != k], contrast[fold != k], log.cluster[fold != k]) for k in range(FOLDS)])
        earned[name] = _earned(average + share[fold] * effect, contrast, cost)
    gains = {name: _estimate(earned[name] - earned[CONSTANT], log.cluster) for name in LEARNERS}
    best = max(LEARNERS, key=lambda name: gains[name].value)
    standard_error = (gains[best].upper - gains[best].value) / 1.96
    learner = best if gains[best].value > standard_error else CONSTANT
    share = kept[learner] if learner in kept else np.zeros(len(cost))
    effects = [_estimate(column, log.cluster) for column in contrast.T]
    teacher = np.tile([effect.value for effect in effects], (len(fold), 1))
    if learner != CONSTANT:
        teacher = teacher + share * np.mean([part.effects[learner] for part in parts], axis=0)
    values = {name: _estimate(earning, log.cluster) for name, earning in earned.items()}
    return _Choice(learner, teacher, share, effects, values, gains)


def _share_kept(effect: Floats, contrast: Floats, cluster: Ints) -> Floats:
    """Say how much of predicted heterogeneity held-out members bear out, `(n_offers,)` of 0 to 1.

    The slope b of the doubly robust contrast on the centred prediction is 1 where predictions hold (the best linear
    predictor of Chernozhukov, Demirer, Duflo and Fernández-Val, 2018); b max(0, 1 - (se / b)^2) takes off what chance gives
    (James and Stein, positive part), so that pure noise keeps nothing five times in six.
    """
    centred = effect - effect.mean(axis=0)
    spread = (centred**2).sum(axis=0)
    slope = np.divide((centred * contrast).sum(axis=0), spread, out=np.zeros_like(spread), where=spread > 0)
    noise = centred * (contrast - contrast.mean(axis=0) - slope * centred)
    by_member = np.column_stack([np.bincount(cluster, weights=column) for column in noise.T])
    with np.errstate(divide="ignore", invalid="ignore"):
        sure = 1 - (by_member**2).sum(axis=0) / (slope * spread) ** 2
    return np.clip(np.where(slope > 0, slope * np.maximum(np.nan_to_num(sure, nan=0.0, neginf=0.0), 0), 0.0), 0, 1)


def _earned(uplift: Floats, contrast: Floats, cost: Floats) -> Floats:
    """Score against no contact the policy that sends the best offer where it earns its cost, `(n,)`."""
    net = uplift - cost
    best = net.argmax(axis=1)
    rows = np.arange(len(best))
    return np.asarray(np.where(net[rows, best] > 0, (contrast - cost)[rows, best], 0.0))


def _estimate(values: Floats, cluster: Ints) -> Estimate:
    """Estimate a mean with a 95 % interval that counts members, not rows."""
    mean = float(values.mean())
    half = 1.96 * float(np.sqrt((np.bincount(cluster, weights=values - mean) ** 2).sum())) / len(values)
    return Estimate(mean, mean - half, mean + half, len(values))


def _gather(fold: Ints, held_out: Sequence[Floats]) -> Floats:
    gathered = np.empty((len(fold), held_out[0].shape[1]))
    for k, values in enumerate(held_out):
        gathered[fold == k] = values
    return gathered


def _distil(
    log: Log, teacher: Floats, *, nthread: int, held_out: Flags, strategy: Strategy = "multi_output_tree"
) -> tuple[xgb.Booster, float]:
    """Fit one booster to the teacher, and say how well one fitted on the other members follows it on `held_out`."""
    constant = bool((teacher == teacher[0]).all())
    booster = _student(log.X, teacher, nthread=nthread, rounds=1 if constant else STUDENT.rounds, strategy=strategy)
    if constant:
        return booster, 1.0
    rival = _student(log.X[~held_out], teacher[~held_out], nthread=nthread, rounds=STUDENT.rounds, strategy=strategy)
    said = np.asarray(rival.inplace_predict(log.X[held_out])).reshape(teacher[held_out].shape)
    varied = [a for a in range(teacher.shape[1]) if np.ptp(teacher[held_out, a]) > 0]
    return booster, float(np.mean([np.corrcoef(said[:, a], teacher[held_out, a])[0, 1] for a in varied]))


def _student(X: Matrix, teacher: Floats, *, nthread: int, rounds: int, strategy: Strategy) -> xgb.Booster:
    # Everything is learned, nothing drawn: the teacher is smooth, and there is no noise to average away.
    params = replace(STUDENT, nthread=nthread).params(len(X)) | {"multi_strategy": strategy, "subsample": 1.0}
    return xgb.train(params, xgb.QuantileDMatrix(X, teacher, max_bin=64, nthread=nthread), num_boost_round=rounds)


def _matrix(X: pd.DataFrame | ArrayLike) -> Matrix:
    if isinstance(X, pd.DataFrame):
        odd = [str(n) for n, d in X.dtypes.items() if not (pd.api.types.is_numeric_dtype(d) or d == bool)]
        if odd:
            raise ContractError(f"columns {odd} are no numbers; leave them out or encode them as numbers")
        X = X.to_numpy(dtype=np.float32, na_value=np.nan)
    matrix = np.asarray(X, dtype=np.float32)
    if matrix.ndim != 2 or not matrix.size:  # noqa: PLR2004 (rows and columns)
        raise ContractError(f"features of shape {matrix.shape} came, (n_rows, n_features) was wanted")
    if np.isinf(matrix).any():
        raise ContractError("an infinite feature came, finite or missing (NaN) was wanted")
    return matrix


def _log(
    X: Matrix, treatment: ArrayLike, outcome: ArrayLike, propensity: ArrayLike | None, clusters: ArrayLike | None
) -> tuple[Log, tuple[str, ...]]:
    names = np.asarray(treatment).astype(str)
    y = np.asarray(outcome, dtype=np.float64)
    p = np.full(len(y), 0.5) if propensity is None else np.asarray(propensity, dtype=np.float64)
    members = np.arange(len(y)) if clusters is None else np.asarray(clusters)
    lengths = {"X": len(X), "treatment": len(names), "outcome": len(y), "propensity": len(p), "clusters": len(members)}
    if len(set(lengths.values())) > 1:
        raise ContractError(f"rows of {lengths} came, one length for all was wanted")
    if not np.isfinite(y).all():
        raise ContractError(f"{(~np.isfinite(y)).sum()} outcomes are missing or infinite; leave unfinished rows out")
    if not ((p > 0) & (p < 1)).all():
        raise ContractError(
            f"{(~((p > 0) & (p < 1))).sum()} propensities are 0, 1, missing or outside; wanted the probability of the logged "
            "treatment, or none at all to have it estimated"
        )
    return _arms(X, names, y, p, np.unique(members, return_inverse=True)[1])


def _arms(X: Matrix, names: Any, y: Floats, p: Floats, cluster: Ints) -> tuple[Log, tuple[str, ...]]:  # noqa: ANN401 (strings)
    offers = tuple(str(name) for name in np.unique(names) if name != CONTROL)
    for name in (CONTROL, *offers):
        members = len(np.unique(cluster[names == name]))
        if members < FEWEST_MEMBERS:
            raise ContractError(
                f"treatment {name!r} has {members} members, at least {FEWEST_MEMBERS} were wanted; log more or leave it out"
            )
    if not offers:
        raise ContractError(f"only {CONTROL!r} was logged; wanted at least one offer beside it")
    arm = np.searchsorted(offers, names) + 1
    return Log(X, np.where(names == CONTROL, 0, arm), y, p, cluster, arms=len(offers) + 1), offers


def _estimated_propensity(log: Log, rng: np.random.Generator, nthread: int) -> Floats:
    """Estimate the probability of the logged treatment from X, cross-fitted, at least 0.01."""
    fold = folds_of(log.cluster, FOLDS, rng)
    estimated = np.empty(len(fold))
    params = Trees(nthread=nthread).params(len(fold)) | {"objective": "multi:softprob", "num_class": log.arms}
    for k in range(FOLDS):
        rest = xgb.QuantileDMatrix(log.X[fold != k], log.arm[fold != k], max_bin=64, nthread=nthread)
        booster = xgb.train(params, rest, num_boost_round=60)
        probability = np.asarray(booster.inplace_predict(log.X[fold == k]))
        estimated[fold == k] = probability[np.arange(len(probability)), log.arm[fold == k]]
    return np.clip(estimated, 0.01, 0.99)
