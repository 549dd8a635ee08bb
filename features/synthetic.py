"""An experiment with known truth, overlaid on real households; `features.world` is a world known throughout.

The members, their features and their margins are real. The treatment, and what it adds, are simulated: every figure
that comes from it has to be called simulated wherever it is shown.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.errors import ContractError
from features.schema import CONTROL

Floats = NDArray[np.float64]
Response = Literal["come_back", "category_coupons", "big_basket"]

CONTROL_SHARE: Final = 0.25
TRUTH: Final = "truth_"  # prefix of the columns no model may read
READ: Final = ("overdue_ratio", "visits_28d", "spend_84d", "discount_share_84d", "basket_mean_84d")


@dataclass(frozen=True)
class OfferTerms:
    """State what an offer costs, in minor units, and how members respond to it."""

    offer_id: str
    contact_cost: int
    redemption_cost: int
    response: Response


def overlay_experiment(frame: pd.DataFrame, *, offers: Sequence[OfferTerms], rng: np.random.Generator) -> pd.DataFrame:
    """Assign random treatments with known propensities and add what they bring to the real margin.

    A quarter of the rows is control, the offers share the rest equally, whoever the member is. A member redeems with
    probability p(x) and then spends so that `gain(x)` more margin comes in, less the redemption cost:

    * `come_back`: p = 0.10 + 0.30 s, gain = 2400 s z - 150 (1 - s) l, where s is how overdue the member is (0 on time,
      1 at 2.5 usual gaps), z the usual margin over 3,500 (0.3 to 2) and l how loyal (visits in 28 days over 10, at most
      1). It wakes up the overdue and pays the loyal for what they buy anyway.
    * `category_coupons`: p = 0.08 + 0.50 min(d / 0.4, 1), gain = 1800 (1 - l), where d is the discount share. It suits
      discount-prone members who come seldom; those who come often already buy the category.
    * `big_basket`: p = 0.05 + 0.35 sigmoid((b - 4000) / 1000), gain = 2000 exp(-((b - 4500) / 2000)^2), where b is the
      mean basket. It stretches middling baskets; large ones collect the reward for nothing.

    Gains are in hundredths: one extra shop of 60 to 80 at a margin of 25 % is 1,500 to 2,000; a member who is won back
    resumes up to two thirds of a usual month (3,500). A missing feature counts as on
    time, no visits, no discount, an empty basket. One wave's treatment does not carry over to the next.

    Parameters
    ----------
    frame
        One row per (member_id, as_of) with the features read above and, of the horizon, `margin` in minor units and
        `churned`.
    offers
        At least one; their ids are the treatments beside `control`.

    Returns
    -------
    The frame without `margin` and `churned` (what no contact would have brought is not in a log), and with `treatment`,
    `propensity`, `redeemed`, `outcome` (margin less redemption cost, before the contact cost), `retained` (who redeems
    has come) and for every offer `truth_<offer_id>`, the expected increment p (gain - redemption_cost).

    Raises
    ------
    ContractError
        For missing columns, a member twice in a wave, a missing margin, or offers whose ids are not distinct.
    """
    _check(frame, offers)
    assigning, redeeming = rng.spawn(2)
    shares = np.array([CONTROL_SHARE, *[(1 - CONTROL_SHARE) / len(offers)] * len(offers)])
    arm = assigning.choice(len(shares), size=len(frame), p=shares)
    uniform = redeeming.random(len(frame))
    responses = [RESPONSES[offer.response](frame) for offer in offers]
    probability = np.column_stack([np.zeros(len(frame)), *[p for p, _ in responses]])
    net_gain = np.column_stack(
        [
            np.zeros(len(frame)),
            *[gain - offer.redemption_cost for offer, (_, gain) in zip(offers, responses, strict=True)],
        ]
    )
    rows = np.arange(len(frame))
    redeemed = uniform < probability[rows, arm]
    names = np.array([CONTROL, *[offer.offer_id for offer in offers]], dtype=object)
    added = {
        "treatment": names[arm],
        "propensity": shares[arm],
        "redeemed": redeemed,
        "outcome": frame["margin"].to_numpy(dtype=np.float64) + redeemed * net_gain[rows, arm],
        "retained": (frame["churned"].to_numpy() == 0) | redeemed,
    }
    truth = {f"{TRUTH}{offer.offer_id}": (probability * net_gain)[:, i + 1] for i, offer in enumerate(offers)}
    return frame.drop(columns=["margin", "churned"]).assign(**added, **truth)


def oracle(log: pd.DataFrame, offer_ids: Sequence[str]) -> Floats:
    """Read the true expected uplift `(n_rows, n_offers)` in minor units, after redemption and before contact costs."""
    columns = [f"{TRUTH}{offer_id}" for offer_id in offer_ids]
    missing = [name for name in columns if name not in log]
    if missing:
        raise ContractError(f"{missing} are not in the log: its truth is not known; only a simulated log has an oracle")
    return log[columns].to_numpy(dtype=np.float64)


def _come_back(frame: pd.DataFrame) -> tuple[Floats, Floats]:
    overdue = np.clip((_column(frame, "overdue_ratio", missing=1.0) - 1) / 1.5, 0, 1)
    usual_margin = 0.25 * _column(frame, "spend_84d") / 3
    size = np.clip(usual_margin / 3500, 0.3, 2)
    return 0.10 + 0.30 * overdue, 2400 * overdue * size - 150 * (1 - overdue) * _loyalty(frame)


def _category_coupons(frame: pd.DataFrame) -> tuple[Floats, Floats]:
    discount = np.clip(_column(frame, "discount_share_84d") / 0.4, 0, 1)
    return 0.08 + 0.50 * discount, 1800 * (1 - _loyalty(frame))


def _big_basket(frame: pd.DataFrame) -> tuple[Floats, Floats]:
    basket = _column(frame, "basket_mean_84d")
    return 0.05 + 0.35 / (1 + np.exp((4000 - basket) / 1000)), 2000 * np.exp(-(((basket - 4500) / 2000) ** 2))


RESPONSES: Final[dict[Response, Callable[[pd.DataFrame], tuple[Floats, Floats]]]] = {
    "come_back": _come_back,
    "category_coupons": _category_coupons,
    "big_basket": _big_basket,
}


def _loyalty(frame: pd.DataFrame) -> Floats:
    return np.clip(_column(frame, "visits_28d") / 10, 0, 1)


def _column(frame: pd.DataFrame, name: str, *, missing: float = 0.0) -> Floats:
    values: Floats = frame[name].to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isnan(values), missing, values)


def _check(frame: pd.DataFrame, offers: Sequence[OfferTerms]) -> None:
    missing = sorted({"member_id", "as_of", "margin", "churned", *READ} - set(frame.columns))
    if missing:
        raise ContractError(
            f"columns {missing} are missing; wanted member_id, as_of, margin, churned and the features {list(READ)}"
        )
    ids = [offer.offer_id for offer in offers]
    if not ids or len(set(ids)) < len(ids) or CONTROL in ids:
        raise ContractError(f"offers {ids} came; wanted at least one, with distinct ids other than {CONTROL!r}")
    if frame.duplicated(["member_id", "as_of"]).any():
        raise ContractError("a member came twice in one wave; wanted one row per (member_id, as_of)")
    if frame["margin"].isna().any():
        raise ContractError("a margin is missing; wanted the margin of every row within the horizon, 0 for no purchase")
