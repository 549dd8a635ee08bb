import numpy as np
import pytest

from training.learning.distillation import distil
from training.learning.learners import Experiment
from training.learning.redemption import FEWEST, redemption_chances
from training.metrics import log_loss

N = 6000


def law(X):
    """Give the true chances of two offers: one redeemed by who has a high x0, the other by anybody."""
    return np.column_stack([1 / (1 + np.exp(2 - 2 * X[:, 0])), np.full(len(X), 0.1)])


def sent(n=N, seed=0):
    """Contacts of control and two offers, drawn alike; a member has two."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 4)).astype(np.float32)
    arm = rng.integers(0, 3, n)
    chance = np.column_stack([np.zeros(n), law(X)])[np.arange(n), arm]
    redeemed = (rng.random(n) < chance).astype(np.float64)
    return Experiment(X, arm, redeemed, np.full(n, 1 / 3), np.arange(n) // 2, arms=3)


def chances(log, nthread=2):
    return redemption_chances(log, log.cluster % 5, nthread=nthread).teacher


def with_outcome(log, outcome):
    return Experiment(log.X, log.arm, outcome, log.propensity, log.cluster, log.arms)


@pytest.fixture(scope="module")
def log():
    return sent()


@pytest.fixture(scope="module")
def found(log):
    return chances(log)


def test_known_chances_are_found_of_members_who_were_sent_something_else(log, found):
    others = log.arm != 1
    truth = law(log.X)[others, 0]
    assert np.corrcoef(found[others, 0], truth)[0, 1] > 0.95
    assert np.abs(found[others, 0] - truth).mean() < 0.05
    # no chance beats the true one but by luck, and one rate for all is what there was before
    rng = np.random.default_rng(2)
    came = (rng.random(len(truth)) < truth).astype(float)
    best, ours, rate = (log_loss(came, p) for p in (truth, found[others, 0], np.full(len(truth), truth.mean())))
    assert best < ours < best + 0.2 * (rate - best)


def test_where_nothing_tells_members_apart_all_have_about_the_rate(log, found):
    rate = log.outcome[log.arm == 2].mean()
    # the error of the rate itself is sqrt(0.1 · 0.9 / 2000) = 0.007
    assert np.abs(found[:, 1] - rate).mean() < 0.014
    assert found[:, 1].mean() == pytest.approx(rate, abs=0.007)


def test_who_redeemed_by_luck_is_not_foretold_to_by_models_that_have_not_seen_it(log):
    found, sent = redemption_chances(log, log.cluster % 5, nthread=2), log.arm == 1
    luck = (log.outcome - law(log.X)[:, 0])[sent]
    # of so many draws a correlation of nothing has a standard error of 0.022
    by_all, held_out = (np.corrcoef(said[sent, 0], luck)[0, 1] for said in (found.teacher, found.held_out))
    assert abs(held_out) < 3 * 0.022 < by_all
    assert np.corrcoef(found.held_out[sent, 0], law(log.X)[sent, 0])[0, 1] > 0.95


@pytest.mark.parametrize("redeemed", [0, 1, FEWEST - 1])
def test_of_few_redemptions_all_have_the_rate_and_of_none_no_chance(log, redeemed):
    outcome = np.zeros(N)
    outcome[np.flatnonzero(log.arm == 1)[:redeemed]] = 1.0
    found = chances(with_outcome(log, outcome))
    assert (found[:, 0] == redeemed / (log.arm == 1).sum()).all()
    assert (found[:, 1] == 0).all()


def test_an_offer_that_everybody_redeems_is_certain(log):
    assert (chances(with_outcome(log, np.ones(N))) == 1).all()


def test_what_another_treatment_brought_says_nothing_of_an_offer(log, found):
    rigged = np.where(log.arm == 1, log.outcome, 1 - log.outcome)
    assert (chances(with_outcome(log, rigged))[:, 0] == found[:, 0]).all()


def test_chances_do_not_depend_on_how_many_offers_are_learned_at_once(log, found):
    assert (chances(log, nthread=1) == found).all()


@pytest.mark.parametrize("seed", range(5))
def test_a_student_says_nothing_beyond_its_teacher_so_that_a_chance_stays_one(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(400, 3)).astype(np.float32)
    teacher = np.column_stack([rng.random(400) ** 8, (X[:, 0] > 1).astype(float), np.zeros(400)])
    student, _ = distil(X, teacher, held_out=np.arange(400) % 5 == 0, nthread=1)
    said = student.predict(100 * rng.normal(size=(1000, 3)).astype(np.float32))
    assert (said >= teacher.min(axis=0)).all()
    assert (said <= teacher.max(axis=0)).all()
    assert (said[:, 2] == 0).all()
