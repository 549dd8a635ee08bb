"""What is true of a world's members, in closed form: the oracle that estimates are measured against.

Given who is there when a wave starts, everything here is exact, not simulated; money is in minor units. No model may
read it.
"""

import numpy as np
import pandas as pd
from numpy.polynomial.polynomial import polyval

from features.world.law import MARGIN_RATE, WAVE_DAYS, World
from features.world.members import Floats, Members, responses
from features.world.tables import member_ids


def wave_hazard(world: World, members: Members, wave: int) -> Floats:
    """Give the hazard per day under each treatment, `(n_members, 1 + n_offers)`."""
    ratio = responses(world, members, wave).hazard_ratio
    return np.asarray(members.hazard[:, None] * world.factor("hazard", wave) * ratio)


def leaving_probability(world: World, members: Members, wave: int) -> Floats:
    """Give the probability 1 - exp(-28 h) to leave for good within a wave, `(n_members, 1 + n_offers)`.

    It is 1 for those who have left before, and means nothing for those who had not joined yet.
    """
    leaving = -np.expm1(-wave_hazard(world, members, wave) * WAVE_DAYS)
    return np.where((members.left > wave * WAVE_DAYS)[:, None], leaving, 1.0)


def expected_outcome(world: World, members: Members, wave: int) -> Floats:
    """Give the expected margin less redemption cost within a wave, `(n_members, 1 + n_offers)`, before contact costs.

    With hazard h, a day's rate of visits r w_d, a visit's margin m, a payment c that is due after t days, redemption p,
    its cost k and the share g of redemptions that are a visit more:

        r m (1 - e^-h) / h sum_d w_d e^-hd  +  c e^-ht  +  p (1 - e^-28h) / 28h (g m - k)

    It is 0 for those who are not there when the wave starts.
    """
    hazard, response = wave_hazard(world, members, wave), responses(world, members, wave)
    margin = (MARGIN_RATE * world.factor("amount", wave) * members.basket)[:, None]
    rate = (members.visit_rate * world.factor("visits", wave))[:, None]
    day = polyval(np.exp(-hazard), world.day_weights(wave * WAVE_DAYS, WAVE_DAYS)) * -np.expm1(-hazard) / hazard
    cost = np.array([0, *[offer.redemption_cost for offer in world.offers]])
    redemption = response.redeems * _days_there(hazard) * (response.extra * margin - cost)
    due = members.due(wave)[:, None] - wave * WAVE_DAYS
    payment = MARGIN_RATE * members.price[:, None] * np.exp(-hazard * due)
    return np.asarray((rate * margin * day + payment + redemption) * members.there(wave)[:, None])


def effects(world: World, members: Members, wave: int) -> Floats:
    """Give every offer's true uplift within a wave, `(n_members, n_offers)`, before contact costs."""
    outcome = expected_outcome(world, members, wave)
    return np.asarray(outcome[:, 1:] - outcome[:, :1])


def redemption_probability(world: World, members: Members, wave: int) -> Floats:
    """Give the probability p (1 - e^-28h) / 28h that an offer is redeemed if it is sent, `(n_members, n_offers)`."""
    chance = responses(world, members, wave).redeems * _days_there(wave_hazard(world, members, wave))
    return np.asarray(chance[:, 1:] * members.there(wave)[:, None])


def churn_probability(world: World, members: Members, wave: int) -> Floats:
    """Give the probability of no purchase within a wave under no contact, `(n_members,)`; 1 for those who have left.

    Backwards from the wave's end, where it is 1: a day without a visit is survived, or the last. A payment that is due
    is a purchase by whoever is still there.
    """
    hazard, start = wave_hazard(world, members, wave)[:, 0], wave * WAVE_DAYS
    due, silent = members.due(wave) - start, np.ones(len(members))
    rate = members.visit_rate * world.factor("visits", wave)
    for day, weight in reversed(list(enumerate(world.day_weights(start, WAVE_DAYS)))):
        both = hazard + rate * weight
        silent = np.exp(-both) * silent + hazard / both * -np.expm1(-both)
        silent = np.where(due == day, 0.0, silent)
    return np.where(members.there(wave), silent, 1.0)


def truth_frame(world: World, members: Members, wave: int) -> pd.DataFrame:
    """Lay out the truth of a wave, a row per member, beside the tables and never among them."""
    known = {"hazard": members.hazard, "visit_rate": members.visit_rate, "left": members.left}
    uplift = dict(zip(world.treatments[1:], effects(world, members, wave).T, strict=True))
    return pd.DataFrame(
        {
            "member_id": member_ids(members).to_numpy(zero_copy_only=False),
            **known,
            "churn_probability": churn_probability(world, members, wave),
            **{f"truth_{offer_id}": values for offer_id, values in uplift.items()},
        }
    )


def _days_there(hazard: Floats) -> Floats:
    """Give the share of a wave's days that a member is expected to be there."""
    return np.asarray(-np.expm1(-hazard * WAVE_DAYS) / (hazard * WAVE_DAYS))
