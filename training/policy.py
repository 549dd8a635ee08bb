"""The policy: from what each offer would bring to the probability of each treatment, and the draw among them.

One implementation serves the service, batch decisions and off-policy evaluation, so the logged propensity is the
probability that was drawn from. Column 0 of every matrix of probabilities is `control`, column 1 + j is offer j.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features.errors import ContractError

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.intp]

CONTROL_INDEX: Final = 0


def net_values(uplift: Floats, contact_cost: Floats, *, budget_price: float = 0.0) -> Floats:
    """Subtract from each offer's uplift what contacting costs, `(n_members, n_offers)`, minor units.

    Parameters
    ----------
    uplift : (n_members, n_offers) incremental margin after redemption costs
    contact_cost : (n_offers,)
    budget_price : what one more unit of budget would earn beyond itself (the shadow price; 0 where money is not short)

    >>> net_values(np.array([[300.0, 80.0]]), np.array([50.0, 100.0]), budget_price=0.5).tolist()
    [[225.0, -70.0]]
    """
    return np.asarray(uplift - contact_cost * (1.0 + budget_price))


def treatment_probabilities(
    net_value: Floats, eligible: Flags, held_out: Flags, *, exploration: float, bar: Floats | float = 0.0
) -> Floats:
    """Give each treatment its probability, `(n_members, 1 + n_offers)`; rows sum to 1.

    The best eligible offer whose net value is above its bar, else `control`, has 1 - exploration; exploration is shared
    evenly by `control` and all eligible offers, that best one among them, so every eligible treatment keeps a known,
    positive probability. Who is held out gets `control` for certain. Of equal offers the first wins; a missing (NaN)
    net value never does.

    Parameters
    ----------
    net_value : (n_members, n_offers)
    eligible : (n_members, n_offers)
    held_out : (n_members,)
    exploration : probability, at least 0 and at most 1
    bar : (n_members, n_offers) or one for all, at least 0: so many standard errors of its uplift, so that noise is not
        acted on

    >>> probabilities = treatment_probabilities(
    ...     np.array([[5.0, 9.0], [5.0, 9.0]]), np.array([[True, False]] * 2), np.array([False, True]), exploration=0.2
    ... )
    >>> probabilities.round(3).tolist()
    [[0.1, 0.9, 0.0], [1.0, 0.0, 0.0]]
    """
    _check_policy(net_value, eligible, held_out, exploration)
    _check_bar(bar)
    possible = eligible & ~held_out[:, None]
    # `control` is worth 0 and stands first, so argmax falls back to it where no offer is better.
    worth = np.column_stack([np.zeros(len(possible)), np.where(possible & (net_value > bar), net_value, 0.0)])
    allowed = np.column_stack([np.ones(len(possible), dtype=np.bool_), possible])
    probabilities = np.asarray(allowed * (exploration / allowed.sum(axis=1))[:, None], dtype=np.float64)
    probabilities[np.arange(len(worth)), np.argmax(worth, axis=1)] += 1.0 - exploration
    probabilities[held_out, CONTROL_INDEX] = 1.0
    return probabilities


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


def in_hold_out(member_ids: Sequence[str], *, salt: str, share: float) -> Flags:
    """Say who belongs to the hold-out group, `(n_members,)`: by a hash of salt and id, so forever and on any machine.

    Raising `share` keeps everybody who was in it.

    >>> in_hold_out(["m1", "m2"], salt="holdfast", share=1.0).tolist()
    [True, True]
    """
    salted = hashlib.blake2b(salt.encode() + b"\0", digest_size=8)
    digests = bytearray()
    for member_id in member_ids:
        digest = salted.copy()
        digest.update(member_id.encode(errors="surrogatepass"))
        digests += digest.digest()
    # 53 bits: as many as a float holds, so that a share of 1 holds out everybody
    return np.asarray((np.frombuffer(digests, dtype=">u8") >> 11) * 2.0**-53 < share)


def _check_policy(net_value: Floats, eligible: Flags, held_out: Flags, exploration: float) -> None:
    if net_value.ndim != 2 or eligible.shape != net_value.shape or held_out.shape != net_value.shape[:1]:  # noqa: PLR2004 (a matrix)
        raise ContractError(
            f"net_value {net_value.shape}, eligible {eligible.shape} and held_out {held_out.shape} came; "
            "(n_members, n_offers) twice and (n_members,) were wanted"
        )
    if not 0.0 <= exploration <= 1.0:
        raise ContractError(f"exploration {exploration} came, a probability was wanted; set it in holdfast.toml")


def _check_bar(bar: Floats | float) -> None:
    if not (np.asarray(bar) >= 0.0).all():
        raise ContractError("a bar below 0 or missing came, at least 0 was wanted: what does not pay is never sent")
