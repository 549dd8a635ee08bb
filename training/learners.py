"""Meta-learners: from an experiment's log to what each offer changes for each member.

Margin varies far more between members than an offer moves it, so learners work on the residual of a cross-fitted
baseline, E[outcome | x] over all treatments: it removes most of the noise and none of the effect. But where effects
follow the outcome's own drivers, as answers to a mailing do, learners of the outcome as it is find them sooner; so the
pool holds both. Either way what is far out is winsorised (margins are heavy-tailed), for training only.

S-, T- and X-learner: Künzel, Sekhon, Bickel and Yu, "Metalearners for estimating heterogeneous treatment effects using
machine learning", PNAS 2019. DR-learner: Kennedy, "Towards optimal doubly robust estimation of heterogeneous causal
effects", 2023. All are gradient boosted trees, shallow and slow: what is left to learn is faint.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Self

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Matrix = NDArray[np.float32]

INNER_FOLDS: Final = 2
TAIL: Final = 0.99  # residuals beyond this quantile of their size are pulled in


@dataclass(frozen=True)
class Trees:
    """Say how trees are grown; the shares make the smallest leaf grow with the data."""

    depth: int = 2
    rate: float = 0.05
    rounds: int = 80
    leaf_share: float = 0.01
    ridge: float = 10.0
    seed: int = 0

    def params(self, n: int) -> dict[str, object]:
        """Give XGBoost's parameters for `n` rows."""
        return {
            "max_depth": self.depth,
            "eta": self.rate,
            "min_child_weight": max(5.0, self.leaf_share * n),
            "lambda": self.ridge,
            "subsample": 0.8,
            "nthread": 1,  # folds run side by side instead: OpenMP threads spin when cores are shared
            "seed": self.seed,
            "tree_method": "hist",
            "max_bin": 64,
        }


BASELINE: Final = Trees(depth=4, rate=0.06, rounds=100, leaf_share=0.002)
EFFECT: Final = Trees()


@dataclass(frozen=True)
class Experiment:
    """Hold an experiment's log as arrays of one length."""

    X: Matrix  # (n, n_features)
    arm: Ints  # (n,) 0 for control, 1.. for the offers in order
    outcome: Floats  # (n,)
    propensity: Floats  # (n,) of the arm that was drawn
    cluster: Ints  # (n,) the member
    arms: int  # control and offers

    def take(self, rows: Flags) -> Self:
        """Give the log of some rows."""
        return replace(
            self,
            X=self.X[rows],
            arm=self.arm[rows],
            outcome=self.outcome[rows],
            propensity=self.propensity[rows],
            cluster=self.cluster[rows],
        )


def folds_of(cluster: Ints, folds: int, rng: np.random.Generator) -> Ints:
    """Draw a fold for every row, the same for all rows of a member, the folds equally many members."""
    members, position = np.unique(cluster, return_inverse=True)
    return np.asarray(rng.permutation(np.arange(len(members)) % folds)[position], dtype=np.int64)


def grow(data: xgb.QuantileDMatrix, target: Floats, trees: Trees) -> xgb.Booster:
    """Fit a regression of `target` on matrix already cut into quantiles."""
    data.set_label(target)
    return xgb.train(trees.params(len(target)), data, num_boost_round=trees.rounds)


def at(boosters: list[xgb.Booster], X: Matrix) -> Floats:
    """Average what boosters predict, `(n,)`."""
    return np.asarray(np.mean([booster.inplace_predict(X) for booster in boosters], axis=0, dtype=np.float64))


def doubly_robust(residual: Floats, arm_means: Floats, arm: Ints, propensity: Floats) -> Floats:
    """Score every row under every arm, `(n, arms)`: m_a(x) + 1[arm = a] (residual - m_a(x)) / propensity.

    Its mean over rows estimates the mean outcome of an arm, without bias where propensities are known whatever
    `arm_means` are (Robins, Rotnitzky and Zhao, 1994).

    >>> doubly_robust(np.array([3.0]), np.array([[1.0, 2.0]]), np.array([1]), np.array([0.5]))
    array([[1., 4.]])
    """
    scores = arm_means.copy()
    rows = np.arange(len(arm))
    scores[rows, arm] += (residual - arm_means[rows, arm]) / propensity
    return scores


@dataclass(frozen=True)
class Nuisance:
    """Hold what every learner shares, fitted on the members of `log`."""

    log: Experiment
    baseline: Floats  # (n,) cross-fitted
    residual: Floats  # (n,) of the baseline, winsorised
    arm_means: Floats  # (n, arms) of the residual, cross-fitted
    cap: float
    baselines: list[xgb.Booster]
    arms: list[list[xgb.Booster]]  # per arm, one for each inner fold
    cuts: xgb.QuantileDMatrix
    trees: Trees

    @property
    def outcome_means(self) -> Floats:
        """Predict the mean outcome of every row under every arm, `(n, arms)`, each by models that have not seen it."""
        return self.baseline[:, None] + self.arm_means

    @property
    def contrasts(self) -> Floats:
        """Doubly robust pseudo-outcomes of the offers against control, `(n, n_offers)`."""
        return _against_control(doubly_robust(self.residual, self.arm_means, self.log.arm, self.log.propensity))

    def arm_means_at(self, X: Matrix) -> Floats:
        """Predict the mean residual of every arm, `(n, arms)`."""
        return np.column_stack([at(boosters, X) for boosters in self.arms])

    def about_mean(self, rng: np.random.Generator) -> "Nuisance":
        """Fit the arms' means of the outcome as it is, for learners that want no baseline."""
        mean = float(self.log.outcome.mean())
        outcome, cap = winsorise(self.log.outcome - mean, self.log.outcome)
        empty = np.zeros_like(self.arm_means)
        plain = replace(self, baseline=np.full(len(outcome), mean), residual=outcome, cap=cap, arm_means=empty, arms=[])
        return _fit_arms(plain, folds_of(self.log.cluster, INNER_FOLDS, rng))

    def scores(self, held_out: Experiment) -> Floats:
        """Score members this was not fitted on under every arm; see `doubly_robust`."""
        residual = np.clip(held_out.outcome - at(self.baselines, held_out.X), -self.cap, self.cap)
        return doubly_robust(residual, self.arm_means_at(held_out.X), held_out.arm, held_out.propensity)

    def cut(self, X: Matrix) -> xgb.QuantileDMatrix:
        """Cut a part of the matrix at the quantiles of the whole."""
        return xgb.QuantileDMatrix(X, ref=self.cuts, max_bin=64, nthread=1)


def fit_nuisance(log: Experiment, *, rng: np.random.Generator) -> Nuisance:
    """Fit the baseline and the arms' means, each row by models that have not seen its member."""
    trees = replace(EFFECT, seed=int(rng.integers(2**31)))
    fold = folds_of(log.cluster, INNER_FOLDS, rng)
    cuts = xgb.QuantileDMatrix(log.X, max_bin=64, nthread=1)
    baseline = np.empty(len(log.arm))
    empty = Nuisance(log, baseline, log.outcome, np.zeros((len(log.arm), log.arms)), np.inf, [], [], cuts, trees)
    deep = replace(BASELINE, seed=trees.seed)
    for k in range(INNER_FOLDS):
        booster = grow(empty.cut(log.X[fold != k]), log.outcome[fold != k], deep)
        baseline[fold == k] = at([booster], log.X[fold == k])
        empty.baselines.append(booster)
    residual, cap = winsorise(log.outcome - baseline, log.outcome)
    return _fit_arms(replace(empty, residual=residual, cap=cap), fold)


def _fit_arms(stage: Nuisance, fold: Ints) -> Nuisance:
    log = stage.log
    for a in range(log.arms):
        stage.arms.append([])
        for k in range(INNER_FOLDS):
            rows = (fold != k) & (log.arm == a)
            booster = grow(stage.cut(log.X[rows]), stage.residual[rows], stage.trees)
            stage.arm_means[fold == k, a] = at([booster], log.X[fold == k])
            stage.arms[a].append(booster)
    return stage


def winsorise(residual: Floats, outcome: Floats) -> tuple[Floats, float]:
    """Pull in residuals whose size is beyond the 99th percentile, and say at what size.

    The percentile is that of rows with an outcome other than the commonest: where nearly all members do nothing, or
    nearly all stay, the few others are the signal.
    """
    values, times = np.unique(outcome, return_counts=True)
    others = np.abs(residual[outcome != values[times.argmax()]])
    cap = float(np.quantile(others, TAIL)) if len(others) else np.inf
    return np.clip(residual, -cap, cap), cap


def s_learner(nuisance: Nuisance, X: Matrix) -> Floats:
    """Fit one model of x and treatment; the effect is the difference it makes to switch the treatment."""
    log = nuisance.log
    indicators = np.eye(log.arms, dtype=np.float32)
    data = xgb.QuantileDMatrix(np.hstack([log.X, indicators[log.arm]]), max_bin=64, nthread=1)
    booster = grow(data, nuisance.residual, replace(nuisance.trees, depth=3, rounds=120))
    means = [at([booster], np.hstack([X, np.tile(row, (len(X), 1))])) for row in indicators]
    return _against_control(np.column_stack(means))


def t_learner(nuisance: Nuisance, X: Matrix) -> Floats:
    """Fit one model for each treatment; the effect is the difference of their predictions."""
    return _against_control(nuisance.arm_means_at(X))


def x_learner(nuisance: Nuisance, X: Matrix) -> Floats:
    """Impute each member's effect by the other arm's model, regress both sides, weight them by the arms' shares."""
    log, means = nuisance.log, nuisance.arm_means
    control = log.arm == 0
    data_control = nuisance.cut(log.X[control])
    effects = []
    for a in range(1, log.arms):
        treated = log.arm == a
        on_control = grow(data_control, means[control, a] - nuisance.residual[control], nuisance.trees)
        on_treated = grow(nuisance.cut(log.X[treated]), nuisance.residual[treated] - means[treated, 0], nuisance.trees)
        share = treated.sum() / (treated.sum() + control.sum())
        effects.append(share * at([on_control], X) + (1 - share) * at([on_treated], X))
    return np.column_stack(effects)


def dr_learner(nuisance: Nuisance, X: Matrix) -> Floats:
    """Regress the doubly robust pseudo-outcomes of each offer on x."""
    effects = [at([grow(nuisance.cuts, target, nuisance.trees)], X) for target in nuisance.contrasts.T]
    return np.column_stack(effects)


LEARNERS: Final[dict[str, Callable[[Nuisance, Matrix], Floats]]] = {
    "S-learner": s_learner,
    "T-learner": t_learner,
    "X-learner": x_learner,
    "DR-learner": dr_learner,
}
PLAIN: Final = {
    name: LEARNERS[name] for name in ("S-learner", "T-learner", "X-learner")
}  # without a baseline; DR is the same with and without


def estimate_effects(nuisance: Nuisance, X: Matrix, rng: np.random.Generator) -> dict[str, Floats]:
    """Give every learner's word on members `X`, `(n, n_offers)` by learner."""
    plain = nuisance.about_mean(rng)
    found = {name: learner(nuisance, X) for name, learner in LEARNERS.items()}
    return found | {f"{name} without baseline": learner(plain, X) for name, learner in PLAIN.items()}


def _against_control(by_arm: Floats) -> Floats:
    return np.asarray(by_arm[:, 1:] - by_arm[:, :1])
