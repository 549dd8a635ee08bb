import numpy as np
import pytest

from training.balance import assignment_p
from training.estimators import Log

N = 2000


def drawn(rng, propensity):
    """A log drawn as its propensities say: (n, arms) probabilities."""
    arm = (rng.random((len(propensity), 1)) > np.cumsum(propensity, axis=1)).sum(axis=1)
    return Log(
        treatment=arm,
        propensity=propensity[np.arange(len(arm)), arm],
        outcome=np.zeros(len(arm)),
        contact_cost=np.zeros(propensity.shape[1]),
        member_ids=np.arange(len(arm)),
    )


@pytest.fixture
def X():  # noqa: N802 (the design matrix)
    rng = np.random.default_rng(1)
    X = np.exp(rng.normal(size=(N, 5)) * 2)
    X[rng.random(N) < 0.3, 4] = np.nan
    return X


def test_what_was_drawn_as_planned_is_believed_about_as_often_as_promised(X):
    # propensities that depend on a feature: the arms differ, and only as planned
    likely = np.where(X[:, 0] > 1, 0.7, 0.2)
    propensity = np.column_stack([1 - likely, likely / 2, likely / 2])
    found = [assignment_p(drawn(np.random.default_rng(seed), propensity), X) for seed in range(200)]
    for p in np.array(found).T:
        assert (p < 0.05).mean() < 0.09  # Bonferroni promises 0.05 at most; 0.09 is 2.6 standard errors above
        assert p.min() > 1e-4


def test_an_arm_that_lost_members_is_noticed(X):
    log = drawn(np.random.default_rng(0), np.full((N, 2), 0.5))
    kept = (log.treatment == 0) | (np.arange(N) % 5 > 0)
    lost = Log(log.treatment[kept], log.propensity[kept], log.outcome[kept], log.contact_cost, np.arange(kept.sum()))
    assert assignment_p(lost, X[kept])[0] < 0.001


@pytest.mark.parametrize("hidden", [np.s_[:, 0], np.s_[:, 4]])
def test_members_who_were_chosen_by_what_the_log_does_not_say_are_noticed(X, hidden):
    values = np.nan_to_num(X[hidden], nan=-1.0)
    likely = np.where(values > np.median(values), 0.6, 0.4)
    log = drawn(np.random.default_rng(0), np.column_stack([1 - likely, likely]))
    says = Log(log.treatment, np.full(N, 0.5), log.outcome, log.contact_cost, log.member_ids)
    assert assignment_p(says, X)[1] < 0.001
    assert assignment_p(log, X)[1] > 0.001


def test_who_has_no_value_is_a_feature_too(X):
    missing = np.isnan(X[:, 4])
    likely = np.where(missing, 0.7, 0.4)
    log = drawn(np.random.default_rng(0), np.column_stack([1 - likely, likely]))
    says = Log(log.treatment, np.where(log.treatment == 1, 0.49, 0.51), log.outcome, log.contact_cost, log.member_ids)
    assert assignment_p(says, X)[1] < 0.001
