"""What the loop learns from its log, and whether that may serve: uplift, redemption, and the gate's paired difference.

One member in five is never learned from. On their decisions every challenger is set against the champion, so that
neither has seen them.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import xgboost as xgb
from numpy.typing import NDArray

from features.world.law import World
from training.judging.estimators import dr
from training.judging.evidence import estimate
from training.judging.findings import Evidence, Gate, money_findings
from training.learning.learners import BASELINE, BINS, grow
from training.metrics import Estimate
from training.ope import fixed
from training.policy import greedy, net_values
from training.simulation.experience import Experience
from training.uplift import Outcome, UpliftModel, fit_uplifts

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Matrix = NDArray[np.float32]

MARGIN: Final = "margin"  # the one outcome there is
HELD_BACK: Final = 5  # one member in so many
NOT_JUDGED: Final = Estimate(0.0, 0.0, 0.0, 0)  # of churn, of which nothing is asked here


@dataclass(frozen=True)
class Learned:
    """Hold what one training came to."""

    uplift: UpliftModel  # its student knows of redemption as well
    baseline: xgb.Booster  # of the outcome, whatever the treatment
    floor: float  # how many standard errors of its uplift an offer's net value has to be above

    def bar(self, X: Matrix) -> Floats:
        """Give what net values have to be above, `(n, n_offers)`."""
        return self.floor * self.uplift.error(X)

    def redemption(self, X: Matrix) -> Floats:
        """Give the chance that each offer is redeemed if it is sent, `(n, n_offers)`."""
        model = self.uplift
        return model.student.predict(model.encoding.matrix(X))[:, model.outputs.stop :]

    def outcomes(self, X: Matrix) -> Floats:
        """Expect the outcome of every treatment, `(n, 1 + n_offers)`."""
        uplift = self.uplift.predict(X)
        usual = np.asarray(self.baseline.inplace_predict(X), dtype=np.float64)[:, None]
        return np.hstack([usual, usual + uplift])


@dataclass(frozen=True)
class Judged:
    """Hold whether a challenger may serve, and why."""

    promote: bool
    reasons: tuple[str, ...]


def held_back(experience: Experience) -> Flags:
    """Say which decisions are of members that are never learned from."""
    return np.asarray(experience.member % HELD_BACK == 0)


def learn(experience: Experience, world: World, *, floor: float, rng: np.random.Generator) -> Learned:
    """Learn from every decision that could have been another, of the members one may learn from."""
    log = experience.take(~held_back(experience)).drawn()
    contact_cost = {offer.offer_id: float(offer.contact_cost) for offer in world.offers}
    models = fit_uplifts(
        log.X,
        np.asarray(world.treatments)[log.treatment],
        {MARGIN: Outcome(log.outcome, contact_cost)},
        log.propensity,
        redeemed=log.redeemed,
        clusters=log.member,
        rng=rng,
    )
    return Learned(models[MARGIN], _regress(log.X, log.outcome), floor)


def silence(experience: Experience) -> xgb.Booster:
    """Learn who buys nothing within a wave."""
    return _regress(experience.X, 1.0 - experience.bought)


def judge(experience: Experience, world: World, challenger: Learned, champion: Learned | None, *, gate: Gate) -> Judged:
    """Judge a challenger's money as `promotion` does, on members that neither it nor the champion has learned from."""
    held = experience.take(held_back(experience)).drawn()
    cost = np.array([0.0, *[float(offer.contact_cost) for offer in world.offers]])
    log, q, policy = held.log(cost), challenger.outcomes(held.X), acting(challenger, held.X, cost[1:])
    average = [challenger.uplift.record.average_effect[offer].value for offer in world.treatments[1:]]
    everybody = np.ones((len(held), len(world.offers)), dtype=np.bool_)

    def lead(rival: Floats) -> Estimate:
        return estimate(dr(log, policy, q) - dr(log, rival, q), held.member)

    before = None if champion is None else acting(champion, held.X, cost[1:])
    evidence = replace(
        _evidence(policy),
        refreshes=before is not None,
        against_no_contact=lead(fixed(0, everybody)),
        against_best_fixed=lead(fixed(1 + int(np.argmax(average - cost[1:])), everybody)),
        against_champion=None if before is None else lead(before),
    )
    rival = None if before is None else _evidence(before)
    findings = list(money_findings(evidence, rival, gate, "{:+.1f}".format))
    return Judged(all(passed for passed, _ in findings), tuple(str(reason) for _, reason in findings))


def acting(learned: Learned, X: Matrix, contact_cost: Floats) -> Floats:
    """Write as probabilities what a model would do without hold-out and exploration, `(n, 1 + n_offers)`."""
    return greedy(net_values(learned.uplift.predict(X), contact_cost), bar=learned.bar(X))


def _evidence(policy: Floats) -> Evidence:
    """Say of a policy what the gate asks of its money; of churn there is no question here."""
    personalised = len(np.unique(policy, axis=0)) > 1
    return Evidence("randomised", NOT_JUDGED, NOT_JUDGED, NOT_JUDGED, personalised=personalised)


def _regress(X: Matrix, target: NDArray[np.generic]) -> xgb.Booster:
    return grow(xgb.QuantileDMatrix(X, max_bin=BINS, nthread=1), target.astype(np.float64), BASELINE)
