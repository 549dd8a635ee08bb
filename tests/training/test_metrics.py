import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve

from features.errors import ContractError
from training import metrics
from training.metrics import Estimate, bootstrap, paired_bootstrap

RANKING = [(metrics.auc, oracle.roc_auc_score), (metrics.average_precision, oracle.average_precision_score)]
PROBABILITY = [(metrics.log_loss, oracle.log_loss), (metrics.brier_loss, oracle.brier_score_loss)]
MONEY = [
    (metrics.mean_absolute_error, oracle.mean_absolute_error),
    (metrics.root_mean_squared_error, oracle.root_mean_squared_error),
    (metrics.r_squared, oracle.r2_score),
]

FEWER = settings(max_examples=60)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


@pytest.mark.parametrize(("ours", "theirs"), RANKING + PROBABILITY)
@pytest.mark.parametrize("digits", [1, 2, 9])
def test_classification_metrics_agree_with_scikit_learn_with_ties_and_weights(ours, theirs, digits, rng):
    outcome = rng.integers(0, 2, 500)
    p = np.clip(rng.beta(2, 3, 500) + 0.1 * outcome, 0.01, 0.99).round(digits)
    weight = rng.integers(0, 4, 500).astype(float)
    assert ours(outcome, p) == pytest.approx(theirs(outcome, p), abs=1e-12)
    assert ours(outcome, p, weight=weight) == pytest.approx(theirs(outcome, p, sample_weight=weight), abs=1e-12)


@pytest.mark.parametrize(("ours", "theirs"), MONEY)
def test_money_metrics_agree_with_scikit_learn(ours, theirs, rng):
    outcome, prediction = rng.lognormal(3, 1, 300), rng.lognormal(3, 1, 300)
    weight = rng.integers(0, 4, 300).astype(float)
    assert ours(outcome, prediction) == pytest.approx(theirs(outcome, prediction), rel=1e-12)
    weighted = theirs(outcome, prediction, sample_weight=weight)
    assert ours(outcome, prediction, weight=weight) == pytest.approx(weighted, rel=1e-12)


def test_calibration_error_agrees_with_the_bins_of_scikit_learn(rng):
    p = rng.beta(2, 5, 4000)
    outcome = (rng.random(4000) < p**0.8).astype(int)
    rate, mean = calibration_curve(outcome, p, n_bins=10, strategy="quantile")
    assert metrics.calibration_error(outcome, p) == pytest.approx(np.abs(rate - mean).mean(), abs=1e-12)


def test_a_calibrated_probability_errs_by_chance_alone_and_a_shifted_one_by_its_shift(rng):
    p = rng.uniform(0.2, 0.8, 40_000)
    outcome = rng.random(40_000) < p
    # The mean of |normal| is 0.8 standard errors, and a bin of 4,000 has at most 0.5 / sqrt(4000).
    assert metrics.calibration_error(outcome, p) < 3 * 0.8 * 0.5 / np.sqrt(4000)
    assert metrics.calibration_error(outcome, p + 0.1) == pytest.approx(0.1, abs=4 * 0.5 / np.sqrt(40_000))


@FEWER
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_to_weigh_a_row_twice_is_to_have_it_twice(seed, digits):
    rng = np.random.default_rng(seed)
    outcome, times = rng.integers(0, 2, 60), rng.integers(0, 3, 60)
    outcome[:2], times[:2] = [0, 1], 1
    p = rng.uniform(0.1, 0.9, 60).round(digits)
    again = np.repeat(np.arange(60), times)
    for metric in (metrics.auc, metrics.average_precision, metrics.log_loss, metrics.brier_loss, metrics.r_squared):
        assert metric(outcome, p, weight=times) == pytest.approx(metric(outcome[again], p[again]), abs=1e-9)


def test_a_score_that_says_nothing_has_auc_one_half(rng):
    assert metrics.auc(rng.integers(0, 2, 400), np.zeros(400)) == 0.5


def test_the_bootstrap_knows_that_a_members_rows_are_alike(rng):
    member = np.repeat(np.arange(200), 10)
    outcome = np.repeat(rng.normal(0, 1, 200), 10)
    flat = np.zeros_like(outcome)
    clustered = bootstrap(metrics.root_mean_squared_error, outcome, flat, clusters=member, rng=rng)
    naive = bootstrap(metrics.root_mean_squared_error, outcome, flat, clusters=np.arange(2000), rng=rng)
    # Ten equal rows are one: the true interval is sqrt(10) = 3.2 times as wide as the naive one.
    ratio = (clustered.upper - clustered.lower) / (naive.upper - naive.lower)
    assert ratio == pytest.approx(np.sqrt(10), rel=0.35)
    assert clustered.n == 2000


def test_bootstrap_intervals_cover_the_truth_as_often_as_they_say(rng):
    hits, runs, truth = 0, 300, np.sqrt(2 / np.pi)  # the mean of |normal|
    for _ in range(runs):
        outcome = np.repeat(rng.normal(0, 1, 150), 2)
        estimate = bootstrap(
            metrics.mean_absolute_error, outcome, outcome * 0, clusters=np.arange(300) // 2, rng=rng, n_resamples=100
        )
        hits += estimate.lower <= truth <= estimate.upper
    # A percentile interval of 100 resamples is a little short: of 93 %, within the noise of 300 runs.
    assert binom.cdf(hits, runs, 0.93) > 1e-3
    assert binom.sf(hits - 1, runs, 0.97) > 1e-3


def test_a_paired_difference_is_narrower_than_two_intervals_and_zero_for_twins(rng):
    outcome = rng.integers(0, 2, 800)
    model = outcome + rng.normal(0, 1.5, 800)
    rival = model + rng.normal(0, 0.2, 800)
    clusters = np.arange(800)
    kwargs = {"clusters": clusters, "rng": rng}
    paired = paired_bootstrap(metrics.auc, outcome, model=model, rival=rival, **kwargs)
    alone = bootstrap(metrics.auc, outcome, model, **kwargs)
    assert paired.upper - paired.lower < (alone.upper - alone.lower) / 2
    twins = paired_bootstrap(metrics.auc, outcome, model=model, rival=model, **kwargs)
    assert twins == Estimate(0.0, 0.0, 0.0, 800)


def test_the_same_generator_gives_the_same_interval_in_any_order_of_rows():
    rng = np.random.default_rng(1)
    outcome, score = rng.integers(0, 2, 300), rng.random(300)
    clusters = np.array([f"m{i % 90}" for i in range(300)])
    order = rng.permutation(300)
    one = bootstrap(metrics.auc, outcome, score, clusters=clusters, rng=np.random.default_rng(2))
    two = bootstrap(metrics.auc, outcome[order], score[order], clusters=clusters[order], rng=np.random.default_rng(2))
    assert one == two


@pytest.mark.parametrize("metric", [metrics.auc, metrics.average_precision])
def test_one_class_is_refused(metric):
    with pytest.raises(ContractError, match="one class came"):
        metric(np.ones(5), np.arange(5.0))


def test_a_missing_score_is_refused():
    with pytest.raises(ContractError, match="a missing score came"):
        metrics.auc(np.array([0, 1]), np.array([0.1, np.nan]))


def test_a_missing_outcome_is_refused_by_the_bootstrap(rng):
    with pytest.raises(ContractError, match="the metric is nan"):
        bootstrap(metrics.mean_absolute_error, np.array([1, np.nan]), np.ones(2), clusters=["a", "b"], rng=rng)


def test_rows_of_one_member_have_no_interval(rng):
    with pytest.raises(ContractError, match="at least two members"):
        bootstrap(metrics.mean_absolute_error, np.ones(3), np.ones(3), clusters=["a"] * 3, rng=rng)


def test_a_class_too_rare_to_draw_again_has_no_interval(rng):
    outcome = np.array([1, *[0] * 9])  # the one positive is in 63 % of the resamples
    with pytest.raises(ContractError, match="resamples define the metric"):
        bootstrap(metrics.auc, outcome, np.arange(10.0), clusters=np.arange(10), rng=rng)


def test_lift_done_in_the_head_with_ties_and_weights():
    churned, score = np.array([1, 1, 0, 0, 0]), np.array([9, 5, 5, 1, 1])
    assert metrics.lift(churned, score, share=0.2) == pytest.approx(5 / 2)  # all of the top fifth, two fifths of all
    # Of the two that are tied for the second place one half each: 1.5 of 2 churned in two fifths.
    assert metrics.lift(churned, score, share=0.4) == pytest.approx(1.5 / 2 / 0.4)
    assert metrics.lift(churned, score, share=1) == 1
    again = np.repeat(np.arange(5), [1, 2, 0, 3, 1])
    assert metrics.lift(churned, score, share=0.3, weight=np.array([1, 2, 0, 3, 1])) == pytest.approx(
        metrics.lift(churned[again], score[again], share=0.3)
    )


@pytest.mark.parametrize("share", [0, 1.1, float("nan")])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ContractError, match="above 0 and at most 1"):
        metrics.lift(np.array([0, 1]), np.array([0, 1]), share=share)
