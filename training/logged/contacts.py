"""Contacts as the rows of an experiment: features as of then, the treatment with its propensity, what followed."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.schema import CONTROL
from training.labels import days_after, total_before
from training.preparation import Prepared
from training.releases.manifest import OfferSpec


@dataclass(frozen=True)
class ContactRows:
    """Hold the contacts that can be learned from, and how many can not, by reason."""

    frame: pd.DataFrame  # member_id, as_of, contacted_at, treatment, propensity, outcome, retained, redeemed
    left_out: dict[str, int]


def contact_rows(prepared: Prepared, offers: Sequence[OfferSpec]) -> ContactRows:
    """Give each contact the last snapshot before it and what followed.

    The outcome is the margin within the horizon less redemption costs; `retained` says whether the member stayed, with
    a purchase within the horizon or, where churn is the end of a contract, in a spell that outlasts it; `redeemed`
    whether the offer was, within the horizon.

    A member who is contacted again within the horizon brings what both contacts do: each is then judged as one that is
    followed by more of the programme's usual contacts.
    """
    rows = prepared.known("contacts")
    rows = rows.assign(propensity=rows.get("propensity", np.nan))
    rows = rows.assign(as_of=_snapshot(rows["contacted_at"], prepared), until=_horizon_end(rows, prepared))
    joined = prepared.known("members", ["member_id", "joined_at"]).set_index("member_id")["joined_at"]
    reasons = {
        "the offer is none of the table of offers": ~rows["treatment"].isin([CONTROL, *[o.offer_id for o in offers]]),
        "its propensity is missing": rows["propensity"].isna(),
        "its propensity is 0, and yet it happened": rows["propensity"] <= 0,
        "nothing else could have happened: its propensity is 1": rows["propensity"] >= 1,
        "its horizon has not passed": _label_end(rows, prepared) > pd.Timestamp(prepared.known_until),
        "the member opted out": rows["member_id"].isin(prepared.silent),
        "the member had no features yet": ~(rows["member_id"].map(joined) < rows["as_of"]),
        "the member was contacted twice at once": rows.duplicated(["member_id", "contacted_at"], keep=False),
    }
    left_out: dict[str, int] = {}
    usable = np.ones(len(rows), dtype=np.bool_)
    for reason, wrong in reasons.items():
        count = int((wrong.to_numpy() & usable).sum())
        left_out |= {reason: count} if count else {}
        usable &= ~wrong.to_numpy()
    kept = rows[usable].sort_values(["contacted_at", "member_id"], ignore_index=True)
    redemptions, cost = _redemptions(kept, prepared), {offer.offer_id: float(offer.redemption_cost) for offer in offers}
    followed = {
        "outcome": margin_until(kept, prepared.visits) - redemptions * kept["treatment"].map(cost).fillna(0.0),
        "retained": _retained(kept, prepared),
        "redeemed": ((redemptions > 0) & (kept["treatment"] != CONTROL)).astype(np.float64),
    }
    columns = ["member_id", "as_of", "contacted_at", "treatment", "propensity"]
    return ContactRows(kept[columns].assign(**followed), left_out)


def _snapshot(contacted_at: pd.Series, prepared: Prepared) -> pd.Series:
    """Give the last snapshot at or before each contact; none where there is none."""
    dates = pd.Series(list(prepared.dates)).astype(contacted_at.dtype)
    place = np.searchsorted(dates.to_numpy(), contacted_at.to_numpy(), side="right") - 1
    return dates.iloc[np.maximum(place, 0)].set_axis(contacted_at.index).where(place >= 0)


def _horizon_end(rows: pd.DataFrame, prepared: Prepared) -> pd.Series:
    return days_after(rows["contacted_at"], prepared.programme.horizon_days, prepared.programme)


def _label_end(rows: pd.DataFrame, prepared: Prepared) -> pd.Series:
    """Say from when on it is known who stayed: a contract may be renewed within the grace period after its end."""
    programme = prepared.programme
    return days_after(rows["contacted_at"], programme.label_days - programme.lead_days, programme)


def margin_until(rows: pd.DataFrame, visits: pd.DataFrame) -> NDArray[np.float64]:
    """Sum each member's margin from the contact on, `(n_rows,)`.

    Parameters
    ----------
    rows : member_id, contacted_at, until
    visits : member_id, occurred_at, margin; in order of time
    """
    total = visits.assign(total=visits.groupby("member_id")["margin"].cumsum())[["member_id", "occurred_at", "total"]]
    return total_before(rows, "until", total) - total_before(rows, "contacted_at", total)


def _retained(rows: pd.DataFrame, prepared: Prepared) -> NDArray[np.float64]:
    """Say who stayed until the horizon's end, `(n_rows,)`, 0 or 1."""
    if prepared.subscribed is None:
        visits = prepared.visits
        total = visits.assign(total=visits.groupby("member_id").cumcount() + 1)[["member_id", "occurred_at", "total"]]
        came = total_before(rows, "until", total) - total_before(rows, "contacted_at", total)
        return np.asarray(came > 0, dtype=np.float64)
    pairs = rows[["member_id", "contacted_at", "until"]].reset_index(names="row").merge(prepared.subscribed)
    now = (pairs["started_at"] <= pairs["contacted_at"]) & (pairs["ends_at"] > pairs["contacted_at"])
    stayed = pairs.loc[now & (pairs["ended_at"] >= pairs["until"]), "row"].unique()
    return np.isin(np.arange(len(rows)), stayed).astype(np.float64)


def redemptions_of(rows: pd.DataFrame, redeemed: pd.DataFrame) -> NDArray[np.float64]:
    """Count the redemptions of each contact until its time is over, `(n_rows,)`.

    Where redemptions name their contact, that one's; else those of the same member and offer.

    Parameters
    ----------
    rows : member_id, treatment, contacted_at, until, and contact_id where redemptions have it
    redeemed : the table `redemptions`
    """
    on = ["contact_id"] if "contact_id" in redeemed else ["member_id", "treatment"]
    redeemed = redeemed.rename(columns={"offer_id": "treatment"})[[*on, "occurred_at"]]
    of = rows[["contacted_at", "until", *on]].reset_index(drop=True).reset_index(names="row")
    pairs = of.merge(redeemed, on=on)
    within = pairs[(pairs["occurred_at"] >= pairs["contacted_at"]) & (pairs["occurred_at"] < pairs["until"])]
    return np.bincount(within["row"], minlength=len(rows)).astype(np.float64)


def _redemptions(rows: pd.DataFrame, prepared: Prepared) -> NDArray[np.float64]:
    """Count the redemptions of each contact within its horizon, `(n_rows,)`; none where the company brings none."""
    there = "redemptions" in prepared.warehouse.tables
    return redemptions_of(rows, prepared.known("redemptions")) if there else np.zeros(len(rows))
