"""What followed each decision: margin and redemptions within the attribution window, and what they cost.

A purchase of the warehouse counts once: for the campaign's last decision on the member before it. An outcome that names
its decision counts for that one. A window that has not passed says nothing yet; its decision waits.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.decisions import read_catalogue_body, read_outcomes
from features.errors import NotFoundError
from features.home import Home
from features.log.erasing import ERASED
from features.offers import Catalogue, catalogue_from_json, read_catalogue
from features.programme import Programme
from features.snapshots import as_of_dates
from features.warehouse import Warehouse
from training.labels import days_after, margins
from training.logged.contacts import margin_until, redemptions_of

Floats = NDArray[np.float64]

ERASED_ON: Final = rf"^{ERASED}(\d{{4}}-\d{{2}}-\d{{2}})-"
PURCHASE, REDEMPTION = "purchase", "redemption"  # the kinds of outcomes that are money
OUTCOMES, TRANSACTIONS, REDEMPTIONS, NOWHERE = "outcomes", "transactions", "redemptions", "nothing"


@dataclass(frozen=True)
class Attributed:
    """Hold decisions with what followed them.

    Attributes
    ----------
    frame
        the decisions whose window has passed, with `until`, `margin`, `redeemed` (how often) and `cost`
    kept
        (n,) which of the decisions asked about those are
    lost
        (n,) of which of them it will never be known what followed: their members were erased
    margin_from, redeemed_from
        `outcomes` of the log, or the warehouse's table
    """

    frame: pd.DataFrame
    kept: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    margin_from: str
    redeemed_from: str


def attribute(
    decisions: pd.DataFrame, home: Home, warehouse: Warehouse, *, programme: Programme, days: int, now: datetime
) -> Attributed:
    """Give each decision what followed it within so many local days.

    Parameters
    ----------
    decisions : member_id, contacted_at, treatment, and of decision_id and contact_id whatever there is
    """
    named = _named(decisions, home, warehouse)
    rows = decisions.assign(end=days_after(decisions["contacted_at"], days, programme))
    rows = rows.assign(until=_until_next(rows))
    bought, redeemed = (named[named["kind"] == kind] for kind in (PURCHASE, REDEMPTION))
    if len(bought):
        margin, known_until = _sum_within(rows, bought, programme.margin_rate), _clock(named, programme, now)
    else:
        margin, known_until = _transacted(rows, warehouse, programme), min(now, as_of_dates(warehouse, programme)[-1])
    if len(redeemed):
        count, redeemed_from = _sum_within(rows, redeemed.assign(amount=1), 1.0), OUTCOMES
    else:
        count, redeemed_from = _redeemed(rows, warehouse)
    contact, redemption = _costs(rows, home, warehouse, programme)
    lost = _lost(rows, outcomes=bool(len(bought)))
    kept = (rows["end"] <= pd.Timestamp(known_until)).to_numpy() & ~lost
    frame = (
        rows.drop(columns="end")
        .assign(margin=margin, redeemed=count, cost=contact + count * redemption)[kept]
        .reset_index(drop=True)
    )
    return Attributed(frame, kept, lost, OUTCOMES if len(bought) else TRANSACTIONS, redeemed_from)


def _lost(rows: pd.DataFrame, *, outcomes: bool) -> NDArray[np.bool_]:
    """Say of which decisions it will never be known what followed, `(n_rows,)`: those on members who were erased.

    Outcomes of the log stay with such a decision, up to the day of the erasure; purchases of the warehouse are gone.
    """
    if "decision_id" not in rows:
        return np.zeros(len(rows), dtype=np.bool_)
    erased = pd.to_datetime(rows["decision_id"].str.extract(ERASED_ON, expand=False), utc=True)
    return np.asarray(erased.notna() & ((rows["end"] > erased) | (not outcomes)))


def _costs(rows: pd.DataFrame, home: Home, warehouse: Warehouse, programme: Programme) -> tuple[Floats, Floats]:
    """Give what each decision's contact cost, and each redemption of its offer, by the catalogue it was taken by."""
    today = read_catalogue(warehouse, programme)
    ids = rows["catalogue_id"].to_numpy() if "catalogue_id" in rows else np.full(len(rows), today.catalogue_id)
    contact, redemption = np.zeros(len(rows)), np.zeros(len(rows))
    for catalogue_id in np.unique(ids):
        then, of = _catalogue(home, catalogue_id) or today, ids == catalogue_id
        point = then.policy.point_cost * then.policy.points_used
        sent = rows["treatment"][of]
        contact[of] = sent.map({one.offer_id: one.contact_cost for one in then.offers}).fillna(0)
        redeemed = {one.offer_id: one.redemption_cost + one.points * point for one in then.offers}
        redemption[of] = sent.map(redeemed).fillna(0)
    return contact, redemption


def _catalogue(home: Home, catalogue_id: str) -> Catalogue | None:
    try:
        return catalogue_from_json(read_catalogue_body(home.decisions, catalogue_id))
    except NotFoundError:
        return None


def _named(decisions: pd.DataFrame, home: Home, warehouse: Warehouse) -> pd.DataFrame:
    """Give the log's outcomes of these decisions, `row` saying whose: kind, occurred_at, amount."""
    columns = ["decision_id", "contact_id", "kind", "occurred_at", "amount"]
    came = read_outcomes(home.decisions) if home.decisions.exists() else []
    outcomes = pd.DataFrame.from_records(came, columns=columns)
    place = pd.Series(np.arange(len(decisions)), dtype=np.float64)
    found = pd.Series(np.nan, index=outcomes.index)
    for name in ("decision_id", "contact_id"):
        if name in decisions:
            found = found.fillna(outcomes[name].map(place.set_axis(decisions[name])[lambda s: s.index.notna()]))
    if "contact_id" not in decisions and "contacts" in warehouse.tables:
        told = warehouse.frame("contacts")
        if "decision_id" in told:
            decision = told.dropna(subset=["decision_id"]).set_index("contact_id")["decision_id"]
            found = found.fillna(outcomes["contact_id"].map(decision).map(place.set_axis(decisions["decision_id"])))
    return outcomes.assign(row=found).dropna(subset=["row"]).astype({"row": np.intp})


def _sum_within(rows: pd.DataFrame, outcomes: pd.DataFrame, rate: float) -> Floats:
    """Sum amounts, times a rate and rounded one by one, of outcomes within their decision's window, `(n_rows,)`."""
    of = rows.iloc[outcomes["row"]]
    when = outcomes["occurred_at"].to_numpy()
    within = (of["contacted_at"].to_numpy() <= when) & (when < of["end"].to_numpy())
    amount = np.rint(outcomes["amount"].fillna(0).to_numpy(dtype=np.float64) * rate)
    return np.bincount(outcomes["row"], weights=amount * within, minlength=len(rows)).astype(np.float64)


def _transacted(rows: pd.DataFrame, warehouse: Warehouse, programme: Programme) -> Floats:
    brought = warehouse.expression("transactions").columns
    money = [name for name in ("amount", "margin") if name in brought]
    visits = margins(warehouse.frame("transactions", ["member_id", "transaction_id", "occurred_at", *money]), programme)
    return margin_until(rows, visits)


def _redeemed(rows: pd.DataFrame, warehouse: Warehouse) -> tuple[Floats, str]:
    if "redemptions" not in warehouse.tables:
        return np.zeros(len(rows)), NOWHERE
    redeemed = warehouse.frame("redemptions")
    if "contact_id" not in rows:
        redeemed = redeemed.drop(columns="contact_id", errors="ignore")
    return redemptions_of(rows, redeemed), REDEMPTIONS


def _until_next(rows: pd.DataFrame) -> pd.Series:
    """End each window where the member's next decision begins."""
    ordered = rows.sort_values("contacted_at", kind="stable")
    following = ordered.groupby("member_id")["contacted_at"].shift(-1).reindex(rows.index)
    return rows["end"].where(~(following < rows["end"]), following)


def _clock(outcomes: pd.DataFrame, programme: Programme, now: datetime) -> datetime:
    """Say until when outcomes are known; a programme of the past has the time of its last one."""
    last: datetime = outcomes["occurred_at"].max()
    return min(now, last) if programme.replay_from else now
