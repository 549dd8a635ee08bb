"""What a company may do with its members in a wave: the loop's model, what one would do without it, and the oracle.

Every policy turns what it sees into probabilities of treatments `(n, 1 + n_offers)`, control first. Money is in minor
units. Where there is a budget, who can tell members apart pays the price at which it suffices; the others stop sending
when it is spent, which by chance of the order leaves out anybody alike.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa
import xgboost as xgb
from numpy.typing import NDArray

from features.world.law import World
from features.world.members import Members
from features.world.tables import member_ids
from features.world.truth import effects, redemption_probability
from training.budget import allocate, told_apart
from training.policy import MODEL, Arms, member_numbers, net_values, treatment_probabilities
from training.simulation.learning import Learned

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
Matrix = NDArray[np.float32]

RISKIEST: Final = 0.2  # the share of members that a churn campaign is usually sent to


@dataclass(frozen=True)
class Wave:
    """Hold what there is to be decided when a wave starts."""

    world: World
    number: int
    members: Members
    asked: Ints  # (n,) the places of those who are decided on
    X: Matrix  # (n, n_features); no features for policies that read none
    budget: float | None  # what may be spent, in expectation

    @property
    def contact_cost(self) -> Floats:
        """Give each offer's, `(n_offers,)`."""
        return np.array([float(offer.contact_cost) for offer in self.world.offers])

    @property
    def redemption_cost(self) -> Floats:
        """Give each offer's, `(n_offers,)`."""
        return np.array([float(offer.redemption_cost) for offer in self.world.offers])

    @cached_property
    def cost(self) -> Floats:
        """Expect by the truth what each offer costs, `(n, n_offers)`: a budget is one ruler for every policy.

        What a policy expects to spend it has to learn, as it learns what it earns.
        """
        return self.costs(redemption_probability(self.world, self.members, self.number)[self.asked])

    def costs(self, redemption: Floats) -> Floats:
        """Expect what each offer costs, `(n, n_offers)`, if it is redeemed as likely as that."""
        return np.asarray(self.contact_cost + self.redemption_cost * redemption)

    def ids(self) -> list[str]:
        """Name those who are decided on."""
        ids: list[str] = member_ids(self.members).take(pa.array(self.asked)).to_pylist()
        return ids

    def true_net(self) -> Floats:
        """Give what every offer truly earns, `(n, n_offers)`; no policy but the oracle may look."""
        return np.asarray(effects(self.world, self.members, self.number)[self.asked] - self.contact_cost)


Policy = Callable[[Wave], Floats]


def no_contact(wave: Wave) -> Floats:
    """Send nothing."""
    return always(wave, 0)


def at_random(wave: Wave) -> Floats:
    """Draw control and every offer alike."""
    return np.full((len(wave.asked), 1 + len(wave.world.offers)), 1 / (1 + len(wave.world.offers)))


def always(wave: Wave, treatment: int) -> Floats:
    """Give everybody the same."""
    return np.tile(np.eye(1 + len(wave.world.offers))[treatment], (len(wave.asked), 1))


def best_fixed(wave: Wave) -> Floats:
    """Send everybody the offer that in hindsight was best for all, or nothing if none pays."""
    return always(wave, int(np.argmax([0.0, *wave.true_net().mean(axis=0)])))


def oracle(wave: Wave) -> Floats:
    """Send what is truly best for each member."""
    return best_of(wave, wave.true_net(), wave.cost)


def by_response(wave: Wave, learned: Learned, margin: float) -> Floats:
    """Send what is likeliest to be redeemed, as if every redemption were a purchase that would not have come."""
    chance = learned.redemption(wave.X)
    return best_of(wave, chance * (margin - wave.redemption_cost) - wave.contact_cost, wave.costs(chance))


def by_churn(wave: Wave, booster: xgb.Booster, offer: int) -> Floats:
    """Send one offer to those who are likeliest to buy nothing."""
    risk = booster.inplace_predict(wave.X)
    riskiest = np.argsort(-risk, kind="stable")[: int(RISKIEST * len(risk))]
    probabilities = always(wave, 0)
    probabilities[riskiest] = np.eye(probabilities.shape[1])[offer]
    return probabilities


def by_model(
    wave: Wave,
    learned: Learned | None,
    arm: Arms,
    *,
    exploration: float,
    regret: float | None = None,
    salt: str = "",
) -> Floats:
    """Do what a model says, as it is served: with hold-out, random arm and exploration.

    As long as none was found fit to serve, nothing is what is best.
    """
    if learned is None:
        nothing, cost = np.zeros((len(wave.asked), len(wave.world.offers))), wave.contact_cost
        return act(wave, nothing, nothing + cost, arm[wave.asked], exploration=exploration, regret=regret)
    cost, bar = wave.costs(learned.redemption(wave.X)), learned.bar(wave.X)
    benefit = learned.uplift.predict(wave.X) - wave.contact_cost + cost
    if wave.budget is not None:
        benefit = told_apart(benefit, member_numbers(wave.ids(), salt=salt))
    return act(wave, benefit, cost, arm[wave.asked], exploration=exploration, regret=regret, bar=bar)


def best_of(wave: Wave, net: Floats, cost: Floats) -> Floats:
    """Send what earns most by `net` `(n, n_offers)`, where it earns at all."""
    return act(wave, net + cost, cost, np.full(len(net), MODEL), exploration=0.0)


def act(
    wave: Wave,
    benefit: Floats,
    cost: Floats,
    arm: Arms,
    *,
    exploration: float,
    regret: float | None = None,
    bar: Floats | float = 0.0,
) -> Floats:
    """Turn what offers bring and cost, as far as one knows, into probabilities, at the price the budget asks for."""
    eligible = np.ones(benefit.shape, dtype=np.bool_)
    price = 0.0 if wave.budget is None else allocate(benefit, cost, eligible, budget=wave.budget, bar=bar).price
    value = net_values(benefit, cost, price=price)
    return treatment_probabilities(value, eligible, arm, exploration=exploration, regret=regret, bar=bar)


def within_budget(wave: Wave, probabilities: Floats) -> Floats:
    """Send to fewer, whoever they are, where more would be spent than there is."""
    spend = float((probabilities[:, 1:] * wave.cost).sum())
    if wave.budget is None or spend <= wave.budget:
        return probabilities
    fewer = probabilities * (wave.budget / spend)
    fewer[:, 0] = 1.0 - fewer[:, 1:].sum(axis=1)
    return fewer
