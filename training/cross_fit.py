"""Which learner to believe: cross-fit them all, shrink what held-out members do not bear out, keep what earns most.

Every number that decides is of members whose own outcomes had no part in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from training.evidence import Z, estimate
from training.learners import LEARNERS, Experiment, Flags, Floats, Ints, fit_nuisance
from training.metrics import Estimate

CONSTANT: Final = "constant"  # the average effect of each offer: the best single offer for everybody
MOST_KEPT: Final = 1.5  # regularised trees are timid; further than this a slope is more likely luck


@dataclass(frozen=True)
class Part:
    """Hold what one fold's training members say of every row, and the scores of its held-out members."""

    held_out: Flags
    average: Floats  # (n_offers,)
    effects: dict[str, Floats]  # (n, n_offers) by learner, about 0
    scores: Floats  # (n_held_out, arms)
    cap: float


def cross_fit(log: Experiment, held_out: Flags, rng: np.random.Generator) -> Part:
    """Fit every learner on the members not held out."""
    nuisance = fit_nuisance(log.take(~held_out), rng=rng)
    effects = {name: learner(nuisance, log.X) for name, learner in LEARNERS.items()}
    return Part(
        held_out=held_out,
        average=nuisance.contrasts.mean(axis=0),
        effects={name: effect - effect[~held_out].mean(axis=0) for name, effect in effects.items()},
        scores=nuisance.scores(log.take(held_out)),
        cap=nuisance.cap,
    )


@dataclass(frozen=True)
class Choice:
    """Hold the learner to believe, what it says of every row, and the comparison it won."""

    learner: str
    teacher: Floats  # (n, n_offers)
    kept: Floats  # (n_offers,)
    average_effect: list[Estimate]
    policy_values: dict[str, Estimate]
    gains: dict[str, Estimate]


def choose(log: Experiment, fold: Ints, parts: Sequence[Part], cost: Floats) -> Choice:
    """Choose by held-out policy value; the average effects alone stand unless beaten by a standard error."""
    scores = _gather(fold, [part.scores for part in parts])
    contrast = scores[:, 1:] - scores[:, :1]
    average = _gather(fold, [np.tile(part.average, (int(part.held_out.sum()), 1)) for part in parts])
    earned = {CONSTANT: _earned(average, contrast, cost)}
    kept = {}
    for name in LEARNERS:
        effect = _gather(fold, [part.effects[name][part.held_out] for part in parts])
        kept[name] = share_kept(effect, contrast, log.cluster)
        # A fold's own members have no say in how far their effects are shrunk.
        others = [fold != k for k in range(len(parts))]
        share = np.array([share_kept(effect[rows], contrast[rows], log.cluster[rows]) for rows in others])
        earned[name] = _earned(average + share[fold] * effect, contrast, cost)
    gains = {name: estimate(earned[name] - earned[CONSTANT], log.cluster) for name in LEARNERS}
    best = max(LEARNERS, key=lambda name: gains[name].value)
    standard_error = (gains[best].upper - gains[best].value) / Z
    learner = best if gains[best].value > standard_error and kept[best].any() else CONSTANT
    share = kept[learner] if learner != CONSTANT else np.zeros(len(cost))
    effects = [estimate(column, log.cluster) for column in contrast.T]
    teacher = np.tile([effect.value for effect in effects], (len(fold), 1))
    if learner != CONSTANT:
        teacher = teacher + share * np.mean([part.effects[learner] for part in parts], axis=0)
    values = {name: estimate(earning, log.cluster) for name, earning in earned.items()}
    return Choice(learner, teacher, share, effects, values, gains)


def share_kept(effect: Floats, contrast: Floats, cluster: Ints) -> Floats:
    """Say how much of predicted heterogeneity held-out members bear out, `(n_offers,)`: 0 none, 1 all, or more.

    The slope b of the doubly robust contrast on the centred prediction is 1 where predictions hold (the best linear
    predictor of Chernozhukov, Demirer, Duflo and Fernández-Val, 2018); b max(0, 1 - (se / b)^2) takes off what chance
    gives (James and Stein, positive part), so that pure noise keeps nothing five times in six.
    """
    centred = effect - effect.mean(axis=0)
    spread = (centred**2).sum(axis=0)
    slope = np.divide((centred * contrast).sum(axis=0), spread, out=np.zeros_like(spread), where=spread > 0)
    noise = centred * (contrast - contrast.mean(axis=0) - slope * centred)
    by_member = np.column_stack([np.bincount(cluster, weights=column) for column in noise.T])
    with np.errstate(divide="ignore", invalid="ignore"):
        sure = 1 - (by_member**2).sum(axis=0) / (slope * spread) ** 2
    sure = np.maximum(np.nan_to_num(sure, nan=0.0, neginf=0.0), 0)
    return np.asarray(np.clip(slope * sure, 0, MOST_KEPT) + 0.0)  # no -0.0 in a record


def _earned(uplift: Floats, contrast: Floats, cost: Floats) -> Floats:
    """Score against no contact the policy that sends the best offer where it earns its cost, `(n,)`."""
    net = uplift - cost
    best = net.argmax(axis=1)
    rows = np.arange(len(best))
    return np.asarray(np.where(net[rows, best] > 0, (contrast - cost)[rows, best], 0.0))


def _gather(fold: Ints, held_out: Sequence[Floats]) -> Floats:
    gathered = np.empty((len(fold), held_out[0].shape[1]))
    for k, values in enumerate(held_out):
        gathered[fold == k] = values
    return gathered
