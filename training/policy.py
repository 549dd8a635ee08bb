"""The policy: from what each offer would bring to the probability of each treatment, and the draw among them.

One implementation serves the service, batch decisions and off-policy evaluation, so the logged propensity is the
probability that was drawn from. Column 0 of every matrix of probabilities is `control`, column 1 + j is offer j.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from features.errors import ContractError

if TYPE_CHECKING:
    from features.offers import Catalogue
    from features.programme import Campaign
    from training.artifacts import Scores
    from training.releases.manifest import OfferSpec

Floats = NDArray[np.float64]
Reals = NDArray[np.float64] | NDArray[np.float32]  # millions of rows may come in single precision
Flags = NDArray[np.bool_]
Indices = NDArray[np.intp]
Arms = NDArray[np.int8]

CONTROL_INDEX: Final = 0
HELD_OUT: Final = np.int8(0)  # gets control for certain: what members do without any offer
MODEL: Final = np.int8(1)  # gets what the policy thinks best
RANDOM: Final = np.int8(2)  # gets control or any eligible offer, evenly: what offers bring without a policy


@dataclass(frozen=True)
class Terms:
    """Hold what a decision's offers cost and what it is for; money in minor units, one entry per offer."""

    contact_cost: Floats  # (n_offers,) of every contact
    redeemed_cost: Floats  # (n_offers,) of every redemption: its cost today, and the points it promises
    trained_redemption_cost: Floats  # (n_offers,) of every redemption, as uplift was learned after it
    objective: Literal["profit", "retained_members", "retained_value"] = "profit"
    member_worth: int | None = None  # what one who stays is worth, where the objective is retained members


def terms_of(catalogue: "Catalogue", offers: Sequence["OfferSpec"], campaign: "Campaign | None" = None) -> Terms:
    """Read the terms of a release's offers from today's catalogue; a campaign's objective goes before the policy's.

    An offer that the catalogue no longer has keeps the costs of the release; `training.constraints` refuses it.

    Raises
    ------
    ContractError
        If members who stay are to be counted and nothing says what one is worth.
    """
    policy, today = catalogue.policy, {offer.offer_id: offer for offer in catalogue.offers}
    current = [today.get(offer.offer_id, offer) for offer in offers]
    points = [today[offer.offer_id].points if offer.offer_id in today else 0 for offer in offers]
    objective = policy.objective if campaign is None or campaign.objective is None else campaign.objective
    if objective == "retained_members" and policy.member_worth is None:
        raise ContractError(
            "the objective is retained_members and no worth of a member came; set member_worth below [policy]"
        )
    redemption_cost = np.array([offer.redemption_cost for offer in current], dtype=np.float64)
    return Terms(
        contact_cost=np.array([offer.contact_cost for offer in current], dtype=np.float64),
        redeemed_cost=redemption_cost + np.array(points) * (policy.point_cost * policy.points_used),
        trained_redemption_cost=np.array([offer.redemption_cost for offer in offers], dtype=np.float64),
        objective=objective,
        member_worth=policy.member_worth if objective == "retained_members" else None,
    )


def benefits(scores: "Scores", terms: Terms) -> Floats:
    """Say what each offer would bring before all of its costs, `(n_members, n_offers)`, minor units."""
    if terms.objective == "profit":
        return np.asarray(scores.uplift + terms.trained_redemption_cost * scores.redemption)
    return np.asarray(scores.retention_uplift * _worth(scores, terms))


def benefit_errors(scores: "Scores", terms: Terms) -> Floats:
    """Say how far `benefits` may be off, as standard errors, `(n_members, n_offers)`, minor units."""
    if terms.objective == "profit":
        return scores.uplift_error
    return np.asarray(scores.retention_error * _worth(scores, terms))


def costs(scores: "Scores", terms: Terms) -> Floats:
    """Expect what each offer would cost, `(n_members, n_offers)`, minor units: this is what a budget is spent on."""
    return np.asarray(terms.contact_cost + terms.redeemed_cost * scores.redemption)


def net_values(benefit: Reals, cost: Reals, *, price: float = 0.0, stock_price: Floats | float = 0.0) -> Floats:
    """Subtract from what each offer brings what it costs, `(n_members, n_offers)`, minor units.

    Parameters
    ----------
    benefit, cost : (n_members, n_offers)
    price : what one more unit of budget would earn beyond itself (the shadow price; 0 where money is not short)
    stock_price : (n_offers,), what one more of each offer would earn (0 where there is enough of it)

    >>> net_values(np.array([[300.0, 80.0]]), np.array([[50.0, 100.0]]), price=0.5, stock_price=np.array([5.0, 0.0]))
    array([[220., -70.]])
    """
    return np.asarray(benefit - cost * (1.0 + price) - np.asarray(stock_price, dtype=benefit.dtype))


def treatment_probabilities(
    net_value: Reals,
    eligible: Flags,
    arm: Arms,
    *,
    exploration: float,
    regret: float | None = None,
    bar: Reals | float = 0.0,
    error: Reals | None = None,
    mandatory: Flags | None = None,
) -> Floats:
    """Give each treatment its probability, `(n_members, 1 + n_offers)`; rows sum to 1.

    The best eligible offer whose net value is above its bar, else `control`, is what the model arm gets, but for what
    exploring takes: every other treatment `a` allowed has the probability

        p_a = w_a min(exploration, regret / gap_a)

    where gap_a is how far its net value lies below the best's, and the weights w sum to 1 over all that are allowed,
    the best among them: half evenly, half by the share of its variance (`control` counts with the best offer's). So
    exploring takes at most `exploration` of the probability, and costs at most `regret` per decision; and with both
    above 0 everything allowed keeps a known, positive probability. The random arm gets `control` or an eligible offer,
    evenly; who is held out gets `control` for certain. Where an eligible offer is mandatory, the draw is among those
    that are, evenly. Of equal offers the first wins; one whose net value is not finite is not eligible. A member's
    probabilities are the same to the bit, whoever else is asked about.

    Parameters
    ----------
    net_value : (n_members, n_offers)
    eligible : (n_members, n_offers)
    arm : (n_members,) as `arms` gives them
    exploration : probability, at least 0 and at most 1
    regret : minor units per decision, at least 0; without it, only `exploration` limits
    bar : (n_members, n_offers) or one for all, at least 0: so many standard errors of its uplift, so that noise is not
        acted on
    error : (n_members, n_offers) standard errors; without them, exploration is shared evenly
    mandatory : (n_members, n_offers)

    >>> arm, eligible = np.array([MODEL, HELD_OUT]), np.array([[True, False]] * 2)
    >>> probabilities = treatment_probabilities(np.array([[5.0, 9.0]] * 2), eligible, arm, exploration=0.2)
    >>> probabilities.round(3).tolist()
    [[0.1, 0.9, 0.0], [1.0, 0.0, 0.0]]
    """
    _check_policy(net_value, eligible, arm, exploration, regret)
    _check_bar(bar)
    possible = eligible & np.isfinite(net_value) & (arm != HELD_OUT)[:, None]
    # From here on a row is a treatment, so that sums over treatments are made one by one, for one member as for many.
    allowed = np.vstack([np.ones(len(arm), dtype=np.bool_), possible.T])
    value = np.where(allowed, _with_control(net_value), 0.0)
    best = np.argmax(_with_control(np.where(possible & (net_value > bar), net_value, 0.0)), axis=0)
    probabilities = _weights(value, allowed, error) * _limits(value, best, exploration, regret)
    members = np.arange(len(arm))
    probabilities[best, members] = 0.0
    probabilities[best, members] = 1.0 - _total(probabilities)
    must = np.zeros_like(possible) if mandatory is None else possible & mandatory
    bound = must.any(axis=1)
    among = np.where(bound, np.vstack([np.zeros_like(bound), must.T]), allowed)
    return np.where(bound | (arm == RANDOM), among / _total(among), probabilities).T


def greedy(net_value: Floats, *, eligible: Flags | None = None, bar: Floats | float = 0.0) -> Floats:
    """Write as probabilities the policy that sends what is worth most for certain, `(n_members, 1 + n_offers)`.

    Parameters
    ----------
    eligible : (n_members, n_offers); every offer where it is not given
    bar : as in `treatment_probabilities`
    """
    possible = np.ones(net_value.shape, dtype=np.bool_) if eligible is None else eligible
    return treatment_probabilities(net_value, possible, np.full(len(net_value), MODEL), exploration=0.0, bar=bar)


def draw(probabilities: Floats, uniform: Floats) -> Indices:
    """Draw one treatment for each row by inverting its cumulative distribution, `(n_members,)` column indices.

    A treatment of probability 0 is never drawn, whatever rounding did to the sums.

    Parameters
    ----------
    probabilities : (n_members, 1 + n_offers), rows sum to 1
    uniform : (n_members,) at least 0 and below 1; logged, it replays the decision

    >>> draw(np.array([[0.1, 0.9, 0.0], [0.1, 0.9, 0.0]]), np.array([0.05, 0.999])).tolist()
    [0, 1]
    """
    cumulative = np.cumsum(probabilities, axis=1)
    # x / x is 1 to the bit: the last treatment possible and all after it end at 1, which no uniform reaches.
    return np.asarray(np.sum(cumulative / cumulative[:, -1:] <= uniform[:, None], axis=1), dtype=np.intp)


def arms(member_ids: Sequence[str], *, salt: str, hold_out: float, random_arm: float) -> Arms:
    """Say which arm each member belongs to, `(n_members,)`: by a hash of salt and id, so forever and on any machine.

    Of the members in the order of their numbers (see `member_numbers`) the first are held out and the last are the
    random arm, so that no arm takes from another until their shares meet, where the hold-out goes before. Raising a
    share keeps everybody who was in the arm.

    Parameters
    ----------
    hold_out, random_arm : shares of all members

    >>> arms(["m1", "m2"], salt="holdfast", hold_out=1.0, random_arm=0.5).tolist()
    [0, 0]
    """
    return arms_of(member_numbers(member_ids, salt=salt), hold_out=hold_out, random_arm=random_arm)


def arms_of(number: Floats, *, hold_out: float, random_arm: float) -> Arms:
    """Say which arm each member belongs to by its number, `(n_members,)`; see `arms`."""
    return np.where(number < hold_out, HELD_OUT, np.where(number >= 1.0 - random_arm, RANDOM, MODEL))


def member_numbers(member_ids: Sequence[str], *, salt: str) -> Floats:
    """Give each member a number of its own, `(n_members,)`, even over 0 to below 1: the same forever, on any machine.

    It is the first 53 bits of BLAKE2b (8 bytes) of the salt, a zero byte and the id.

    >>> member_numbers(["m1"], salt="holdfast").round(6).tolist()
    [0.143816]
    """
    salted = hashlib.blake2b(salt.encode() + b"\0", digest_size=8)
    digests = bytearray()
    for member_id in member_ids:
        digest = salted.copy()
        digest.update(member_id.encode(errors="surrogatepass"))
        digests += digest.digest()
    # 53 bits: as many as a float holds, so that every number is below 1
    return np.asarray((np.frombuffer(digests, dtype=">u8") >> 11) * 2.0**-53)


def _worth(scores: "Scores", terms: Terms) -> Floats | float:
    """Say what it is worth that a member stays, `(n_members, 1)` or one for all, minor units."""
    return scores.value[:, None] if terms.member_worth is None else float(terms.member_worth)


def _with_control(of_offers: Reals) -> Floats:
    """Turn `(n_members, n_offers)` into `(1 + n_offers, n_members)`: control, which stands first, is worth 0."""
    return np.vstack([np.zeros(len(of_offers)), of_offers.T])


def _total(rows: NDArray[Any]) -> Floats:
    """Add up treatments in their order; NumPy's own sum rounds otherwise for one member than for many."""
    return np.asarray(sum(rows), dtype=np.float64)


def _weights(value: Floats, allowed: Flags, error: Reals | None) -> Floats:
    """Share out exploration among the treatments allowed, `(1 + n_offers, n_members)`."""
    even = np.asarray(allowed / _total(allowed))
    if error is None:
        return even
    variance = np.where(allowed, _with_control(error) ** 2, 0.0)
    offers = np.where(allowed, value, -np.inf)
    offers[CONTROL_INDEX] = -np.inf
    variance[CONTROL_INDEX] = variance[np.argmax(offers, axis=0), np.arange(value.shape[1])]
    total = _total(variance)
    return np.asarray((even + np.divide(variance, total, out=even.copy(), where=total > 0)) / 2)


def _limits(value: Floats, best: Indices, exploration: float, regret: float | None) -> Floats | float:
    """Give min(exploration, regret / gap) for each treatment, `(1 + n_offers, n_members)`."""
    if regret is None:
        return exploration
    gap = np.maximum(value[best, np.arange(value.shape[1])] - value, 0.0)
    return np.divide(regret, gap, out=np.full_like(gap, exploration), where=gap * exploration > regret)


def _check_policy(net_value: Reals, eligible: Flags, arm: Arms, exploration: float, regret: float | None) -> None:
    if net_value.ndim != 2 or eligible.shape != net_value.shape or arm.shape != net_value.shape[:1]:  # noqa: PLR2004 (a matrix)
        raise ContractError(
            f"net_value {net_value.shape}, eligible {eligible.shape} and arm {arm.shape} came; "
            "(n_members, n_offers) twice and (n_members,) were wanted"
        )
    if not 0.0 <= exploration <= 1.0:
        raise ContractError(f"exploration {exploration} came, a probability was wanted; set it in holdfast.toml")
    if regret is not None and not regret >= 0.0:
        raise ContractError(f"regret {regret} came, minor units of at least 0 were wanted; set it in holdfast.toml")


def _check_bar(bar: Reals | float) -> None:
    if not (np.asarray(bar) >= 0.0).all():
        raise ContractError("a bar below 0 or missing came, at least 0 was wanted: what does not pay is never sent")
