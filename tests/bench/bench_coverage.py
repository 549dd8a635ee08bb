"""How often a 95 % interval of uplift holds what it says, end to end: learners, choice and distilled booster included.

`HOLDFAST_RUNS` simulated experiments in each of four worlds (500 for the full size).
"""

import os

import numpy as np
import pytest

from training.judging.evidence import Z
from training.learning.cross_fit import CONSTANT
from training.uplift import fit_uplift

RUNS = int(os.environ.get("HOLDFAST_RUNS", "30"))
MEMBERS, ROWS = 1000, 2
WORLDS = {
    "no effect": lambda x: 0.0 * x,
    "one effect": lambda x: 0.3 + 0.0 * x,
    "line": lambda x: 0.3 + 0.5 * x,
    "step": lambda x: np.where(x > 0.5, 1.0, 0.0),
}


def experiment(rng, effect, members):
    """Members come twice, alike in one half of what x does not say; four in ten are treated."""
    member = np.repeat(np.arange(members), ROWS)
    X = rng.normal(size=(members, 4))[member]
    treated = rng.random(len(X)) < 0.4
    noise = rng.normal(0, 0.7, members)[member] + rng.normal(0, 0.7, len(X))
    return X, treated, X[:, 1] + noise + treated * effect(X[:, 0]), member


@pytest.mark.parametrize("world", WORLDS)
def bench_coverage_of_uplift_intervals(world):
    effect, band, own, constant = WORLDS[world], [], [], 0
    for run in range(RUNS):
        rng = np.random.default_rng([run, 7])
        X, treated, outcome, member = experiment(rng, effect, MEMBERS)
        model = fit_uplift(
            X,
            np.where(treated, "offer", "control"),
            outcome,
            np.where(treated, 0.4, 0.6),
            clusters=member,
            contact_cost={"offer": 0.3},
            rng=rng,
        )
        constant += model.record.learner == CONSTANT
        fresh = rng.normal(size=(20_000, 4))
        truth, predicted = effect(fresh[:, 0]), model.predict(fresh)[:, 0]
        lower, upper = (bound[:, 0] for bound in model.interval(fresh))
        place = np.searchsorted(np.array(model.bands[0].edges), predicted)
        mean = (np.bincount(place, weights=truth) / np.maximum(np.bincount(place), 1))[place]
        band.append(np.mean((lower <= mean) & (mean <= upper)))
        own.append(np.mean((lower <= truth) & (truth <= upper)))
    error = Z * np.std(band) / np.sqrt(RUNS)
    print(  # noqa: T201
        f"95 % intervals of uplift, {world:<10} {RUNS} runs   mean effect of members like these {np.mean(band):6.1%} "
        f"(+- {error:.1%})   a member's own {np.mean(own):6.1%}   no heterogeneity found in {constant / RUNS:.0%}"
    )
