"""Uplift for several offers: what each would add to each member's outcome, in one booster.

Four meta-learners are cross-fitted by member, their heterogeneity is shrunk as far as held-out members do not bear it
out, and the one whose policy earns most on held-out members is kept, if it beats the average effects alone by a
standard error. Its estimates, smoothed over the folds, are distilled into one booster with an output per offer:
training such a booster straight on pseudo-outcomes ranks far worse.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import xgboost as xgb
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from features.errors import ContractError
from features.schema import CONTROL
from training.cross_fit import Choice, choose, cross_fit, learn_from_all
from training.encoding import Encoding, fit_encoding
from training.learners import BINS, Experiment, Flags, Floats, Ints, Matrix, Trees
from training.metrics import Estimate
from training.splits import folds_of
from training.uplift_interval import EffectBands, fit_bands, interval, standard_error

FOLDS: Final = 5
FEWEST_MEMBERS: Final = 30  # of an arm: below, a fold and its inner halves would hold a handful
LEAK: Final = 0.99  # rank correlation with the outcome; spend foretells spend by 0.9 at most
ENOUGH_TO_SEE: Final = 20_000  # rows
PLENTY: Final = 100_000  # members to compare learners on, and to distil from
PLENTY_OF_AN_ARM: Final = 2_000
STUDENT: Final = Trees(depth=6, rate=0.2, rounds=40, leaf_share=0.0, ridge=1.0)
Strategy = Literal["multi_output_tree", "one_output_per_tree"]


@dataclass(frozen=True)
class UpliftRecord:
    """Say how an uplift model came about; amounts in the outcome's unit per row."""

    learner: str  # the one chosen
    policy_values: dict[str, Estimate]  # by learner: held-out value against no contact, after contact costs
    gain_over_constant: dict[str, Estimate]  # by learner, paired
    average_effect: dict[str, Estimate]  # by offer, doubly robust
    heterogeneity_kept: dict[str, float]  # by offer: 0 is the average alone, 1 the learner's word, above 1 even more
    winsorised_at: float  # distance from the baseline at which training outcomes were cut
    fidelity: float  # correlation of the distilled booster with its teacher on members it had not seen
    propensity: Literal["known", "estimated"]
    n_members: int


@dataclass(frozen=True)
class UpliftModel:
    """Predict the uplift of every offer against control."""

    offers: tuple[str, ...]
    encoding: Encoding
    booster: xgb.Booster
    record: UpliftRecord
    bands: tuple[EffectBands, ...]  # by offer

    def predict(self, X: pd.DataFrame | ArrayLike) -> Floats:
        """Predict uplift `(n_members, n_offers)` in the outcome's unit; columns as in `offers`."""
        matrix = self.encoding.matrix(X)
        return np.asarray(self.booster.inplace_predict(matrix), dtype=np.float64).reshape(len(matrix), -1)

    def interval(self, X: pd.DataFrame | ArrayLike) -> tuple[Floats, Floats]:
        """Give the 95 % interval of the mean effect of members like these; see `uplift_interval` for what it holds."""
        return interval(self.bands, self.predict(X))

    def error(self, X: pd.DataFrame | ArrayLike) -> Floats:
        """Give the standard error of that mean, `(n_members, n_offers)`, in the outcome's unit."""
        return standard_error(self.bands, self.predict(X))


def fit_uplift(
    X: pd.DataFrame | ArrayLike,
    treatment: ArrayLike,
    outcome: ArrayLike,
    propensity: ArrayLike | None = None,
    *,
    clusters: ArrayLike | None = None,
    contact_cost: Mapping[str, float] | None = None,
    rng: np.random.Generator | None = None,
    nthread: int = 2,
) -> UpliftModel:
    """Learn from an experiment's log what each offer adds for each member.

    Parameters
    ----------
    X : (n_rows, n_features) numbers, booleans or words known before the treatment; missing allowed
    treatment : (n_rows,) offer ids and `control`
    outcome : (n_rows,) before contact costs, higher is better; money or 0 and 1
    propensity : (n_rows,) the logging policy's probability of the logged treatment; estimated from X if not given
    clusters : (n_rows,) the member of each row; rows of a member stay together in a fold. Each row its own if not given
    contact_cost : by offer, in the outcome's unit; what a policy has to earn back when learners are compared
    rng : draws the folds and the trees' samples; the same every time if not given
    nthread : folds fitted side by side; the model's bytes do not depend on it

    Raises
    ------
    ContractError
        For columns that are neither numbers nor words, infinities, missing outcomes, propensities outside (0, 1), no
        control, a treatment too few members had, or a feature that is the outcome itself.
    """
    rng = rng or np.random.default_rng(0)
    encoding = fit_encoding(X)
    log, offers = _log(encoding.matrix(X), treatment, outcome, propensity, clusters)
    cost = np.array([(contact_cost or {}).get(offer, 0.0) for offer in offers])
    _refuse_leaks(log, encoding.names)
    sample = _sample(log, rng)
    if propensity is None:
        log = replace(log, propensity=_estimated_propensity(log, sample, rng, nthread))
    fold = folds_of(log.cluster[sample], FOLDS, rng)
    part = log if sample.all() else log.take(sample)
    choice, cap = _choose(part, fold, cost, rng=rng, nthread=nthread)
    if not sample.all():
        choice = learn_from_all(choice, log, sample, rng, threads=nthread)
    booster, fidelity = _distil(part.X, choice.teacher, held_out=fold == 0, nthread=nthread)
    record = UpliftRecord(
        learner=choice.learner,
        policy_values=choice.policy_values,
        gain_over_constant=choice.gains,
        average_effect=dict(zip(offers, choice.average_effect, strict=True)),
        heterogeneity_kept=dict(zip(offers, choice.kept.tolist(), strict=True)),
        winsorised_at=cap,
        fidelity=fidelity,
        propensity="estimated" if propensity is None else "known",
        n_members=int(log.cluster.max()) + 1,
    )
    return UpliftModel(
        offers=offers, encoding=encoding, booster=booster, record=record, bands=_bands(part, fold, choice, booster)
    )


def _bands(log: Experiment, fold: Ints, choice: Choice, booster: xgb.Booster) -> tuple[EffectBands, ...]:
    served = np.asarray(booster.inplace_predict(log.X), dtype=np.float64).reshape(len(fold), -1)
    columns = zip(choice.held_out.T, choice.contrast.T, served.T, strict=True)
    return tuple(fit_bands(s, c, served=u, fold=fold, cluster=log.cluster) for s, c, u in columns)


def _refuse_leaks(log: Experiment, names: Sequence[str]) -> None:
    """Refuse features that know the outcome: with nothing left to explain, every effect would come out as none."""
    every = max(1, len(log.outcome) // ENOUGH_TO_SEE)
    outcome = log.outcome[::every]
    leaks = [
        name for name, column in zip(names, log.X[::every].T, strict=True) if _rank_correlation(column, outcome) > LEAK
    ]
    if leaks:
        raise ContractError(
            f"columns {leaks} follow the outcome (rank correlation above {LEAK}); wanted what was known before the "
            "treatment: leave them out"
        )


def _rank_correlation(column: Matrix, outcome: Floats) -> float:
    """Give Spearman's correlation, its sign left out, where the column is not missing; 0 where there is none."""
    known = ~np.isnan(column)
    if known.sum() < FEWEST_MEMBERS or np.ptp(column[known]) == 0 or np.ptp(outcome[known]) == 0:
        return 0.0
    return abs(float(np.corrcoef(rankdata(column[known]), rankdata(outcome[known]))[0, 1]))


def _sample(log: Experiment, rng: np.random.Generator) -> Flags:
    """Draw the members on whom learners are compared and the booster is distilled: all, up to a number that is plenty.

    Where an arm is rare, more are drawn.
    """
    members = int(log.cluster.max()) + 1
    rarest = np.bincount(log.arm).min() / len(log.arm)
    drawn = np.zeros(members, dtype=np.bool_)
    drawn[rng.permutation(members)[: max(PLENTY, int(PLENTY_OF_AN_ARM / rarest))]] = True
    return np.asarray(drawn[log.cluster])


def _choose(
    log: Experiment, fold: Ints, cost: Floats, *, rng: np.random.Generator, nthread: int
) -> tuple[Choice, float]:
    """Choose among learners by cross-fitting, and say at what distance outcomes were winsorised."""
    streams = rng.spawn(FOLDS)
    with ThreadPoolExecutor(nthread) as pool:  # XGBoost lets go of Python's lock while it trains
        parts = list(pool.map(lambda k: cross_fit(log, fold == k, streams[k]), range(FOLDS)))
    return choose(log, fold, parts, cost), float(np.mean([part.cap for part in parts]))


def _distil(
    X: Matrix, teacher: Floats, *, held_out: Flags, nthread: int, strategy: Strategy = "multi_output_tree"
) -> tuple[xgb.Booster, float]:
    """Fit one booster to the teacher, and say how well one fitted on the other members follows it on `held_out`."""
    if (teacher == teacher[0]).all():
        return _student(X, teacher, rounds=1, strategy=strategy), 1.0

    def fit(rows: Flags) -> xgb.Booster:
        return _student(X[rows], teacher[rows], rounds=STUDENT.rounds, strategy=strategy)

    with ThreadPoolExecutor(nthread) as pool:
        booster, rival = pool.map(fit, (np.ones_like(held_out), ~held_out))
    booster.set_param({"nthread": nthread})
    said = np.asarray(rival.inplace_predict(X[held_out])).reshape(teacher[held_out].shape)
    varied = [a for a in range(teacher.shape[1]) if np.ptp(teacher[held_out, a]) > 0]
    return booster, float(np.mean([np.corrcoef(said[:, a], teacher[held_out, a])[0, 1] for a in varied]))


def _student(X: Matrix, teacher: Floats, *, rounds: int, strategy: Strategy) -> xgb.Booster:
    # Everything is learned, nothing drawn: the teacher is smooth, and there is no noise to average away.
    params = STUDENT.params(len(X)) | {"multi_strategy": strategy, "subsample": 1.0}
    return xgb.train(params, xgb.QuantileDMatrix(X, teacher, max_bin=BINS, nthread=1), num_boost_round=rounds)


def _log(
    X: Matrix, treatment: ArrayLike, outcome: ArrayLike, propensity: ArrayLike | None, clusters: ArrayLike | None
) -> tuple[Experiment, tuple[str, ...]]:
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
            f"{(~((p > 0) & (p < 1))).sum()} propensities are 0, 1, missing or outside; wanted the probability of the "
            "logged treatment, or none at all to have it estimated"
        )
    return _arms(X, names, y, p, np.unique(members, return_inverse=True)[1])


def _arms(X: Matrix, names: Any, y: Floats, p: Floats, cluster: Ints) -> tuple[Experiment, tuple[str, ...]]:  # noqa: ANN401 (strings)
    offers = tuple(str(name) for name in np.unique(names) if name != CONTROL)
    for name in (CONTROL, *offers):
        members = len(np.unique(cluster[names == name]))
        if members < FEWEST_MEMBERS:
            raise ContractError(
                f"treatment {name!r} has {members} members, at least {FEWEST_MEMBERS} were wanted; leave it out"
            )
    if not offers:
        raise ContractError(f"only {CONTROL!r} was logged; wanted at least one offer beside it")
    arm = np.searchsorted(offers, names) + 1
    return Experiment(X, np.where(names == CONTROL, 0, arm), y, p, cluster, arms=len(offers) + 1), offers


def _estimated_propensity(log: Experiment, sample: Flags, rng: np.random.Generator, nthread: int) -> Floats:
    """Estimate the probability of the logged treatment, at least 0.01, from other members of the sample."""
    fold = folds_of(log.cluster, FOLDS, rng)
    params = Trees().params(int(sample.sum())) | {"objective": "multi:softprob", "num_class": log.arms}

    def estimate(k: int) -> Floats:
        learnt, rows = sample & (fold != k), fold == k
        data = xgb.QuantileDMatrix(log.X[learnt], log.arm[learnt], max_bin=BINS, nthread=1)
        by_arm = np.asarray(xgb.train(params, data, num_boost_round=60).inplace_predict(log.X[rows]), dtype=np.float64)
        return np.asarray(by_arm[np.arange(len(by_arm)), log.arm[rows]])

    estimated = np.empty(len(fold))
    with ThreadPoolExecutor(nthread) as pool:
        for k, probability in enumerate(pool.map(estimate, range(FOLDS))):
            estimated[fold == k] = probability
    return np.clip(estimated, 0.01, 0.99)
