"""Intervals cover the truth as often as they say, in a small world whose truth is known in closed form.

Members come one to three times and their decisions are alike; money is 0 for two in five and heavy-tailed for the rest;
the logging policy favours one treatment by the kind of member, so that weights go up to 6.7 and the log of 2,000
decisions is worth about 300 of the policy's.
"""

from collections import Counter
from functools import cache

import numpy as np
import pytest
from scipy.stats import binom

from training import ope
from training.judging import estimators, evidence
from training.judging.estimators import Log

RUNS, MEMBERS = 500, 1000
FAVOURED, OTHERS = 0.55, 0.15
BUYS, MEMBER_SPREAD, SPREAD = 0.6, 0.5, 0.6  # the logarithms' standard deviations
KEEN = 0.3  # of members; the others are lukewarm
MEAN = np.array([[40.0, 30, 45, 60], [80, 110, 100, 90]])  # by kind of member and treatment
COST = np.array([0.0, 5, 2, 8])
SENDS = np.array([3, 2])  # what the policy gives the lukewarm and the keen; its rival is the first offer for all
TRUTH = (1 - KEEN) * (60 - 8) + KEEN * (100 - 2)
RIVAL = (1 - KEEN) * (30 - 5) + KEEN * (110 - 5)


def log_normal(rng, spread, n):
    """Draw heavy-tailed factors of mean 1."""
    return np.exp(rng.normal(-(spread**2) / 2, spread, n))


def world(rng):
    """Draw a log, and the policy, its rival and imperfect predictions on it."""
    member = np.repeat(np.arange(MEMBERS), rng.integers(1, 4, MEMBERS))
    n = len(member)
    each, kind = np.arange(n), (rng.random(MEMBERS) < KEEN).astype(int)[member]
    logging = np.where(np.arange(4) == 1 - kind[:, None], FAVOURED, OTHERS)
    treatment = (logging.cumsum(axis=1) <= rng.random(n)[:, None]).sum(axis=1)
    factor = log_normal(rng, MEMBER_SPREAD, MEMBERS)[member] * log_normal(rng, SPREAD, n) * (rng.random(n) < BUYS)
    outcome = MEAN[kind, treatment] * factor / BUYS
    log = Log(treatment, logging[each, treatment], outcome, COST, member)
    everybody = np.ones((n, 3), dtype=bool)
    return log, np.eye(4)[SENDS[kind]], ope.fixed(1, everybody), MEAN[kind] * 1.1 + 5


@cache
def hits():
    """Count in how many runs each interval covered its truth."""
    rng, found = np.random.default_rng(7), Counter()
    for _ in range(RUNS):
        log, policy, rival, q = world(rng)
        terms = {
            "ips": (estimators.ips(log, policy), estimators.ips(log, rival)),
            "snips": (estimators.snips(log, policy), estimators.snips(log, rival)),
            "dr": (estimators.dr(log, policy, q), estimators.dr(log, rival, q)),
        }
        columns = np.column_stack([column for ours, theirs in terms.values() for column in (ours, ours - theirs)])
        asymptotic = [evidence.estimate(column, log.member_ids) for column in columns.T]
        resampled = evidence.bootstrap(columns, log.member_ids, rng=rng, n_resamples=600)
        for kind, intervals in (("asymptotic", asymptotic), ("bootstrap", resampled)):
            for (estimator, measure, truth), interval in zip(measured(), intervals, strict=True):
                found[estimator, measure, kind] += interval.lower <= truth <= interval.upper
    return found


def measured():
    """Name what is estimated, with its truth, in the order of the columns."""
    return [(name, *what) for name in ("ips", "snips", "dr") for what in (("value", TRUTH), ("gain", TRUTH - RIVAL))]


@pytest.mark.parametrize("kind", ["asymptotic", "bootstrap"])
@pytest.mark.parametrize(("estimator", "measure"), [found[:2] for found in measured()])
def test_intervals_of_95_percent_cover_in_93_to_97(estimator, measure, kind):
    covered = hits()[estimator, measure, kind]
    # 500 runs know a coverage of 0.93 to ± 0.011: refused is what an interval of 93 to 97 % does once in a thousand
    assert binom.ppf(1e-3, RUNS, 0.93) <= covered <= binom.ppf(1 - 1e-3, RUNS, 0.97)
