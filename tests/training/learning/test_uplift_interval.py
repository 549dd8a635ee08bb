import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import stdtrit
from scipy.stats import binom

from training.judging.evidence import Z
from training.learning.effects import EffectBands, mean_effect, standard_error
from training.learning.uplift_interval import BANDS, fit_bands, interval

FEWER = settings(max_examples=60)

MEAN_EFFECTS = {  # of the members whose score, uniform on (0, 1), is from low to high
    "none": lambda low, high: 0 * (low + high) + 0.3,
    "line": lambda low, high: (low + high) / 2,
    "step": lambda low, high: np.clip((high - 0.7) / (high - low), 0, 1),
}
EFFECTS = {"none": lambda x: 0 * x + 0.3, "line": lambda x: x, "step": lambda x: (x > 0.7).astype(float)}


def experiment(rng, kind, members=400, rows=3):
    """Members come several times, like themselves each time; their propensities are known and differ."""
    x, member = np.repeat(rng.random(members), rows), np.repeat(np.arange(members), rows)
    propensity = 0.2 + 0.4 * x
    treated = rng.random(len(x)) < propensity
    own = rng.normal(0, 0.7, members)  # what x does not say of the member's own effect
    effect = EFFECTS[kind](x) + own[member]
    outcome = np.repeat(rng.normal(0, 1, members), rows) + treated * effect + rng.normal(0, 0.5, len(x))
    contrast = np.where(treated, outcome / propensity, -outcome / (1 - propensity))
    return x, member, contrast, effect


@pytest.mark.parametrize("kind", EFFECTS)
def test_the_interval_covers_the_mean_effect_of_a_band_as_often_as_it_says_and_a_member_s_own_hardly(kind):
    rng, runs = np.random.default_rng(7), 500
    hits, own = np.empty((runs, BANDS)), np.empty(runs)
    for run in range(runs):
        x, member, contrast, effect = experiment(rng, kind)
        bands = fit_bands(x, contrast, served=x, fold=member % 5, cluster=member)
        edges = np.array([0, *bands.edges, 1])
        truth = MEAN_EFFECTS[kind](edges[:-1], edges[1:])
        at = np.array([[*bands.edges, 1.0]]).T
        lower, upper = (bound[:, 0] for bound in interval([bands], at))
        hits[run] = (lower <= truth) & (truth <= upper)
        lower, upper = (bound[:, 0] for bound in interval([bands], x[:, None]))
        own[run] = np.mean((lower <= effect) & (effect <= upper))
    # 96.9 % with errors that are a tenth wider than those of one fixed score; five bands a run are as many coins.
    assert 0.93 <= hits.mean() <= 0.98
    assert binom.cdf(hits.sum(), hits.size, 0.969) > 1e-4
    # Nobody's own effect is promised: of those, with a spread of 0.7 about the mean, this holds far fewer.
    assert own.mean() < 0.75


def test_a_member_who_comes_again_is_no_fresh_evidence():
    x, member, contrast, _ = experiment(np.random.default_rng(1), "line", rows=1)
    once = fit_bands(x, contrast, served=x, fold=member % 5, cluster=member)
    twice = fit_bands(
        *(np.tile(v, 2) for v in (x, contrast)), served=x, fold=np.tile(member % 5, 2), cluster=np.tile(member, 2)
    )
    assert twice.error == pytest.approx(once.error)


def test_a_constant_has_one_band_and_the_error_of_the_average_effect():
    contrast, member = np.random.default_rng(2).normal(3, 2, 400), np.arange(400)
    bands = fit_bands(np.zeros(400), contrast, served=np.full(400, 3.1), fold=member % 5, cluster=member)
    assert bands.edges == ()
    assert bands.effect == pytest.approx([contrast.mean()])
    student = stdtrit(399, 0.975) / Z  # the interval is Student's, its quantile a little above the normal one
    assert bands.error == pytest.approx([1.1 * contrast.std(ddof=1) / 20 * student])
    assert mean_effect([bands], np.array([[-9.0], [9.0]])).tolist() == [[bands.effect[0]]] * 2


def test_members_served_the_same_uplift_share_a_band():
    served, member = np.repeat([0.0, 1.0, 2.0], [100, 250, 50]), np.arange(400)
    bands = fit_bands(served, served * 1.0, served=served, fold=member % 5, cluster=member)
    # Fifths end at 0 (of 80 in 100), 1, 1, 1 and 2: three bands, the second of three fifths.
    assert bands.edges == (0.0, 1.0)
    assert mean_effect([bands], np.array([[1.0]]))[0, 0] == bands.effect[1]


@FEWER
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_every_uplift_has_an_interval_whatever_is_tied(seed, values):
    rng = np.random.default_rng(seed)
    served, member = rng.integers(0, values, 60) * 1.0, rng.integers(0, 30, 60)
    fold = member % 3
    bands = fit_bands(served.round(1), rng.normal(size=60), served=served, fold=fold, cluster=member)
    assert len(bands.effect) == len(bands.error) == len(bands.edges) + 1
    assert list(bands.edges) == sorted(set(bands.edges))
    lower, upper = interval([bands], np.array([[-np.inf], [np.inf], *served[:, None]]))
    assert (lower <= upper).all()


def test_bands_are_plain_numbers_that_a_release_can_carry():
    x, member, contrast, _ = experiment(np.random.default_rng(3), "line")
    bands = fit_bands(x, contrast, served=x, fold=member % 5, cluster=member)
    again = EffectBands(**{name: tuple(value) for name, value in json.loads(json.dumps(asdict(bands))).items()})
    assert again == bands
    np.testing.assert_array_equal(standard_error([again], x[:, None]), standard_error([bands], x[:, None]))
