import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ContractError
from training.judging.curves import ranking_band, reliability_band
from training.judging.uplift_metrics import (
    RANKING_METRICS,
    area_under_uplift_curve,
    qini_coefficient,
    qini_curve,
    ranking_metrics,
    uplift_at,
    uplift_calibration,
    uplift_calibration_error,
    uplift_curve,
)

FEWER = settings(max_examples=60)


@pytest.fixture
def rng():
    return np.random.default_rng(11)


def experiment(rng, n, *, effect):
    """A member's effect is `effect(x)`; half are treated, and the outcome's noise has standard deviation 1."""
    x, treated = rng.uniform(-1, 1, n), rng.random(n) < 0.5
    return x, treated, rng.normal(0, 1, n) + treated * effect(x)


@FEWER
@given(st.integers(0, 2**32 - 1), st.integers(1, 3))
def test_to_weigh_a_row_twice_is_to_have_it_twice(seed, digits):
    rng = np.random.default_rng(seed)
    outcome, treated, times = rng.integers(0, 2, 60), rng.integers(0, 2, 60), rng.integers(0, 3, 60)
    treated[:2], times[:2] = [0, 1], 1
    uplift = rng.uniform(0.1, 0.9, 60).round(digits)
    again = np.repeat(np.arange(60), times)
    weighed = qini_coefficient(outcome, uplift, treated, weight=times)
    assert weighed == pytest.approx(qini_coefficient(outcome[again], uplift[again], treated[again]), abs=1e-9)


def test_a_score_that_says_nothing_has_no_qini(rng):
    x, treated, outcome = experiment(rng, 400, effect=lambda x: x)
    assert qini_coefficient(outcome, np.zeros_like(x), treated) == 0


@FEWER
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_tied_rows_changes_nothing(seed):
    rng = np.random.default_rng(seed)
    outcome, treated = rng.normal(0, 1, 40), np.arange(40) % 2
    score = rng.integers(0, 4, 40)
    order = rng.permutation(40)
    for metric in (qini_coefficient, lambda *a: uplift_at(*a, share=0.3)):
        assert metric(outcome, score, treated) == pytest.approx(
            metric(outcome[order], score[order], treated[order]), abs=1e-12
        )


def test_the_sign_is_kept_a_model_that_ranks_backwards_scores_below_zero(rng):
    x, treated, outcome = experiment(rng, 20_000, effect=lambda x: x)
    # Effect x, uniform on (-1, 1): the top share s gains s (1 - s), so the area over the line to 0 is 1 / 6.
    forwards, backwards = (qini_coefficient(outcome, sign * x, treated) for sign in (1, -1))
    # The curve's standard error is at most 2 sd sqrt(s / n) with sd of outcome below 1.2, and an area averages it.
    assert forwards == pytest.approx(1 / 6, abs=4 * 2 * 1.2 / np.sqrt(20_000))
    assert backwards == pytest.approx(-1 / 6, abs=4 * 2 * 1.2 / np.sqrt(20_000))


def test_curves_end_at_the_average_effect_and_the_top_has_the_known_one(rng):
    x, treated, outcome = experiment(rng, 20_000, effect=lambda x: 2 + x)
    average = outcome[treated].mean() - outcome[~treated].mean()
    for curve in (uplift_curve, qini_curve):
        share, gain = curve(outcome, x, treated)
        assert (share[0], gain[0], share[-1]) == (0, 0, 1)
        assert gain[-1] == pytest.approx(average, abs=1e-9)
    top = uplift_at(outcome, x, treated, share=0.2)  # x from 0.6 to 1: the effect is 2.8
    assert top == pytest.approx(2.8, abs=4 * 2 * 1.1 / np.sqrt(4000))


def test_qini_done_in_the_head():
    # Ranked: treated 4, control 1, treated 2, control 2. N_t = 2. Cumulative: 4 - 0 (no control yet: unknown, so 0),
    # 4 - 1 · 1/1 = 3, 6 - 1 · 2/1 = 4, 6 - 3 · 2/2 = 3; halved: 0, 1.5, 2, 1.5 at shares 1/4, 1/2, 3/4, 1.
    outcome, uplift, treated = np.array([4, 1, 2, 2]), np.array([9, 8, 7, 6]), np.array([1, 0, 1, 0])
    share, gain = qini_curve(outcome, uplift, treated)
    assert share.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert gain.tolist() == [0, 0, 1.5, 2, 1.5]
    # Trapezes: (0 + 0.75 + 1.75 + 1.75) / 4 = 1.0625, less the triangle 0.75.
    assert qini_coefficient(outcome, uplift, treated) == pytest.approx(0.3125)


def test_inverse_propensity_weights_undo_a_treatment_that_went_to_the_good_ones(rng):
    n = 40_000
    x = rng.uniform(0, 1, n)
    propensity = 0.2 + 0.6 * x
    treated = rng.random(n) < propensity
    outcome = 5 * x + treated + rng.normal(0, 1, n)
    weight = np.where(treated, 1 / propensity, 1 / (1 - propensity))
    naive = uplift_at(outcome, x * 0, treated, share=1)
    adjusted = uplift_at(outcome, x * 0, treated, share=1, weight=weight)
    assert naive > 1.5
    assert adjusted == pytest.approx(1, abs=4 * 2 * 2 / np.sqrt(n))


def test_one_arm_is_refused():
    with pytest.raises(ContractError, match="one arm came"):
        qini_coefficient(np.ones(5), np.arange(5.0), np.ones(5))


def test_the_area_under_the_curve_is_the_known_one_and_half_the_effect_by_chance(rng):
    # Effect 2 + x with x uniform on (-1, 1): the top share s gains 2 s + s (1 - s), of area 1 + 1 / 6.
    x, treated, outcome = experiment(rng, 20_000, effect=lambda x: 2 + x)
    noise = 4 * 2 * 1.2 / np.sqrt(20_000)
    assert area_under_uplift_curve(outcome, x, treated) == pytest.approx(1 + 1 / 6, abs=noise)
    assert area_under_uplift_curve(outcome, -x, treated) == pytest.approx(1 - 1 / 6, abs=noise)
    whole = uplift_at(outcome, x * 0, treated, share=1)
    assert area_under_uplift_curve(outcome, x * 0, treated) == pytest.approx(whole / 2)


def test_one_pass_over_a_ranking_reads_what_each_metric_says(rng):
    x, treated, outcome = experiment(rng, 500, effect=lambda x: x)
    rounded, weight = x.round(1), rng.uniform(1, 3, 500)
    data = (outcome, rounded, treated)
    found = ranking_metrics(*data, weight=weight)
    assert list(found) == list(RANKING_METRICS)
    assert found == {
        "qini_coefficient": qini_coefficient(*data, weight=weight),
        "area_under_uplift_curve": area_under_uplift_curve(*data, weight=weight),
        "uplift_at_10": uplift_at(*data, share=0.1, weight=weight),
        "uplift_at_30": uplift_at(*data, share=0.3, weight=weight),
    }


def test_calibration_sets_each_tenth_s_promise_beside_its_known_effect(rng):
    x, treated, outcome = experiment(rng, 20_000, effect=lambda x: x)
    table = uplift_calibration(outcome, 2 * x, treated, clusters=np.arange(20_000))
    assert len(table) == 10
    for tenth in table:
        # Twice the effect was promised.
        error = (tenth.actual.upper - tenth.actual.value) / 1.96
        assert abs(tenth.actual.value - tenth.predicted / 2) < 4 * error
        # Two arms of 1,000 with noise 1: sqrt(2 / 1,000), and a little for the effect that differs within a tenth.
        assert error == pytest.approx(np.sqrt(2 / 1000), rel=0.1)
        assert tenth.actual.n == 2000
    assert uplift_calibration_error(outcome, 2 * x, treated) == pytest.approx(0.5, abs=0.05)  # the mean of |x|
    assert uplift_calibration_error(outcome, x, treated) < 0.05


def test_an_outcome_less_what_was_known_before_says_the_same_and_is_surer(rng):
    x, treated, outcome = experiment(rng, 4000, effect=lambda x: x)
    known = rng.normal(0, 3, 4000)
    members = np.arange(4000)
    raw, adjusted = (uplift_calibration(y, x, treated, clusters=members) for y in (outcome + known, outcome))
    for noisy, sure in zip(raw, adjusted, strict=True):
        widths = [tenth.actual.upper - tenth.actual.lower for tenth in (noisy, sure)]
        assert widths[0] > 2.5 * widths[1]
        assert abs(noisy.actual.value - sure.actual.value) < 1.1 * widths[0]


def test_rows_of_one_member_do_not_make_a_tenth_surer(rng):
    x, treated, outcome = experiment(rng, 1000, effect=lambda x: x)
    once = uplift_calibration(outcome, x, treated, clusters=np.arange(1000))
    twice = uplift_calibration(*(np.tile(v, 2) for v in (outcome, x, treated)), clusters=np.tile(np.arange(1000), 2))
    for one, two in zip(once, twice, strict=True):
        assert (two.actual.lower, two.actual.upper) == pytest.approx((one.actual.lower, one.actual.upper))


def test_a_tenth_without_control_or_of_one_member_is_left_out_and_one_arm_is_refused():
    x, treated = np.arange(40.0), np.arange(40) % 2
    treated[:4] = 1
    assert len(uplift_calibration(x, x, treated, clusters=np.arange(40))) == 9
    one_member_in_the_last = np.minimum(np.arange(40), 36)  # treated and control, and still no spread
    assert len(uplift_calibration(x, x, treated, clusters=one_member_in_the_last)) == 8
    with pytest.raises(ContractError, match="one arm came"):
        uplift_calibration_error(x, x, np.ones(40))


@pytest.mark.parametrize("curve", [uplift_curve, qini_curve])
def test_a_band_holds_its_curve_and_as_often_as_it_says_the_true_one(curve, rng):
    hits, runs = [], 40
    at = np.linspace(0, 1, 101)
    truth = at * (1 - at)
    for _ in range(runs):
        x, treated, outcome = experiment(rng, 800, effect=lambda x: x)
        found = ranking_band(curve, outcome, x, treated, clusters=np.arange(800), rng=rng)
        hits.append((found.lower <= truth) & (truth <= found.upper))
    np.testing.assert_allclose(found.y, np.interp(at, *curve(outcome, x, treated)))
    assert (found.lower[1:] < found.upper[1:]).all()
    # Points of one curve are alike: 40 runs have the noise of about 40 coins.
    assert np.mean(np.array(hits)[:, 5:]) == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / runs))


def test_a_reliability_band_holds_the_diagonal_for_a_calibrated_probability(rng):
    p = rng.uniform(0.1, 0.9, 4000)
    outcome = (rng.random(4000) < p).astype(float)
    good, bad = (reliability_band(outcome, q, clusters=np.arange(4000), rng=rng) for q in (p, p / 2))
    assert ((good.lower <= good.x) & (good.x <= good.upper)).sum() >= 7  # of ten, 95 % each
    assert not ((bad.lower <= bad.x) & (bad.x <= bad.upper)).any()
