from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest

from features.errors import ContractError
from training import uplift
from training.learning import learners
from training.learning.cross_fit import CONSTANT, share_kept
from training.learning.learners import LEARNERS, Cuts, Experiment, doubly_robust, fit_nuisance, winsorise
from training.uplift import Outcome, UpliftModel, fit_uplift, fit_uplifts

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


def redeeming(n: int, *, gain: float, seed: int = 0):
    """Draw members who redeem one offer by chances of their own, and gain by it or not; outcomes are loud."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    chance = 1 / (1 + np.exp(1 - 2 * X[:, 0]))
    sent = rng.integers(0, 2, n)
    redeemed = ((rng.random(n) < chance) & (sent == 1)).astype(float)
    outcome = 100 + 40 * rng.normal(size=n) + sent * gain * chance
    return X, np.array(["control", "a"])[sent], outcome, redeemed, gain * chance


def test_an_effect_that_follows_redemption_is_seen_where_outcomes_alone_show_none():
    X, treatment, outcome, redeemed, truth = redeeming(1500, gain=20.0)
    fits = [
        fit_uplifts(X, treatment, {"margin": Outcome(outcome)}, np.full(len(X), 0.5), redeemed=known)["margin"]
        for known in (None, redeemed)
    ]
    blind, seeing = (np.abs(model.predict(X)[:, 0] - truth).mean() for model in fits)
    assert seeing < 0.8 * blind
    # the slope's standard error is about 2 · 40 / (0.28 · 39), and what it is shrunk by takes off some
    assert 0 < fits[1].record.redemption_slope["a"] < 20 + 2 * 7.5


def test_an_effect_that_has_nothing_to_do_with_redemption_stays_the_same_for_all():
    X, treatment, outcome, redeemed, _ = redeeming(6000, gain=0.0)
    found = fit_uplifts(X, treatment, {"margin": Outcome(outcome)}, np.full(len(X), 0.5), redeemed=redeemed)["margin"]
    # of an effect of 40 a slope of chance has a standard error of about 2 · 40 / (0.28 · 77)
    assert abs(found.record.redemption_slope["a"]) < 2 * 3.7


def test_labels_permuted_leave_no_effect():
    data = trial()
    shuffled = np.random.default_rng(5).permutation(data.treatment)
    model = fitted(data._replace(treatment=shuffled))
    # The average effect of nothing is nothing, and what is left of heterogeneity is far below the planted 500 and more.
    assert all(effect.lower < 0 < effect.upper for effect in model.record.average_effect.values())
    assert model.predict(data.X).std(axis=0).max() < 150


def test_the_same_stream_gives_the_same_bytes_on_one_thread_or_two(model):
    again = fitted(trial(), nthread=1)
    assert bytes(again.student.booster.save_raw("json")) == bytes(model.student.booster.save_raw("json"))


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
    answered = (np.arange(2000) % 200 == 0).astype(np.float64)
    for outcome in (answered, 1 - answered):  # nor, where nearly all stay, would anybody be left who leaves
        residual, _ = winsorise(outcome - outcome.mean(), outcome)
        np.testing.assert_allclose(residual, outcome - outcome.mean())


@pytest.mark.parametrize("level", [-2.0, 2.5])
def test_the_effect_on_staying_is_right_whether_few_stay_or_most(level):
    rng = np.random.default_rng(8)
    X, treated = rng.normal(size=(8000, 3)), rng.random(8000) < 0.5
    stays = [1 / (1 + np.exp(-(level + X[:, 1] + effect))) for effect in (0.0, 0.4 + 0.8 * (X[:, 0] > 0))]
    stayed = rng.random(8000) < np.where(treated, stays[1], stays[0])
    truth = stays[1] - stays[0]
    cost = {"a": truth.mean()}  # so that it matters who gets the offer
    treatment, chance = np.where(treated, "a", "control"), np.full(8000, 0.5)
    model = fit_uplift(X, treatment, stayed.astype(float), chance, contact_cost=cost, rng=rng)
    effect = model.record.average_effect["a"]
    assert abs(effect.value - truth.mean()) < 4 * (effect.upper - effect.lower) / 3.92
    assert np.corrcoef(model.predict(X)[:, 0], truth)[0, 1] > 0.6


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
        (lambda data: {"outcome": data.outcome[1:]}, "one for each treatment"),
        (lambda data: {"clusters": np.zeros(len(data.X))}, "has 1 members"),
        (lambda data: {"X": data.X.assign(x0=data.outcome)}, r"columns \['x0'\] follow the outcome"),
        (lambda data: {"X": data.X.assign(x0=-np.log(data.outcome + 1e4))}, r"columns \['x0'\] follow the outcome"),
        (lambda data: {"X": data.X.assign(x0=data.outcome > 0), "outcome": data.outcome > 0}, "follow the outcome"),
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


def test_twelve_rows_are_refused():
    data = trial(300)
    with pytest.raises(ContractError, match="'control' has 4 members, at least 30 were wanted"):
        fit_uplift(data.X[:12], np.repeat(["control", *OFFERS], 4), data.outcome[:12])


def test_features_that_say_nothing_leave_the_average_effects():
    data = trial(900)
    model = fitted(data._replace(X=pd.DataFrame({"x0": np.ones(900), "x1": np.full(900, np.nan)})))
    average = [model.record.average_effect[offer].value for offer in OFFERS]
    np.testing.assert_allclose(model.predict(np.zeros((3, 2))), np.tile(average, (3, 1)), rtol=1e-5)
    assert model.record.learner == CONSTANT


def test_rows_of_a_member_that_came_twice_do_not_count_as_two_members():
    data = trial(1500)
    once = fitted(data).record.average_effect["a"]
    doubled = Trial(pd.concat([data.X] * 2), *(np.concatenate([values] * 2) for values in data[1:]))
    twice = fitted(doubled, clusters=np.tile(np.arange(1500), 2)).record
    assert twice.n_members == 1500
    # As two members, the interval would be 0.71 times as wide.
    assert (twice.average_effect["a"].upper - twice.average_effect["a"].lower) > 0.9 * (once.upper - once.lower)


def test_a_word_never_seen_is_answered_as_none_of_the_known():
    data = trial(3000)
    place = np.where(data.X["x0"] > 0, "home", "abroad")
    model = fitted(data._replace(X=data.X.assign(x0=place)))
    never, other = (model.predict(data.X[:200].assign(x0=word)) for word in ("mars", "venus"))
    assert np.isfinite(never).all()
    np.testing.assert_array_equal(never, other)


def test_beyond_plenty_of_members_what_was_chosen_learns_from_all_of_them(monkeypatch):
    monkeypatch.setattr(uplift, "PLENTY", 1500)
    monkeypatch.setattr(uplift, "PLENTY_OF_AN_ARM", 100)
    data = trial(12_000)
    model = fitted(data)
    fresh = trial(seed=9)
    found = model.predict(fresh.X)
    sampled = next(iter(model.record.policy_values.values())).n
    assert sampled == 1500
    assert all(effect.n == 12_000 for effect in model.record.average_effect.values())
    # What 1,500 members alone would say is further from the truth.
    monkeypatch.setattr(uplift, "PLENTY", 100_000)
    few = fitted(Trial(data.X[:1500], *(values[:1500] for values in data[1:]))).predict(fresh.X)
    assert np.abs(found - fresh.truth).mean() < 0.8 * np.abs(few - fresh.truth).mean()


def test_of_a_rare_arm_enough_members_are_drawn(monkeypatch):
    monkeypatch.setattr(uplift, "PLENTY", 1000)
    monkeypatch.setattr(uplift, "PLENTY_OF_AN_ARM", 200)
    arm = (np.arange(50_000) % 50 == 0).astype(np.int64)
    log = Experiment(np.zeros((50_000, 1), np.float32), arm, arm * 1.0, arm * 1.0, np.arange(50_000), arms=2)
    sample = uplift._sample(log, np.random.default_rng(0))
    assert sample.sum() == 10_000
    assert 150 < arm[sample].sum() < 250  # 200 +- 3.5 standard errors


def test_boosters_of_one_thread_and_two_are_the_same():
    log = Experiment(
        np.random.default_rng(0).normal(size=(20_000, 5)).astype(np.float32),
        np.arange(20_000) % 3,
        np.random.default_rng(1).normal(size=20_000),
        np.full(20_000, 1 / 3),
        np.arange(20_000),
        arms=3,
    )
    one, two = (fit_nuisance(log, rng=np.random.default_rng(2), threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one.contrasts, two.contrasts)


def test_no_row_is_explained_by_models_that_saw_its_member():
    # A feature that names the member would let a model that saw a member recite the outcome.
    rng = np.random.default_rng(3)
    n = 4000
    member = np.arange(n) // 2
    noise = rng.normal(size=n // 2)[member]
    log = Experiment(member[:, None].astype(np.float32), np.arange(n) % 2, noise, np.full(n, 0.5), member, arms=2)
    nuisance = fit_nuisance(log, rng=rng)
    assert abs(np.corrcoef(nuisance.baseline, noise)[0, 1]) < 4 / np.sqrt(n / 2)


def test_cutting_in_blocks_and_anew_changes_no_score(monkeypatch):
    data = trial(3000)
    arm = np.where(data.treatment == "control", 0, np.searchsorted(OFFERS, data.treatment) + 1)
    X = data.X.to_numpy(dtype=np.float32)
    log = Experiment(X, arm, data.outcome, np.full(3000, 1 / 3), np.arange(3000), arms=3)

    def found() -> list[np.ndarray]:
        nuisance = fit_nuisance(log, rng=np.random.default_rng(0))
        return [learner(nuisance, X) for learner in LEARNERS.values()]

    held = found()
    monkeypatch.setattr(learners, "FEW_ENOUGH_TO_HOLD", 0)
    monkeypatch.setattr(learners, "BLOCK", 257)
    np.testing.assert_array_equal(found(), held)


def test_a_part_as_long_as_the_rows_that_say_quantiles_is_not_taken_for_them(monkeypatch):
    monkeypatch.setattr(learners, "ENOUGH_TO_CUT", 50)
    X = np.arange(100, dtype=np.float32)[:, None]
    half = np.repeat(np.array([0, 1], dtype=np.int8), 50)
    log = Experiment(X, half.astype(np.int64), X[:, 0].astype(float), np.full(100, 0.5), np.arange(100), arms=2)
    cuts = Cuts(log, half, threads=1)
    assert cuts.quantiles.num_row() == cuts(half=1).num_row() == 50
    # The upper half lies on the upper quantiles, and every second row of all on all of them.
    assert cuts(half=1).get_data().toarray().min() > cuts.quantiles.get_data().toarray().min()
    assert (cuts.with_arms().num_row(), cuts.with_arms().num_col()) == (100, 3)
