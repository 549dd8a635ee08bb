import numpy as np
import pytest

from training.judging.estimators import Log
from training.logged.balance import balance_p, sample_ratio_p

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
    logs = [drawn(np.random.default_rng(seed), propensity) for seed in range(200)]
    found = [(sample_ratio_p(log), balance_p(log, X)) for log in logs]
    for p in np.array(found).T:
        assert (p < 0.05).mean() < 0.09  # Bonferroni promises 0.05 at most; 0.09 is 2.6 standard errors above
        assert p.min() > 1e-4


def test_an_arm_that_lost_members_is_noticed():
    log = drawn(np.random.default_rng(0), np.full((N, 2), 0.5))
    kept = (log.treatment == 0) | (np.arange(N) % 5 > 0)
    lost = Log(log.treatment[kept], log.propensity[kept], log.outcome[kept], log.contact_cost, np.arange(kept.sum()))
    assert sample_ratio_p(lost) < 0.001


@pytest.mark.parametrize("hidden", [np.s_[:, 0], np.s_[:, 4]])
def test_members_who_were_chosen_by_what_the_log_does_not_say_are_noticed(X, hidden):
    values = np.nan_to_num(X[hidden], nan=-1.0)
    likely = np.where(values > np.median(values), 0.6, 0.4)
    log = drawn(np.random.default_rng(0), np.column_stack([1 - likely, likely]))
    says = Log(log.treatment, np.full(N, 0.5), log.outcome, log.contact_cost, log.member_ids)
    assert balance_p(says, X) < 0.001
    assert balance_p(log, X) > 0.001


def test_who_has_no_value_is_a_feature_too(X):
    missing = np.isnan(X[:, 4])
    likely = np.where(missing, 0.7, 0.4)
    log = drawn(np.random.default_rng(0), np.column_stack([1 - likely, likely]))
    says = Log(log.treatment, np.where(log.treatment == 1, 0.49, 0.51), log.outcome, log.contact_cost, log.member_ids)
    assert balance_p(says, X) < 0.001


@pytest.mark.parametrize("sure", [0, 1])
def test_what_was_certain_says_nothing_of_how_the_rest_was_drawn(X, sure):
    log = drawn(np.random.default_rng(0), np.full((N, 2), 0.5))
    certain = np.arange(N) % 4 == 0  # a hold-out group, or those who always get the offer
    treatment, propensity = np.where(certain, sure, log.treatment), np.where(certain, 1.0, 0.5)
    mixed = Log(treatment, propensity, log.outcome, log.contact_cost, log.member_ids)
    rest = log.take(~certain)
    assert sample_ratio_p(mixed) == sample_ratio_p(rest) > 0.001
    assert balance_p(mixed, X) == balance_p(rest, X[~certain]) > 0.001
    nothing = mixed.take(certain)
    assert sample_ratio_p(nothing) == balance_p(nothing, X[certain]) == 1.0
