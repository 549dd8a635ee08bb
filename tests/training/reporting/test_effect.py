import numpy as np
import pytest
from scipy.stats import binom, ttest_ind

from training.reporting.effect import covariance, difference, mean, narrower, ratio

RUNS = 300


def campaign(rng, *, n=2000, hold_out=0.1, effect=150.0):
    """Draw members of skewed spend, some decided for twice, whose effects grow with what is foreseen of them."""
    times = 1 + (rng.random(n) < 0.3)
    member = np.repeat(np.arange(n), times)
    usual = np.repeat(rng.lognormal(7, 0.8, n), times)
    held = np.repeat(rng.random(n) < hold_out, times)
    gain = effect * usual / np.exp(7 + 0.8**2 / 2)  # `effect` on average
    outcome = usual * rng.lognormal(-0.125, 0.5, len(member)) + np.where(held, 0.0, gain)
    cost = np.where(held, 0.0, 50 + 30 * (rng.random(len(member)) < 0.4))
    return outcome, np.where(held, 0.0, 1.0), np.where(held, 1.0, 0.0), member, usual, cost


def test_intervals_hold_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(11)
    truth, cost, held = 150.0, 62.0, {"plain": 0, "narrower": 0, "ratio": 0}
    for _ in range(RUNS):
        outcome, weight, base, member, usual, spent = campaign(rng)
        plain = difference(outcome, weight, base, member).estimate
        net, _ = narrower(outcome - spent, weight, base, member, known=usual)
        returned = ratio(net, mean(spent, weight, member))
        held["plain"] += plain.lower < truth < plain.upper
        held["narrower"] += net.estimate.lower < truth - cost < net.estimate.upper
        held["ratio"] += returned.lower < truth / cost - 1 < returned.upper
    fewest, most = binom.ppf([0.001, 0.999], RUNS, 0.95)  # 272 and 296 of 300
    assert all(fewest <= count <= most for count in held.values()), held


def test_where_nothing_was_brought_five_in_a_hundred_say_that_something_was():
    rng = np.random.default_rng(12)
    found = 0
    for _ in range(RUNS):
        outcome, weight, base, member, usual, _ = campaign(rng, effect=0.0)
        estimate = narrower(outcome, weight, base, member, known=usual)[0].estimate
        found += not estimate.lower < 0 < estimate.upper
    assert found <= binom.ppf(0.999, RUNS, 0.05)


def test_with_a_row_a_member_it_is_welchs_t():
    rng = np.random.default_rng(1)
    outcome, treated = rng.exponential(100, 60), np.arange(60) % 4 > 0
    found = difference(outcome, treated.astype(float), (~treated).astype(float), np.arange(60)).estimate
    interval = ttest_ind(outcome[treated], outcome[~treated], equal_var=False).confidence_interval()
    assert (found.lower, found.upper) == pytest.approx((interval.low, interval.high))


def test_rows_of_a_member_that_come_twice_are_no_more_evidence():
    outcome, weight, base, member, *_ = campaign(np.random.default_rng(2))
    once = difference(outcome, weight, base, member).estimate
    twice = difference(*(np.concatenate([column] * 2) for column in (outcome, weight, base, member))).estimate
    assert (twice.value, twice.lower, twice.upper) == pytest.approx((once.value, once.lower, once.upper))


def test_what_was_foreseen_narrows_and_noise_is_left_alone():
    rng = np.random.default_rng(3)
    outcome, weight, base, member, usual, _ = campaign(rng)
    plain = difference(outcome, weight, base, member)
    known, used = narrower(outcome, weight, base, member, known=usual)
    assert used
    assert covariance(known, known) < 0.6 * covariance(plain, plain)
    constant, used = narrower(outcome, weight, base, member, known=np.ones_like(usual))
    assert (constant.value, used) == (plain.value, False)


def test_weights_of_a_draw_stand_for_everybody():
    # members of large spend are drawn for an offer four times in five, the others once in five
    rng = np.random.default_rng(4)
    large = rng.random(20_000) < 0.5
    chance = np.where(large, 0.8, 0.2)
    sent = rng.random(20_000) < chance
    outcome = 1000.0 * large + 100 * sent + rng.normal(0, 50, 20_000)
    found = difference(outcome, sent / chance, ~sent / (1 - chance), np.arange(20_000)).estimate
    assert found.lower < 100 < found.upper
    assert difference(outcome, sent * 1.0, ~sent * 1.0, np.arange(20_000)).value > 600


def test_a_ratio_to_what_may_be_nothing_is_not_known():
    outcome, weight, base, member, *_ = campaign(np.random.default_rng(5), n=200)
    cost = np.zeros_like(outcome)
    cost[np.flatnonzero(weight)[0]] = 1.0
    assert ratio(difference(outcome, weight, base, member), mean(cost, weight, member)) is None


def test_fieller_in_the_head():
    # numerator 10 with variance 4, denominator 2 known for certain: the interval is that of the numerator, halved
    outcome, member = np.array([8.0, 12.0]), np.arange(2)
    top, bottom = mean(outcome, np.ones(2), member), mean(np.full(2, 2.0), np.ones(2), member)
    found = ratio(top, bottom)
    assert found.value == 5
    assert (found.lower, found.upper) == pytest.approx((top.estimate.lower / 2, top.estimate.upper / 2))
