"""Uplift for several offers: what each would add to each member's outcome, in one booster.

Four meta-learners are cross-fitted by member, their heterogeneity is shrunk as far as held-out members do not bear it
out, and the one whose policy earns most on held-out members is kept, if it beats the average effects alone by a
standard error. Where it is known who redeemed, effects also follow the chance of that, as far as held-out members do.
Its estimates, smoothed over the folds, are distilled into one booster; see `distillation`.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import xgboost as xgb
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from features.errors import ContractError
from features.schema import CONTROL
from training.learning.cross_fit import Choice, choose, cross_fit, follow_redemption, learn_from_all
from training.learning.distillation import distil
from training.learning.effects import EffectBands, Student, standard_error
from training.learning.encoding import Encoding, fit_encoding
from training.learning.learners import BINS, Experiment, Flags, Floats, Ints, Matrix, Trees
from training.learning.redemption import redemption_chances
from training.learning.uplift_interval import fit_bands, interval
from training.metrics import Estimate
from training.splits import folds_of

FOLDS: Final = 5
FEWEST_MEMBERS: Final = 30  # of an arm: below, a fold and its inner halves would hold a handful
LEAK: Final = 0.99  # rank correlation with the outcome; spend foretells spend by 0.9 at most
ENOUGH_TO_SEE: Final = 20_000  # rows
PLENTY: Final = 100_000  # members to compare learners on, and to distil from
PLENTY_OF_AN_ARM: Final = 2_000


@dataclass(frozen=True)
class UpliftRecord:
    """Say how an uplift model came about; amounts in the outcome's unit per row."""

    learner: str  # the one chosen
    policy_values: dict[str, Estimate]  # by learner: held-out value against no contact, after contact costs
    gain_over_constant: dict[str, Estimate]  # by learner, paired
    average_effect: dict[str, Estimate]  # by offer, doubly robust
    heterogeneity_kept: dict[str, float]  # by offer: 0 is the average alone, 1 the learner's word, above 1 even more
    redemption_slope: dict[str, float]  # by offer: what certain redemption adds beyond the learner's word, over none
    winsorised_at: float  # distance from the baseline at which training outcomes were cut
    fidelity: float  # correlation of the distilled booster with its teacher on members it had not seen
    propensity: Literal["known", "estimated"]
    n_members: int


@dataclass(frozen=True)
class UpliftModel:
    """Predict the uplift of every offer against control."""

    offers: tuple[str, ...]
    encoding: Encoding
    student: Student
    outputs: slice  # of the student, which may know of other outcomes too
    record: UpliftRecord
    bands: tuple[EffectBands, ...]  # by offer

    def predict(self, X: pd.DataFrame | ArrayLike) -> Floats:
        """Predict uplift `(n_members, n_offers)` in the outcome's unit; columns as in `offers`."""
        return self.student.predict(self.encoding.matrix(X))[:, self.outputs]

    def interval(self, X: pd.DataFrame | ArrayLike) -> tuple[Floats, Floats]:
        """Give the 95 % interval of the mean effect of members like these; see `uplift_interval` for what it holds."""
        return interval(self.bands, self.predict(X))

    def error(self, X: pd.DataFrame | ArrayLike) -> Floats:
        """Give the standard error of that mean, `(n_members, n_offers)`, in the outcome's unit."""
        return standard_error(self.bands, self.predict(X))


@dataclass(frozen=True)
class Outcome:
    """Hold what followed each treatment, higher is better, and what a policy has to earn back in its unit."""

    values: ArrayLike  # (n_rows,) before contact costs; money, or 0 and 1
    contact_cost: Mapping[str, float] = field(default_factory=dict)  # by offer; nothing for those it lacks


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
    outcomes = {"outcome": Outcome(outcome, contact_cost or {})}
    return fit_uplifts(X, treatment, outcomes, propensity, clusters=clusters, rng=rng, nthread=nthread)["outcome"]


def fit_uplifts(
    X: pd.DataFrame | ArrayLike,
    treatment: ArrayLike,
    outcomes: Mapping[str, Outcome],
    propensity: ArrayLike | None = None,
    *,
    redeemed: ArrayLike | None = None,
    clusters: ArrayLike | None = None,
    rng: np.random.Generator | None = None,
    nthread: int = 2,
) -> dict[str, UpliftModel]:
    """Learn the uplift of several outcomes, each as `fit_uplift` does; all are distilled into one booster.

    Its outputs are the offers' effects on the first outcome, then those on the second, and so on; last, if it is given
    who `redeemed` the offer of the row, 0 or 1, the chance that each offer is redeemed if it is sent.
    """
    rng = rng or np.random.default_rng(0)
    encoding = fit_encoding(X)
    log, offers = _log(encoding.matrix(X), treatment, propensity, clusters)
    sample, known = _sample(log, rng), propensity is not None
    if not known:
        log = replace(log, propensity=_estimated_propensity(log, sample, rng, nthread))
    fold = folds_of(log.cluster[sample], FOLDS, rng)
    taught: list[_Taught] = []
    for outcome in outcomes.values():
        own = replace(log, outcome=_finite(outcome.values, len(log.arm)))
        _refuse_leaks(own, encoding.names)
        cost = np.array([outcome.contact_cost.get(offer, 0.0) for offer in offers])
        taught.append(_teach(own, sample, fold, cost, rng=rng, nthread=nthread))
    part, of_redemption = taught[0].log, []
    if redeemed is not None:
        told = replace(part, outcome=_finite(redeemed, len(log.arm))[sample])
        chances = redemption_chances(told, fold, nthread=nthread)
        taught = [replace(one, choice=follow_redemption(one.choice, chances, part.cluster)) for one in taught]
        of_redemption.append(chances.teacher)
    teachers = [*(one.choice.teacher for one in taught), *of_redemption]
    student, follows = distil(part.X, np.hstack(teachers), held_out=fold == 0, nthread=nthread)
    served, models = student.predict(part.X), {}
    for place, (name, one) in enumerate(zip(outcomes, taught, strict=True)):
        outputs = slice(place * len(offers), (place + 1) * len(offers))
        record = _record(one, offers, fidelity=float(np.mean(follows[outputs])), log=log, known=known)
        models[name] = UpliftModel(offers, encoding, student, outputs, record, _bands(one, fold, served[:, outputs]))
    return models


@dataclass(frozen=True)
class _Taught:
    """Hold what was learned of one outcome."""

    log: Experiment  # of the members that learners were compared on
    choice: Choice
    cap: float  # distance from the baseline at which outcomes were winsorised


def _teach(
    log: Experiment, sample: Flags, fold: Ints, cost: Floats, *, rng: np.random.Generator, nthread: int
) -> _Taught:
    """Choose among learners by cross-fitting on a sample, and let those chosen learn from everybody."""
    part = log if sample.all() else log.take(sample)
    streams = rng.spawn(FOLDS)
    with ThreadPoolExecutor(nthread) as pool:  # XGBoost lets go of Python's lock while it trains
        parts = list(pool.map(lambda k: cross_fit(part, fold == k, streams[k]), range(FOLDS)))
    choice = choose(part, fold, parts, cost)
    if not sample.all():
        choice = learn_from_all(choice, log, sample, rng, threads=nthread)
    return _Taught(part, choice, float(np.mean([part.cap for part in parts])))


def _record(taught: _Taught, offers: Sequence[str], *, fidelity: float, log: Experiment, known: bool) -> UpliftRecord:
    choice = taught.choice
    return UpliftRecord(
        learner=choice.learner,
        policy_values=choice.policy_values,
        gain_over_constant=choice.gains,
        average_effect=dict(zip(offers, choice.average_effect, strict=True)),
        heterogeneity_kept=dict(zip(offers, choice.kept.tolist(), strict=True)),
        redemption_slope=dict(zip(offers, choice.redemption_slope.tolist(), strict=True)),
        winsorised_at=taught.cap,
        fidelity=fidelity,
        propensity="known" if known else "estimated",
        n_members=int(log.cluster.max()) + 1,
    )


def _bands(taught: _Taught, fold: Ints, served: Floats) -> tuple[EffectBands, ...]:
    choice, cluster = taught.choice, taught.log.cluster
    columns = zip(choice.held_out.T, choice.contrast.T, served.T, strict=True)
    return tuple(fit_bands(s, c, served=u, fold=fold, cluster=cluster) for s, c, u in columns)


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


def _log(
    X: Matrix, treatment: ArrayLike, propensity: ArrayLike | None, clusters: ArrayLike | None
) -> tuple[Experiment, tuple[str, ...]]:
    """Read a log, its outcomes yet to come, and the names of its offers, in order."""
    names = np.asarray(treatment).astype(str)
    p = np.full(len(names), 0.5) if propensity is None else np.asarray(propensity, dtype=np.float64)
    members = np.arange(len(names)) if clusters is None else np.asarray(clusters)
    lengths = {"X": len(X), "treatment": len(names), "propensity": len(p), "clusters": len(members)}
    if len(set(lengths.values())) > 1:
        raise ContractError(f"rows of {lengths} came, one length for all was wanted")
    if not ((p > 0) & (p < 1)).all():
        raise ContractError(
            f"{(~((p > 0) & (p < 1))).sum()} propensities are 0, 1, missing or outside; wanted the probability of the "
            "logged treatment, or none at all to have it estimated"
        )
    cluster, offers = np.unique(members, return_inverse=True)[1], _offers(names, members)
    arm = np.where(names == CONTROL, 0, np.searchsorted(offers, names) + 1)
    return Experiment(X, arm, np.zeros(len(names)), p, cluster, arms=len(offers) + 1), offers


def _offers(names: Any, members: Any) -> tuple[str, ...]:  # noqa: ANN401 (strings, whatever a member's id is)
    offers = tuple(str(name) for name in np.unique(names) if name != CONTROL)
    for name in (CONTROL, *offers):
        had = len(np.unique(members[names == name]))
        if had < FEWEST_MEMBERS:
            raise ContractError(
                f"treatment {name!r} has {had} members, at least {FEWEST_MEMBERS} were wanted; leave it out"
            )
    if not offers:
        raise ContractError(f"only {CONTROL!r} was logged; wanted at least one offer beside it")
    return offers


def _finite(outcome: ArrayLike, n: int) -> Floats:
    values = np.asarray(outcome, dtype=np.float64)
    if values.shape != (n,):
        raise ContractError(f"outcomes of shape {values.shape} came, {(n,)} was wanted: one for each treatment")
    if not np.isfinite(values).all():
        raise ContractError(
            f"{(~np.isfinite(values)).sum()} outcomes are missing or infinite; leave unfinished rows out"
        )
    return values


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
