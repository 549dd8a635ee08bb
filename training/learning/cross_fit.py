"""Which learner to believe: cross-fit them all, shrink what held-out members do not bear out, keep what earns most.

Every number that decides is of members whose own outcomes had no part in it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import numpy as np
from scipy.optimize import nnls

from training.judging.evidence import Z, estimate
from training.learning.learners import (
    LARGER,
    NAMES,
    Experiment,
    Flags,
    Floats,
    Ints,
    Matrix,
    estimate_effects,
    fit_nuisance,
)
from training.learning.redemption import Chances
from training.metrics import Estimate

TOGETHER: Final = "all together"
CONSTANT: Final = "constant"  # the average effect of each offer: the best single offer for everybody
MANY: Final = 2  # times the sample: so many others teach more than they and the sample together
MOST_KEPT: Final = 1.5  # regularised trees are timid; further than this a slope is more likely luck


@dataclass(frozen=True)
class Part:
    """Hold what one fold's training members say of every row, and the scores of its held-out members."""

    held_out: Flags
    average: Floats  # (n_offers,)
    effects: dict[str, Matrix]  # (n, n_offers) by learner, about 0; of halved precision, since there are many
    scores: Floats  # (n_held_out, arms)
    cap: float


def cross_fit(log: Experiment, held_out: Flags, rng: np.random.Generator) -> Part:
    """Fit every learner on the members not held out."""
    nuisance = fit_nuisance(log.take(~held_out), rng=rng)
    effects = estimate_effects(nuisance, log.X)
    return Part(
        held_out=held_out,
        average=nuisance.contrasts.mean(axis=0),
        effects={name: _about(effect, ~held_out) for name, effect in effects.items()},
        scores=nuisance.scores(log.take(held_out)),
        cap=nuisance.cap,
    )


def _about(effect: Floats, rows: Flags) -> Matrix:
    """Take off the mean over `rows`."""
    return np.asarray(effect - effect[rows].mean(axis=0), dtype=np.float32)


@dataclass(frozen=True)
class Choice:
    """Hold the learner to believe, what it says of every row, and the comparison it won."""

    learner: str
    weights: dict[str, Floats]  # (n_offers,) of each learner that has a say
    teacher: Floats  # (n, n_offers)
    average_effect: list[Estimate]
    policy_values: dict[str, Estimate]
    gains: dict[str, Estimate]
    held_out: Floats  # (n, n_offers) what the learner says of every row by models that have not seen its member
    contrast: Floats  # (n, n_offers) doubly robust, likewise
    redemption_slope: Floats  # (n_offers,) what certain redemption adds beyond the learner's word, over none
    close: tuple[str, ...]  # the contenders that were not told from the best; the learner is one of them

    @property
    def kept(self) -> Floats:
        """Say how much of the learners' heterogeneity is kept, `(n_offers,)`: 0 is the averages alone."""
        return np.sum(list(self.weights.values()), axis=0) if self.weights else np.zeros(len(self.average_effect))


def choose(log: Experiment, fold: Ints, parts: Sequence[Part], cost: Floats) -> Choice:
    """Choose by held-out policy value; the average effects alone stand unless beaten by a standard error.

    Every contender weighs the learners' words: one learner alone, or all of them together. Policies differ on few
    members, so several contenders are mostly within a standard error of the best; of these the one is taken whose
    predictions explain the effects of held-out members best.
    """
    scores = _gather(fold, [part.scores for part in parts])
    contrast = scores[:, 1:] - scores[:, :1]
    average = _gather(fold, [np.tile(part.average, (int(part.held_out.sum()), 1)) for part in parts])
    names = list(parts[0].effects)
    words = np.stack([_gather(fold, [part.effects[name][part.held_out] for part in parts]) for name in names])
    earned, missed = {CONSTANT: _earned(average, contrast, cost)}, {}
    held_out = {CONSTANT: average}
    for name, weigh in _contenders(names).items():
        # A fold's own members have no say in how its words are weighed.
        others = [fold != k for k in range(len(parts))]
        weights = np.stack([weigh(words[:, rows], contrast[rows], log.cluster[rows]) for rows in others])
        uplift = average + np.einsum("nla,lna->na", weights[fold], words)
        earned[name] = _earned(uplift, contrast, cost)
        missed[name] = float(((contrast - uplift) ** 2).sum())
        held_out[name] = uplift
    gains = {name: estimate(earned[name] - earned[CONSTANT], log.cluster) for name in missed}
    close = _close(earned, gains, log.cluster)
    learner = min(close, key=lambda name: missed[name]) if close else CONSTANT
    effects = [estimate(column, log.cluster) for column in contrast.T]
    say: dict[str, Floats] = {}
    if learner != CONSTANT:
        found = zip(names, _contenders(names)[learner](words, contrast, log.cluster), strict=True)
        say = {name: weight for name, weight in found if weight.any()}
    teacher = _teacher(
        effects, say, {name: np.mean([part.effects[name] for part in parts], axis=0) for name in say}, n=len(fold)
    )
    values = {name: estimate(earning, log.cluster) for name, earning in earned.items()}
    learner = learner if say else CONSTANT
    flat = np.zeros(contrast.shape[1])
    return Choice(learner, say, teacher, effects, values, gains, held_out[learner], contrast, flat, close)


def learn_from_all(choice: Choice, log: Experiment, sample: Flags, rng: np.random.Generator, *, threads: int) -> Choice:
    """Let the learners that were chosen on a sample learn from every row; the average effects are those of all rows.

    Where the others are many, all that were close learn from them alone, with larger trees, for there is more to be
    seen; of what they say of the sample, of which they have seen nothing, that is taken which explains its effects
    best, weighed anew. Else what was chosen, and its weights, stay.
    """
    if np.count_nonzero(~sample) >= MANY * np.count_nonzero(sample):
        return _learn_from_others(choice, log, sample, rng, threads=threads)
    nuisance = fit_nuisance(log, rng=rng, threads=threads)
    effects = [estimate(column, log.cluster) for column in nuisance.contrasts.T]
    said = estimate_effects(nuisance, log.X[sample], choice.weights)
    teacher = _teacher(effects, choice.weights, said, n=int(sample.sum()))
    return replace(choice, teacher=teacher, average_effect=effects)


def follow_redemption(choice: Choice, chances: Chances, cluster: Ints) -> Choice:
    """Let effects rise or fall with the chance of redemption as far as the effects of held-out members do.

    Who does not redeem an offer costs next to nothing and is moved by next to nothing. Where costs are told apart and
    gains are not, a price of money would look for just these. A line is seen in fewer outcomes than a learner needs.
    """
    slope = shrunk_slope(chances.held_out, choice.contrast - choice.held_out, cluster)
    return replace(
        choice,
        teacher=choice.teacher + slope * (chances.teacher - chances.teacher.mean(axis=0)),
        held_out=choice.held_out + slope * (chances.held_out - chances.held_out.mean(axis=0)),
        redemption_slope=slope,
    )


def _learn_from_others(
    choice: Choice, log: Experiment, sample: Flags, rng: np.random.Generator, *, threads: int
) -> Choice:
    nuisance = fit_nuisance(log.take(~sample), rng=rng, threads=threads, effect_trees=LARGER)
    contrast = np.vstack([nuisance.contrasts, choice.contrast])
    cluster = np.concatenate([log.cluster[~sample], log.cluster[sample]])
    effects = [estimate(column, cluster) for column in contrast.T]
    found = replace(choice, average_effect=effects)
    if choice.learner == CONSTANT:
        return replace(found, teacher=_teacher(effects, {}, {}, n=int(sample.sum())))
    names = [name for name in NAMES if name in choice.close or TOGETHER in choice.close]
    said = estimate_effects(nuisance, log.X[sample], names)
    words = np.stack([said[name] - said[name].mean(axis=0) for name in names])
    contenders = {name: weigh for name, weigh in _contenders(names).items() if name in choice.close}
    weighed = {name: weigh(words, choice.contrast, log.cluster[sample]) for name, weigh in contenders.items()}
    teachers = {
        name: _teacher(effects, dict(zip(names, weights, strict=True)), said, n=int(sample.sum()))
        for name, weights in weighed.items()
    }
    learner = min(teachers, key=lambda name: float(((choice.contrast - teachers[name]) ** 2).sum()))
    say = {name: weight for name, weight in zip(names, weighed[learner], strict=True) if weight.any()}
    return replace(found, learner=learner, weights=say, teacher=teachers[learner], held_out=teachers[learner])


def _teacher(
    average: Sequence[Estimate], weights: Mapping[str, Floats], said: Mapping[str, Matrix | Floats], *, n: int
) -> Floats:
    """Add to the average effects what learners say beyond them, weighed, `(n, n_offers)`."""
    teacher = np.tile([effect.value for effect in average], (n, 1))
    for name, weight in weights.items():
        teacher += weight * (said[name] - said[name].mean(axis=0))
    return teacher


def _close(earned: dict[str, Floats], gains: dict[str, Estimate], cluster: Ints) -> tuple[str, ...]:
    """Name the contenders whose policy is not told from the best one's; none if that does not beat the averages."""
    best = max(gains, key=lambda name: gains[name].value)
    if gains[best].value <= _standard_error(gains[best]):
        return ()
    behind = {name: estimate(earned[best] - earned[name], cluster) for name in gains if name != best}
    return (best, *(name for name, lead in behind.items() if lead.value <= _standard_error(lead)))


def _standard_error(found: Estimate) -> float:
    return (found.upper - found.value) / Z


Weigh = Callable[[Floats, Floats, Ints], Floats]  # words (n_learners, n, n_offers), contrast, cluster -> weights


def _contenders(names: Sequence[str]) -> dict[str, Weigh]:
    return {name: partial(_alone, place) for place, name in enumerate(names)} | {TOGETHER: _together}


def _alone(place: int, words: Floats, contrast: Floats, cluster: Ints) -> Floats:
    weights = np.zeros((len(words), words.shape[2]))
    weights[place] = share_kept(words[place], contrast, cluster)
    return weights


def _together(words: Floats, contrast: Floats, cluster: Ints) -> Floats:
    """Weigh learners as a regression of the effects on their words would, none below 0, then shrink the whole.

    Causal stacking: Han and Wu, "Ensemble method for estimating individualized treatment effects", 2022; weights at
    least 0 as in Breiman, "Stacked regressions", 1996.
    """
    weights = np.column_stack([_not_negative(words[:, :, a].T, contrast[:, a]) for a in range(contrast.shape[1])])
    together = np.einsum("la,lna->na", weights, words)
    return np.asarray(weights * share_kept(together, contrast, cluster))


def _not_negative(words: Floats, contrast: Floats) -> Floats:
    """Fit non-negative least squares `(n_learners,)` from sums of products, whatever the number of rows."""
    centred = words - words.mean(axis=0)
    products, target = centred.T @ centred, centred.T @ contrast
    # |W w - c|^2 and |R w - R^-T W'c|^2 differ by a constant, where W'W = R'R; a ridge keeps R regular
    root = np.linalg.cholesky(
        products + 1e-6 * np.trace(products) * np.eye(len(target)) + 1e-12 * np.eye(len(target))
    ).T
    weights: Floats = nnls(root, np.linalg.solve(root.T, target))[0]
    return weights


def share_kept(effect: Floats, contrast: Floats, cluster: Ints) -> Floats:
    """Say how much of predicted heterogeneity held-out members bear out, `(n_offers,)`: 0 none, 1 all, or more.

    The slope of the doubly robust contrast on the prediction is 1 where predictions hold (the best linear predictor of
    Chernozhukov, Demirer, Duflo and Fernández-Val, 2018); below 0 is chance, so pure noise keeps nothing five times in
    six.
    """
    return np.clip(shrunk_slope(effect, contrast, cluster), 0, MOST_KEPT)


def shrunk_slope(x: Floats, y: Floats, cluster: Ints) -> Floats:
    """Regress each column of y `(n, k)` on that of x, `(k,)`, and take off of the slope b what chance gives.

    It is b max(0, 1 - (se / b)^2), the positive part of James and Stein; errors are clustered by member.
    """
    centred = x - x.mean(axis=0)
    spread = (centred**2).sum(axis=0)
    slope = np.divide((centred * y).sum(axis=0), spread, out=np.zeros_like(spread), where=spread > 0)
    noise = centred * (y - y.mean(axis=0) - slope * centred)
    by_member = np.column_stack([np.bincount(cluster, weights=column) for column in noise.T])
    with np.errstate(divide="ignore", invalid="ignore"):
        sure = 1 - (by_member**2).sum(axis=0) / (slope * spread) ** 2
    sure = np.maximum(np.nan_to_num(sure, nan=0.0, neginf=0.0), 0)
    return np.asarray(slope * sure + 0.0)  # no -0.0 in a record


def _earned(uplift: Floats, contrast: Floats, cost: Floats) -> Floats:
    """Score against no contact the policy that sends the best offer where it earns its cost, `(n,)`."""
    net = uplift - cost
    best = net.argmax(axis=1)
    rows = np.arange(len(best))
    return np.asarray(np.where(net[rows, best] > 0, (contrast - cost)[rows, best], 0.0))


def _gather(fold: Ints, held_out: Sequence[Floats | Matrix]) -> Floats:
    gathered = np.empty((len(fold), held_out[0].shape[1]))
    for k, values in enumerate(held_out):
        gathered[fold == k] = values
    return gathered
