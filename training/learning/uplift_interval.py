"""How sure a predicted uplift is: an interval for the mean effect of the members whose uplift is about as high.

One outcome under one treatment tells next to nothing of one member's own effect, and no interval here claims to hold
it. What a log does tell is the mean effect of a fifth of the members, sorted by predicted uplift: the mean of doubly
robust contrasts, which are right on average whatever the models are, over members sorted by models that have not seen
them (sorted group average treatment effects: Chernozhukov, Demirer, Duflo and Fernández-Val, "Generic machine learning
inference on heterogeneous treatment effects", 2018). Nothing is assumed of how effects follow scores: a straight line
through them, narrower, covered the mean effect at a score in six cases of ten where effects come in a step.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from training.judging.evidence import Z, estimate
from training.learning.effects import EffectBands, mean_effect, standard_error

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BANDS: Final = 5
# Members are sorted by five models, each of four folds; what is served is the five's mean, which sorts a little better.
# Errors came out a tenth larger than those of five fixed models (tests/bench/bench_coverage.py).
WIDER: Final = 1.1


def fit_bands(score: Floats, contrast: Floats, *, served: Floats, fold: Ints, cluster: Ints) -> EffectBands:
    """Average one offer's contrasts by band, with standard errors that know that a member's rows are alike.

    A row belongs to the band of its rank among its fold, whose scores are one model's; the edges are the quantiles of
    what is served. Where many members are served the same uplift their bands are one, and for a constant there is one.

    Parameters
    ----------
    score : (n,) by models that have not seen the row's member
    contrast : (n,) doubly robust, of the offer against control, likewise
    served : (n,) what the model that is served says of the same rows
    fold, cluster : (n,) the fold of each row, and its member
    """
    upper = np.quantile(served, np.arange(1, BANDS + 1) / BANDS)
    edges, merged = np.unique(upper, return_inverse=True)
    band = merged[_places(score, fold)]
    found = [estimate(contrast[band == k], cluster[band == k]) for k in range(len(edges))]
    return EffectBands(
        edges=tuple(edges[:-1].tolist()),
        effect=tuple(one.value for one in found),
        error=tuple(WIDER * (one.upper - one.value) / Z for one in found),
    )


def interval(bands: Sequence[EffectBands], uplift: Floats) -> tuple[Floats, Floats]:
    """Give the 95 % interval of `mean_effect`: lower and upper, each `(n_members, n_offers)`."""
    mean, error = mean_effect(bands, uplift), standard_error(bands, uplift)
    return mean - Z * error, mean + Z * error


def _places(score: Floats, fold: Ints) -> Ints:
    """Give each row the number of its fifth within its fold; no fifth is empty, even of equal scores."""
    place = np.empty(len(score), dtype=np.int64)
    for k in np.unique(fold):
        rows = np.flatnonzero(fold == k)
        place[rows[np.argsort(score[rows], kind="stable")]] = np.arange(len(rows)) * BANDS // len(rows)
    return place
