"""The gate in simulations: what is planted is found at the stated power, and what earns less or nothing is refused.

Every log is randomised evenly over control and three offers, members have two decisions each, and money is heavy-tailed
about a mean that the member's kind and the treatment give. Predictions are those of an outcome model that is off by a
tenth, so evidence is doubly robust as the pipeline's is.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom

from training.judging.estimators import Log, dr, importance_weights
from training.judging.evidence import effective_sample_size, estimate, smallest_detectable_effect
from training.judging.findings import Evidence
from training.judging.uplift_metrics import qini_coefficient
from training.metrics import Estimate
from training.promotion import judge

ARMS, COST, KEEN = 4, np.array([0.0, 5, 5, 5]), 0.3
SENT = 1  # the offer that the champion sends to all


class Logged(NamedTuple):
    log: Log
    keen: NDArray[np.bool_]  # (n,)
    q: NDArray[np.float64]  # (n, ARMS)


def simulate(rng, members, effect):
    """Draw a log; `effect` `(2, ARMS)` is what each treatment adds for the lukewarm and for the keen."""
    member = np.repeat(np.arange(members), 2)
    n = len(member)
    keen = (rng.random(members) < KEEN)[member]
    mean = 50 + effect[keen.astype(int)]
    treatment = rng.integers(ARMS, size=n)
    money = rng.lognormal(-0.5, 1.0, n) * rng.lognormal(-0.125, 0.5, members)[member]  # of mean 1
    outcome = mean[np.arange(n), treatment] + 50 * (money - 1)
    return Logged(Log(treatment, np.full(n, 1 / ARMS), outcome, COST, member), keen, mean * 1.1)


def one_for_all(n, arm=SENT):
    return np.eye(ARMS)[np.full(n, arm)]


def gain(world, policy, rival) -> Estimate:
    return estimate(dr(world.log, policy, world.q) - dr(world.log, rival, world.q), world.log.member_ids)


def verdict(world, challenger, champion):
    """Judge as the pipeline does; all that is not money is beyond doubt, and the same for both."""
    sound = Evidence(
        experiment="simulated",
        auc=Estimate(0.8, 0.79, 0.81, 1000),
        auc_over_best_feature=Estimate(0.02, 0.01, 0.03, 1000),
        calibration_error=Estimate(0.02, 0.01, 0.03, 1000),
        against_no_contact=gain(world, challenger, one_for_all(len(world.log), 0)),
        against_best_fixed=gain(world, challenger, one_for_all(len(world.log))),
        against_champion=gain(world, challenger, champion),
        effective_sample_size=effective_sample_size(importance_weights(world.log, challenger)),
    )
    return judge(sound, sound)


def test_a_better_policy_is_promoted_at_the_stated_power():
    rng, runs, members = np.random.default_rng(3), 400, 1000

    def planted(size):
        """Let the second offer suit the keen so well that sending it to them gains `size` a decision."""
        return np.array([[0, 20, 0, 0], [0, 20, 20 + size / KEEN, 0]])

    def policies(world):
        return np.where(world.keen[:, None], one_for_all(len(world.log), 2), one_for_all(len(world.log))), one_for_all(
            len(world.log)
        )

    pilots = [simulate(rng, members, planted(10.0)) for _ in range(50)]
    size = np.mean([smallest_detectable_effect(gain(world, *policies(world))) for world in pilots])
    found = sum(
        verdict(world, *policies(world)).promote
        for world in (simulate(rng, members, planted(size)) for _ in range(runs))
    )
    assert abs(found / runs - 0.8) < 3 * np.sqrt(0.8 * 0.2 / runs)


def test_a_worse_policy_with_a_better_qini_is_refused():
    # The challenger knows exactly who answers to the offer, and thinks so well of it that it sends it to all; the
    # champion guesses who is keen, is right in three of four, and sends to those alone. For the keen the offer
    # brings 30 - 5, for the others it loses 5 + 5, so sending to all brings 0.3 * 25 - 0.7 * 10 = 0.5, and the
    # champion's guess 0.75 * 0.3 * 25 - 0.25 * 0.7 * 10 = 3.9.
    rng, effect = np.random.default_rng(5), np.array([[0, -5.0, 0, 0], [0, 30.0, 0, 0]])
    refused, ranked_better = 0, 0
    for _ in range(50):
        world = simulate(rng, 20_000, effect)
        n = len(world.log)
        guess = world.keen ^ (rng.random(n) < 0.25)
        champion = np.where(guess[:, None], one_for_all(n), one_for_all(n, 0))
        refused += not verdict(world, one_for_all(n), champion).promote
        tried = world.log.treatment <= SENT
        outcome, treated = world.log.outcome[tried], world.log.treatment[tried]
        qini = [qini_coefficient(outcome, score[tried].astype(float), treated) for score in (world.keen, guess)]
        ranked_better += qini[0] > qini[1]
    assert ranked_better >= 48
    assert refused == 50


def test_without_heterogeneity_the_gate_keeps_the_best_fixed_offer():
    # Every offer brings everybody the same, which is the hardest case: a personal choice among them loses nothing.
    rng, runs, kept = np.random.default_rng(8), 400, 0
    for _ in range(runs):
        world = simulate(rng, 1000, np.array([[0, 20.0, 20, 20]] * 2))
        personal = np.eye(ARMS)[rng.integers(1, ARMS, 1000)[world.log.member_ids]]
        kept += not verdict(world, personal, one_for_all(len(world.log))).promote
    assert kept >= binom.ppf(1e-3, runs, 0.95)


def test_where_the_best_offer_is_the_same_for_all_choosing_another_is_refused():
    rng, effect = np.random.default_rng(9), np.array([[0, 30.0, 10, 0]] * 2)
    for _ in range(20):
        world = simulate(rng, 4000, effect)
        personal = np.where(world.keen[:, None], one_for_all(len(world.log), 2), one_for_all(len(world.log)))
        told = verdict(world, personal, one_for_all(len(world.log)))
        assert not told.promote
        assert any("not shown" in reason for reason in told.reasons)
