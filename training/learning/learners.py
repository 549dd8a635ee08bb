"""Meta-learners: from an experiment's log to what each offer changes for each member.

Margin varies far more between members than an offer moves it, so learners work on the residual of a cross-fitted
baseline, E[outcome | x] over all treatments: it removes most of the noise and none of the effect. But where effects
follow the outcome's own drivers, as answers to a mailing do, learners of the outcome as it is find them sooner; so the
pool holds both. Either way what is far out is winsorised (margins are heavy-tailed), for training only.

S-, T- and X-learner: Künzel, Sekhon, Bickel and Yu, "Metalearners for estimating heterogeneous treatment effects using
machine learning", PNAS 2019. DR-learner: Kennedy, "Towards optimal doubly robust estimation of heterogeneous causal
effects", 2023. All are gradient boosted trees, shallow and slow: what is left to learn is faint.

What a learner takes from the baseline and the arms' means of a member is said by models of the other half of members:
nothing explains its own noise (Chernozhukov et al., "Double/debiased machine learning", 2018).
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, Self

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from training.splits import folds_of

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Matrix = NDArray[np.float32]

HALVES: Final = (0, 1)
BINS: Final = 64  # quantiles that a split may lie at
ENOUGH_TO_CUT: Final = 50_000  # rows that say where these are
FEW_ENOUGH_TO_HOLD: Final = 100_000  # rows whose cut matrices are held; of more, memory is dearer than cutting anew
BLOCK: Final = 1 << 16  # rows that are copied at once
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
    threads: int = 1  # OpenMP threads spin when cores are shared: where there are folds, these run side by side instead

    def params(self, n: int) -> dict[str, object]:
        """Give XGBoost's parameters for `n` rows."""
        return {
            "max_depth": self.depth,
            "eta": self.rate,
            "min_child_weight": max(5.0, self.leaf_share * n),
            "lambda": self.ridge,
            "subsample": 0.8,
            "nthread": self.threads,
            "seed": self.seed,
            "tree_method": "hist",
            "max_bin": BINS,
        }


BASELINE: Final = Trees(depth=4, rate=0.06, rounds=100, leaf_share=0.002)
EFFECT: Final = Trees()
LARGER: Final = Trees(depth=3, rate=0.06, rounds=100, leaf_share=0.002)  # for some hundred thousand rows and more


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


def grow(data: xgb.QuantileDMatrix, target: Floats, trees: Trees) -> xgb.Booster:
    """Fit a regression of `target` on matrix already cut into quantiles."""
    data.set_label(target)
    return xgb.train(trees.params(len(target)), data, num_boost_round=trees.rounds)


def at(boosters: Sequence[xgb.Booster], X: Matrix) -> Floats:
    """Average what boosters predict, `(n,)`."""
    return np.asarray(np.mean([booster.inplace_predict(X) for booster in boosters], axis=0, dtype=np.float64))


def doubly_robust(residual: Floats, arm_means: Floats, arm: Ints, propensity: Floats) -> Floats:
    """Score every row under every arm, `(n, arms)`: m_a(x) + 1[arm = a] (residual - m_a(x)) / propensity.

    Its mean over rows estimates the mean outcome of an arm, without bias where propensities are known whatever
    `arm_means` are (Robins, Rotnitzky and Zhao, 1994).

    >>> doubly_robust(np.array([3.0]), np.array([[1.0, 2.0]]), np.array([1]), np.array([0.5]))
    array([[1., 4.]])
    """
    return np.column_stack([_score(residual, mean, arm == a, propensity) for a, mean in enumerate(arm_means.T)])


def _score(residual: Floats, mean: Floats | Matrix, drawn: Flags, propensity: Floats) -> Floats:
    score = mean.astype(np.float64)
    score[drawn] += (residual - score)[drawn] / propensity[drawn]
    return score


class Blocks(xgb.DataIter):  # type: ignore[misc]  # XGBoost's classes are untyped
    """Hand a matrix over block by block, so that no part of it is copied whole."""

    def __init__(self, n: int, rows_of: Callable[[slice], Matrix]) -> None:
        super().__init__()
        self.n, self.rows_of, self.start = n, rows_of, 0

    def next(self, input_data: Callable[..., Any]) -> bool:
        """Hand over the next block, if any is left."""
        if self.start >= self.n:
            return False
        input_data(data=self.rows_of(slice(self.start, self.start + BLOCK)))
        self.start += BLOCK
        return True

    def reset(self) -> None:
        """Begin anew."""
        self.start = 0


@dataclass(frozen=True)
class Cuts:
    """Cut the matrix of a log and its parts at the same quantiles.

    To cut a row takes as long as to grow forty trees on it: where rows are few, each part is cut once for all learners.
    """

    log: Experiment
    half: NDArray[np.int8]  # (n,) 0 or 1
    threads: int
    held: dict[str, xgb.QuantileDMatrix] = field(default_factory=dict)

    def rows(self, *, half: int | None = None, arm: int | None = None) -> Flags:
        """Say which rows are of a half and of an arm; None is both halves, every arm."""
        of_half = True if half is None else self.half == half
        return np.broadcast_to(of_half & (True if arm is None else self.log.arm == arm), self.half.shape)

    def __call__(self, *, half: int | None = None, arm: int | None = None) -> xgb.QuantileDMatrix:
        """Give the matrix of those rows."""
        return self._once(f"{half} {arm}", lambda: self.of(self.rows(half=half, arm=arm)))

    def of(self, rows: Flags) -> xgb.QuantileDMatrix:
        """Cut some rows, and hold nothing."""
        if rows.all():
            return self.quantiles if self._every == 1 else self._cut(self.log.X, self.quantiles)
        X, places = self.log.X, np.flatnonzero(rows)
        return self._cut(Blocks(len(places), lambda block: X[places[block]]), self.quantiles)

    @cached_property
    def quantiles(self) -> xgb.QuantileDMatrix:
        """Hold the rows whose quantiles are everybody's: to find those of a million takes as long as eighty trees."""
        return self._cut(self.log.X[:: self._every])

    def with_arms(self) -> xgb.QuantileDMatrix:
        """Give the matrix with a column more for each arm, 1 for the arm that was drawn."""
        X, arm, drawn = self.log.X, self.log.arm, np.eye(self.log.arms, dtype=np.float32)

        def rows(block: slice) -> Matrix:
            return np.hstack([X[block], drawn[arm[block]]])

        def cut() -> xgb.QuantileDMatrix:
            quantiles = self._cut(rows(slice(None, None, self._every)))
            return quantiles if self._every == 1 else self._cut(Blocks(len(arm), rows), quantiles)

        return self._once("with arms", cut)

    def _once(self, name: str, cut: Callable[[], xgb.QuantileDMatrix]) -> xgb.QuantileDMatrix:
        if name in self.held:
            return self.held[name]
        matrix = cut()
        if len(self.half) <= FEW_ENOUGH_TO_HOLD:
            self.held[name] = matrix
        return matrix

    @property
    def _every(self) -> int:
        return max(1, len(self.half) // ENOUGH_TO_CUT)

    def _cut(self, data: Matrix | Blocks, ref: xgb.QuantileDMatrix | None = None) -> xgb.QuantileDMatrix:
        return xgb.QuantileDMatrix(data, ref=ref, max_bin=BINS, nthread=self.threads)


@dataclass(frozen=True)
class Nuisance:
    """Hold what every learner shares, fitted on the members of `log`."""

    cuts: Cuts
    baselines: list[xgb.Booster]  # by half
    baseline: Floats  # (n,) by the other half's
    residual: Floats  # (n,) of the baseline, winsorised
    cap: float
    arms: list[list[xgb.Booster]]  # by half and arm
    arm_means: Matrix  # (n, arms) of the residual, by the other half's
    trees: Trees

    @property
    def log(self) -> Experiment:
        """Give the log that this was fitted on."""
        return self.cuts.log

    @property
    def outcome_means(self) -> Floats:
        """Predict the mean outcome of every row under every arm, `(n, arms)`, each by models that have not seen it."""
        return self.baseline[:, None] + self.arm_means

    @property
    def contrasts(self) -> Floats:
        """Doubly robust pseudo-outcomes of the offers against control, `(n, n_offers)`."""
        return np.column_stack([self.contrast(a) for a in range(1, self.log.arms)])

    def contrast(self, arm: int) -> Floats:
        """Doubly robust pseudo-outcomes of one offer against control, `(n,)`."""
        offer, control = (
            _score(self.residual, self.arm_means[:, a], self.log.arm == a, self.log.propensity) for a in (arm, 0)
        )
        return offer - control

    def arm_means_at(self, X: Matrix) -> Floats:
        """Predict the mean residual of every arm, `(n, arms)`."""
        return np.column_stack([at(boosters, X) for boosters in zip(*self.arms, strict=True)])

    def scores(self, held_out: Experiment) -> Floats:
        """Score members this was not fitted on under every arm; see `doubly_robust`."""
        residual = np.clip(held_out.outcome - at(self.baselines, held_out.X), -self.cap, self.cap)
        return doubly_robust(residual, self.arm_means_at(held_out.X), held_out.arm, held_out.propensity)

    def without_baseline(self) -> "Nuisance":
        """Fit the arms' means of the outcome as it is, for learners that want no baseline."""
        outcome = self.log.outcome
        mean = np.full(len(outcome), outcome.mean())
        return _fit_arms(self.cuts, [], mean, self.trees)


def fit_nuisance(
    log: Experiment,
    *,
    rng: np.random.Generator,
    threads: int = 1,
    baseline_trees: Trees = BASELINE,
    effect_trees: Trees = EFFECT,
) -> Nuisance:
    """Fit the baseline and the arms' means, each row by models that have not seen its member."""
    trees = replace(effect_trees, seed=int(rng.integers(2**31)), threads=threads)
    cuts = Cuts(log, folds_of(log.cluster, len(HALVES), rng).astype(np.int8), threads)
    deep = replace(baseline_trees, seed=trees.seed, threads=threads)
    baselines = []
    for half in HALVES:
        rows = cuts.rows(half=half)
        baselines.append(grow(cuts.of(rows), log.outcome[rows], deep))
    baseline = _crossed([[booster] for booster in baselines], cuts)[:, 0].astype(np.float64)
    return _fit_arms(cuts, baselines, baseline, trees)


def _fit_arms(cuts: Cuts, baselines: list[xgb.Booster], baseline: Floats, trees: Trees) -> Nuisance:
    log = cuts.log
    residual, cap = winsorise(log.outcome - baseline, log.outcome)
    arms = [
        [grow(cuts(half=half, arm=a), residual[cuts.rows(half=half, arm=a)], trees) for a in range(log.arms)]
        for half in HALVES
    ]
    return Nuisance(cuts, baselines, baseline, residual, cap, arms, _crossed(arms, cuts), trees)


def _crossed(boosters: list[list[xgb.Booster]], cuts: Cuts) -> Matrix:
    """Predict every row by the boosters of the half that it is not of, `(n, n_boosters)`."""
    predicted = np.empty((len(cuts.half), len(boosters[0])), dtype=np.float32)
    for half in HALVES:
        rows = np.flatnonzero(cuts.rows(half=half))
        for start in range(0, len(rows), BLOCK):
            block = rows[start : start + BLOCK]
            X = cuts.log.X[block]
            predicted[block] = np.column_stack([booster.inplace_predict(X) for booster in boosters[1 - half]])
    return predicted


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
    trees = replace(nuisance.trees, depth=3, rounds=120)
    booster = grow(nuisance.cuts.with_arms(), nuisance.residual, trees)
    drawn = np.eye(nuisance.log.arms, dtype=np.float32)
    return _against_control(
        np.column_stack([at([booster], np.hstack([X, np.tile(row, (len(X), 1))])) for row in drawn])
    )


def t_learner(nuisance: Nuisance, X: Matrix) -> Floats:
    """Fit one model for each treatment; the effect is the difference of their predictions."""
    return _against_control(nuisance.arm_means_at(X))


def x_learner(nuisance: Nuisance, X: Matrix) -> Floats:
    """Impute each member's effect by the other arm's model, regress both sides, weight them by the arms' shares."""
    cuts, residual, means, trees = nuisance.cuts, nuisance.residual, nuisance.arm_means, nuisance.trees
    control, drawn = cuts.rows(arm=0), np.bincount(nuisance.log.arm)
    effects = []
    for a in range(1, nuisance.log.arms):
        treated = cuts.rows(arm=a)
        on_control = grow(cuts(arm=0), means[control, a] - residual[control], trees)
        on_treated = grow(cuts(arm=a), residual[treated] - means[treated, 0], trees)
        share = drawn[a] / (drawn[a] + drawn[0])
        effects.append(share * at([on_control], X) + (1 - share) * at([on_treated], X))
    return np.column_stack(effects)


def dr_learner(nuisance: Nuisance, X: Matrix) -> Floats:
    """Regress the doubly robust pseudo-outcomes of each offer on x."""
    matrix, trees = nuisance.cuts(), nuisance.trees
    return np.column_stack([at([grow(matrix, nuisance.contrast(a), trees)], X) for a in range(1, nuisance.log.arms)])


LEARNERS: Final[dict[str, Callable[[Nuisance, Matrix], Floats]]] = {
    "S-learner": s_learner,
    "T-learner": t_learner,
    "X-learner": x_learner,
    "DR-learner": dr_learner,
}
PLAIN: Final = {
    f"{name} without baseline": LEARNERS[name] for name in ("S-learner", "T-learner", "X-learner")
}  # DR is the same with and without
NAMES: Final = (*LEARNERS, *PLAIN)


def estimate_effects(nuisance: Nuisance, X: Matrix, names: Collection[str] = NAMES) -> dict[str, Floats]:
    """Give the learners' word on members `X`, `(n, n_offers)` by name."""
    found = {name: learner(nuisance, X) for name, learner in LEARNERS.items() if name in names}
    if not set(names) & set(PLAIN):
        return found
    plain = nuisance.without_baseline()
    return found | {name: learner(plain, X) for name, learner in PLAIN.items() if name in names}


def _against_control(by_arm: Floats) -> Floats:
    return np.asarray(by_arm[:, 1:] - by_arm[:, :1])
