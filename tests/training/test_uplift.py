from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from features.errors import ContractError
from training.cross_fit import CONSTANT, share_kept
from training.learners import LEARNERS, Experiment, doubly_robust, fit_nuisance, folds_of, winsorise
from training.uplift import UpliftModel, fit_uplift

OFFERS = ("a", "b")


class Trial(NamedTuple):
    X: pd.DataFrame
    treatment: np.ndarray
    outcome: np.ndarray
    truth: np.ndarray  # (n, 2)


def trial(n: int = 6000, *, heterogeneous: bool = True, seed: int = 0) -> Trial:
    """Make margins of about 4,000 with a known effect: a step for offer a, a line for offer b."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 5))
    X[rng.random((n, 5)) < 0.02] = np.nan
    x = np.nan_to_num(X)
    truth = np.column_stack([np.where(x[:, 0] > 0, 900.0, -600.0), 150 + 500 * x[:, 1]])
    if not heterogeneous:
        truth = np.tile([150.0, 400.0], (n, 1))
    arm = rng.integers(0, 3, n)
    effect = np.column_stack([np.zeros(n), truth])[np.arange(n), arm]
    outcome = 4000 + 1500 * x[:, 2] + effect + rng.normal(0, 1000, n)
    frame = pd.DataFrame(X, columns=[f"x{i}" for i in range(5)])
    return Trial(frame, np.array(["control", *OFFERS])[arm], outcome, truth)


def fitted(data: Trial, seed: int = 1, **options) -> UpliftModel:
    propensity = np.full(len(data.X), 1 / 3)
    rng = np.random.default_rng(seed)
    return fit_uplift(data.X, data.treatment, data.outcome, propensity, rng=rng, **options)


@pytest.fixture(scope="module")
def model() -> UpliftModel:
    return fitted(trial())


def test_a_known_step_and_line_are_recovered_on_members_not_seen(model):
    fresh = trial(seed=9)
    predicted = model.predict(fresh.X)
    assert model.record.learner != CONSTANT
    for a in range(2):
        assert np.corrcoef(predicted[:, a], fresh.truth[:, a])[0, 1] > 0.85
        # Calibrated: of what is predicted, about so much is there.
        assert 0.8 < np.polyfit(predicted[:, a], fresh.truth[:, a], 1)[0] < 1.35


def test_its_policy_earns_more_than_the_best_fixed_offer_where_effects_differ(model):
    fresh = trial(seed=9)
    predicted = model.predict(fresh.X)
    chosen = np.where(predicted.max(1) > 0, fresh.truth[np.arange(len(predicted)), predicted.argmax(1)], 0.0)
    assert chosen.mean() > fresh.truth.mean(0).max() + 0.7 * (
        np.maximum(fresh.truth.max(1), 0).mean() - fresh.truth.mean(0).max()
    )


def test_average_effects_lie_within_their_intervals(model):
    truth = trial().truth.mean(axis=0)
    for offer, value in zip(OFFERS, truth, strict=True):
        estimate = model.record.average_effect[offer]
        standard_error = (estimate.upper - estimate.lower) / 3.92
        assert abs(estimate.value - value) < 4 * standard_error
        assert standard_error < 60  # two arms of 2,000 with noise of about 1,000 to 1,300 on a good baseline


def test_intervals_hold_the_mean_effect_of_members_like_these(model):
    fresh = trial(seed=9)
    lower, upper = model.interval(fresh.X)
    np.testing.assert_allclose((upper - lower) / 3.92, model.error(fresh.X), rtol=1e-4)
    predicted = model.predict(fresh.X)
    for a, bands in enumerate(model.bands):
        place = np.searchsorted(np.array(bands.edges), predicted[:, a])
        for band in np.unique(place):
            rows = place == band
            truth, error = fresh.truth[rows, a].mean(), model.error(fresh.X)[rows, a][0]
            assert abs((lower[rows, a][0] + upper[rows, a][0]) / 2 - truth) < 4 * error


def test_the_distilled_booster_follows_its_teacher(model):
    assert model.record.fidelity > 0.95


@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_finds_the_order_of_members(name):
    data = trial()
    arm = np.searchsorted(OFFERS, data.treatment) + 1
    arm[data.treatment == "control"] = 0
    n = len(arm)
    X = data.X.to_numpy(dtype=np.float32)
    log = Experiment(X, arm, data.outcome, np.full(n, 1 / 3), np.arange(n), arms=3)
    fresh = trial(2000, seed=9)
    effects = LEARNERS[name](fit_nuisance(log, rng=np.random.default_rng(0)), fresh.X.to_numpy(dtype=np.float32))
    assert min(np.corrcoef(effects[:, a], fresh.truth[:, a])[0, 1] for a in range(2)) > 0.7


def test_without_heterogeneity_everybody_gets_the_best_fixed_offer():
    model = fitted(trial(heterogeneous=False))
    predicted = model.predict(trial(seed=9).X)
    assert (predicted.argmax(axis=1) == 1).mean() > 0.99
    assert (predicted.max(axis=1) > 0).all()


def test_labels_permuted_leave_no_effect():
    data = trial()
    shuffled = np.random.default_rng(5).permutation(data.treatment)
    model = fitted(data._replace(treatment=shuffled))
    # The average effect of nothing is nothing, and what is left of heterogeneity is far below the planted 500 and more.
    assert all(effect.lower < 0 < effect.upper for effect in model.record.average_effect.values())
    assert model.predict(data.X).std(axis=0).max() < 150


def test_the_same_stream_gives_the_same_bytes_on_one_thread_or_two(model):
    again = fitted(trial(), nthread=1)
    assert bytes(again.booster.save_raw("json")) == bytes(model.booster.save_raw("json"))


def test_columns_are_found_by_name_and_missing_ones_named(model):
    fresh = trial(50, seed=2).X
    np.testing.assert_array_equal(model.predict(fresh[fresh.columns[::-1]]), model.predict(fresh))
    short = fresh.drop(columns="x3")
    with pytest.raises(ContractError, match="x3"):
        model.predict(short)


def test_propensities_are_estimated_when_none_are_given():
    data = trial(3000)
    model = fit_uplift(data.X, data.treatment, data.outcome, rng=np.random.default_rng(1))
    assert model.record.propensity == "estimated"
    assert np.corrcoef(model.predict(data.X)[:, 0], data.truth[:, 0])[0, 1] > 0.8


def test_a_yes_or_no_outcome_is_not_winsorised_away():
    # One member in two hundred answers: the 99th percentile of all outcomes is 0, and would leave no answer at all.
    outcome = (np.arange(2000) % 200 == 0).astype(np.float64)
    residual, _ = winsorise(outcome - outcome.mean(), outcome)
    np.testing.assert_allclose(residual, outcome - outcome.mean())


def test_a_fold_holds_all_rows_of_its_members():
    cluster = np.random.default_rng(0).integers(0, 50, 600)
    fold = folds_of(cluster, 3, np.random.default_rng(1))
    assert all(len(set(fold[cluster == member])) == 1 for member in range(50))
    assert set(fold) == {0, 1, 2}


def test_doubly_robust_scores_are_unbiased_with_any_model_of_the_arms():
    rng = np.random.default_rng(2)
    arm = rng.choice(2, size=20_000, p=[0.3, 0.7])
    outcome = 5.0 + 2.0 * arm + rng.normal(size=len(arm))
    wrong = np.tile([100.0, -40.0], (len(arm), 1))
    scores = doubly_robust(outcome, wrong, arm, np.where(arm == 1, 0.7, 0.3))
    error = scores.std(axis=0) / np.sqrt(len(arm))
    assert (np.abs(scores.mean(axis=0) - [5.0, 7.0]) < 4 * error).all()


def test_noise_keeps_little_heterogeneity_and_truth_keeps_all():
    rng = np.random.default_rng(4)
    effect = rng.normal(size=(4000, 1))
    members = np.arange(4000)
    noise = rng.normal(0, 5, size=(4000, 1))
    assert share_kept(effect, effect + noise, members)[0] > 0.8
    kept = [share_kept(rng.normal(size=(4000, 1)), noise, members)[0] for _ in range(200)]
    assert np.mean(np.array(kept) == 0) == pytest.approx(1 - 0.159, abs=4 * np.sqrt(0.159 * 0.841 / 200))


def spoilt_treatment(data: Trial) -> dict[str, object]:
    treatment = data.treatment.copy()
    treatment[treatment == "b"] = "a"
    treatment[0] = "b"
    return {"treatment": treatment}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoilt_treatment, "'b' has 1 members"),
        (lambda data: {"treatment": np.full(len(data.X), "control")}, "at least one offer"),
        (lambda data: {"treatment": np.full(len(data.X), "a")}, "'control' has 0 members"),
        (lambda data: {"propensity": np.where(np.arange(len(data.X)) == 3, 0.0, 0.3)}, "1 propensities are 0"),
        (lambda data: {"propensity": np.where(np.arange(len(data.X)) == 3, np.nan, 0.3)}, "1 propensities"),
        (lambda data: {"outcome": np.where(np.arange(len(data.X)) == 3, np.nan, 1.0)}, "1 outcomes"),
        (lambda data: {"X": data.X.assign(x0=np.inf)}, "infinite"),
        (lambda data: {"X": data.X.assign(x0=pd.Timestamp("2020-01-01"))}, "'x0'"),
        (lambda data: {"outcome": data.outcome[1:]}, "one length"),
        (lambda data: {"clusters": np.zeros(len(data.X))}, "has 1 members"),
    ],
)
def test_a_log_that_breaks_the_contract_is_refused(spoil, message):
    data = trial(300)
    given = {"X": data.X, "treatment": data.treatment, "outcome": data.outcome} | spoil(data)
    with pytest.raises(ContractError, match=message):
        fit_uplift(**given, rng=np.random.default_rng(0))


def test_any_frame_is_enough_and_words_carry_the_effect():
    data = trial()
    words = data.X.assign(x0=np.where(data.X["x0"] > 0, "home", "abroad"), x5="same")
    model = fit_uplift(words, data.treatment, data.outcome)
    assert model.offers == OFFERS
    assert np.corrcoef(model.predict(words)[:, 0], data.truth[:, 0])[0, 1] > 0.8
