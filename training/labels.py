"""What followed: for each member active before `as_of`, whether they lapsed and the margin they brought.

A label exists only when its window has fully passed. The window is [as_of, as_of + horizon), counted in local days.
"""

from collections.abc import Sequence
from datetime import datetime

import numpy as np
import pandas as pd

from features.errors import ContractError
from features.programme import Programme


def margins(transactions: pd.DataFrame, programme: Programme) -> pd.DataFrame:
    """Give one row per visit, ordered by time: member_id, occurred_at, margin (integer minor units)."""
    visits = transactions.groupby(["member_id", "transaction_id"], sort=False, as_index=False).agg(
        occurred_at=("occurred_at", "min"), margin=("margin" if "margin" in transactions else "amount", "sum")
    )
    rate = 1.0 if "margin" in transactions else programme.margin_rate
    margin = np.rint(visits["margin"].to_numpy(dtype=np.float64) * rate).astype(np.int64)
    return visits.assign(margin=margin).sort_values(["occurred_at", "member_id"], ignore_index=True)[
        ["member_id", "occurred_at", "margin"]
    ]


def between(visits: pd.DataFrame, start: datetime, end: datetime) -> pd.DataFrame:
    """Give the visits in [start, end), by bisection: `visits` is ordered by time."""
    times = visits["occurred_at"]
    return visits.iloc[times.searchsorted(pd.Timestamp(start)) : times.searchsorted(pd.Timestamp(end))]


def mature(dates: Sequence[datetime], *, known_until: datetime, programme: Programme) -> list[datetime]:
    """Keep the dates whose label window has fully passed by `known_until`."""
    return [as_of for as_of in dates if programme.days_before(as_of, -programme.horizon_days) <= known_until]


def label(
    visits: pd.DataFrame, dates: Sequence[datetime], *, known_until: datetime, programme: Programme
) -> pd.DataFrame:
    """Label every active member at every date.

    Parameters
    ----------
    visits : as `margins` gives them

    Returns
    -------
    member_id, as_of, churned (0 or 1), margin (within the horizon), previous_margin (in as many days before `as_of`)

    Raises
    ------
    ContractError
        If a window has not passed: there is no such label yet.
    """
    early = sorted(set(dates) - set(mature(dates, known_until=known_until, programme=programme)))
    if early:
        raise ContractError(
            f"the {programme.horizon_days} days after {early[0]:%Y-%m-%d} have not passed by {known_until:%Y-%m-%d}; "
            f"train with an earlier --as-of or a shorter horizon_days"
        )
    return pd.concat([_label_one(visits, as_of, programme) for as_of in dates], ignore_index=True)


def _label_one(visits: pd.DataFrame, as_of: datetime, programme: Programme) -> pd.DataFrame:
    days = programme.horizon_days
    active = between(visits, programme.days_before(as_of, programme.activity_days), as_of)["member_id"].unique()
    members = pd.Index(np.sort(active), name="member_id")
    after = (
        between(visits, as_of, programme.days_before(as_of, -days)).groupby("member_id")["margin"].agg(["size", "sum"])
    )
    before = between(visits, programme.days_before(as_of, days), as_of).groupby("member_id")["margin"].sum()
    after = after.reindex(members, fill_value=0)
    return pd.DataFrame(
        {
            "member_id": members.to_numpy(),
            "as_of": pd.Timestamp(as_of).as_unit("us"),
            "churned": (after["size"] == 0).to_numpy(dtype=np.int8),
            "margin": after["sum"].to_numpy(dtype=np.int64),
            "previous_margin": before.reindex(members, fill_value=0).to_numpy(dtype=np.int64),
        }
    )
