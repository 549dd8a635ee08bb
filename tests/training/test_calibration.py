import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ContractError
from training.calibration import IDENTITY, Isotonic, Platt, calibration_from_json, fit_platt, logit, sigmoid
from training.churn import choose_calibration, fit_isotonic

N = 20_000


def drawn(slope, intercept, n=N, seed=0):
    """Draw raw probabilities, and outcomes of a chance that a Platt map makes of them."""
    rng = np.random.default_rng(seed)
    raw = sigmoid(rng.normal(-1, 1.5, n))
    return raw, (rng.random(n) < Platt(slope, intercept)(raw)).astype(np.float64)


@pytest.mark.parametrize(("slope", "intercept"), [(1.0, 0.0), (0.5, -0.4), (1.8, 0.7)])
def test_platt_recovers_slope_and_intercept(slope, intercept):
    raw, outcome = drawn(slope, intercept)
    fitted = fit_platt(raw, outcome)
    # the inverse of Fisher's information is the variance of a maximum of likelihood
    design = np.column_stack([logit(raw), np.ones(N)])
    p = Platt(slope, intercept)(raw)
    error = np.sqrt(np.diag(np.linalg.inv((design * (p * (1 - p))[:, None]).T @ design)))
    assert abs(fitted.slope - slope) < 4 * error[0]
    assert abs(fitted.intercept - intercept) < 4 * error[1]


def test_platt_stays_finite_where_the_classes_are_apart():
    raw = np.array([0.1, 0.2, 0.8, 0.9])
    fitted = fit_platt(raw, np.array([0.0, 0.0, 1.0, 1.0]))
    calibrated = fitted(raw)
    assert (np.diff(calibrated) > 0).all()
    assert (calibrated > 0.05).all()
    assert (calibrated < 0.95).all()  # of four rows nobody is that sure: Platt's targets are 3/4 and 1/4


@given(
    rows=st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=60, unique_by=lambda row: row[0]),
    asked=st.lists(st.floats(0, 1), min_size=2, max_size=20),
)
def test_an_isotonic_map_never_falls_and_gives_probabilities(rows, asked):
    raw, outcome = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    fitted = fit_isotonic(raw, outcome)
    calibrated = fitted(np.sort(np.array(asked)))
    assert (np.diff(calibrated) >= 0).all()
    assert ((calibrated > 0) & (calibrated < 1)).all()  # a certainty would cost an infinite log loss


@given(slope=st.floats(-5, 5), intercept=st.floats(-5, 5))
def test_a_platt_map_survives_json_to_the_bit(slope, intercept):
    fitted = Platt(slope, intercept)
    assert calibration_from_json(json.loads(json.dumps(fitted.to_json()))) == fitted


def test_an_isotonic_map_survives_json_to_the_bit():
    fitted = fit_isotonic(*drawn(0.5, 0.3, n=500))
    read = calibration_from_json(json.loads(json.dumps(fitted.to_json())))
    assert isinstance(read, Isotonic)
    assert read == fitted


def test_a_map_of_an_unknown_kind_is_refused():
    with pytest.raises(ContractError, match="'beta' came, 'platt' or 'isotonic' was wanted"):
        calibration_from_json({"kind": "beta", "x": [0.0], "y": [0.0]})


def test_the_identity_changes_nothing():
    p = np.linspace(0.001, 0.999, 101)
    np.testing.assert_allclose(IDENTITY(p), p, rtol=1e-12)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_sigmoid_is_a_probability_for_any_number_and_undoes_logit(x):
    p = sigmoid(np.array([x]))
    assert 0 <= p[0] <= 1
    if abs(x) < 13:  # within logit's edges
        assert logit(p)[0] == pytest.approx(x, abs=1e-9)


def parted(slope, intercept, seed=0):
    raw, outcome = drawn(slope, intercept, n=8000, seed=seed)
    earlier = np.arange(len(raw)) < 5000
    return raw, outcome, np.arange(len(raw)) // 2, earlier


def test_what_is_calibrated_is_left_alone():
    raw, churned, members, earlier = parted(1.0, 0.0)
    assert choose_calibration(raw, churned, members, fit=earlier, judge=~earlier) is IDENTITY


def test_what_is_clearly_off_gets_a_map_that_mends_it():
    raw, churned, members, earlier = parted(0.5, -1.0)
    chosen = choose_calibration(raw, churned, members, fit=earlier, judge=~earlier)
    fresh, happened = drawn(0.5, -1.0, seed=5)
    assert chosen != IDENTITY
    truth = Platt(0.5, -1.0)(fresh)
    assert np.abs(chosen(fresh) - truth).mean() < 0.25 * np.abs(fresh - truth).mean()
    assert abs(chosen(fresh).mean() - happened.mean()) < 4 * np.sqrt(0.25 / len(fresh) + 0.25 / len(raw))


def test_a_map_that_would_hurt_later_dates_is_not_taken():
    raw, churned, members, earlier = parted(1.0, 0.0)
    early = drawn(1.0, 1.5, n=8000, seed=3)[1]  # one season was another: what it teaches is wrong in the next
    churned = np.where(earlier, early, churned)
    assert choose_calibration(raw, churned, members, fit=earlier, judge=~earlier) is IDENTITY


def test_without_earlier_dates_there_is_no_map():
    raw, churned, members, _ = parted(0.5, -1.0)
    everything = np.ones(len(raw), dtype=bool)
    assert choose_calibration(raw, churned, members, fit=~everything, judge=everything) is IDENTITY
