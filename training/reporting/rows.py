"""A campaign as rows: what was decided for whom, with which chance, what was expected, and what followed.

What members are grouped by, and what their margin is foreseen from, is of the time of their first decision in the
campaign: later the campaign itself may have moved it, and in the hold-out it can't.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.decisions import Block, campaign_ids, read_blocks
from features.errors import ContractError, NotFoundError
from features.home import Home
from features.log.columns import NOT_SCORED
from features.programme import Campaign as CampaignSettings
from features.programme import Programme
from features.schema import CONTROL
from features.snapshots import built
from features.warehouse import Warehouse
from training.artifacts import open_release
from training.releases.ledger import champion_id, keep_up
from training.reporting.attribution import attribute

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]

HELD, MODEL, RANDOM = "hold_out", "model", "random"  # outcomes of decisions that are arms of an experiment
CONTACT: Final = "contact"  # what a contact of the warehouse was: nothing says by whom it was decided
DRAWN: Final = (MODEL, RANDOM, CONTACT)
PASSING: Final = (
    *("apart", "offer_contacts", "contacts", "contacts_per_period"),
    *("stock", "budget", "precedence", "mandatory"),
)
GROUPS: Final = ("lifecycle_stage", "tier")
FORESEEN: Final = "spend_84d"  # of snapshots, where no release said a value
LISTED: Final = 10  # campaigns that an error names


@dataclass(frozen=True)
class Expected:
    """Hold what was known of each offer when it was decided; money in minor units, NaN where nothing was.

    Attributes
    ----------
    net_value
        (n, n_offers) what it would bring after all costs
    possible, uncapped
        (n, n_offers) whether it could be sent; whether it could have been but for contacts before it, stock and budget
    probabilities
        (n, 1 + n_offers) of control and each offer
    """

    net_value: Floats
    possible: Flags
    uncapped: Flags
    probabilities: Floats

    def take(self, rows: Flags | NDArray[np.intp]) -> "Expected":
        """Give some of the rows."""
        return Expected(**{name: matrix[rows] for name, matrix in vars(self).items()})


@dataclass(frozen=True)
class Campaign:
    """Hold a campaign's decisions whose window has passed.

    Attributes
    ----------
    frame
        member_id, contacted_at, until, outcome (the arm), treatment, propensity, margin, redeemed, cost,
        lifecycle_stage, tier, foreseen (margin, from what was known before), churn_probability
    offers
        the columns of `expected`
    randomised
        whether the chance of every treatment is known: else nothing here is an experiment
    in_money
        whether decisions were for margin: else what was expected of them is no promise of any
    waiting
        how many decisions have a window that has not passed
    lost
        of how many decisions it will never be known what followed: their members were erased
    """

    campaign_id: str
    source: Literal["decisions", "contacts"]
    frame: pd.DataFrame
    offers: tuple[str, ...]
    expected: Expected
    randomised: bool
    in_money: bool
    waiting: int
    lost: int
    margin_from: str
    redeemed_from: str
    attribution_days: int

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, rows: Flags) -> "Campaign":
        """Give some of the decisions."""
        return replace(self, frame=self.frame[rows].reset_index(drop=True), expected=self.expected.take(rows))


def read_campaign(
    home: Home, warehouse: Warehouse, campaign_id: str, *, programme: Programme, now: datetime
) -> Campaign:
    """Read a campaign from the decision log or, if that has none of it, from the warehouse's contacts.

    Raises
    ------
    NotFoundError
        If neither knows it; the message names those there are.
    ContractError
        If no decision's window has passed yet.
    """
    logged = home.decisions.exists()
    own = read_blocks(home.decisions, campaign_id) if logged else []
    contacts = _contacts(warehouse)
    sent = contacts[contacts["campaign_id"] == campaign_id].reset_index(drop=True)
    if not own and not len(sent):
        decided = campaign_ids(home.decisions) if logged else set()
        raise _unknown(campaign_id, decided | set(contacts["campaign_id"]))
    frame, offers, expected = _of_decisions(own) if own else _of_contacts(sent, home)
    settings = programme.campaigns.get(campaign_id, CampaignSettings())
    days = settings.attribution_days or programme.horizon_days
    found = attribute(frame, home, warehouse, programme=programme, days=days, now=now)
    if not found.kept.any():
        raise ContractError(
            f"no decision of {campaign_id!r} has its window of {days} days behind it, {len(frame):,} are waiting; "
            "ingest what came since, or set attribution_days"
        )
    return Campaign(
        campaign_id=campaign_id,
        source="decisions" if own else "contacts",
        frame=_as_of_first(found.frame, home),
        offers=offers,
        expected=expected.take(found.kept),
        randomised=bool((frame["propensity"] > 0).all()),
        in_money=(settings.objective or programme.policy.objective) == "profit",
        waiting=int((~found.kept & ~found.lost).sum()),
        lost=int(found.lost.sum()),
        margin_from=found.margin_from,
        redeemed_from=found.redeemed_from,
        attribution_days=days,
    )


def _contacts(warehouse: Warehouse) -> pd.DataFrame:
    contacts = warehouse.frame("contacts") if "contacts" in warehouse.tables else pd.DataFrame()
    return contacts if "campaign_id" in contacts else contacts.assign(campaign_id=None)


def _unknown(campaign_id: str, known: Collection[Any]) -> NotFoundError:
    there = sorted(name for name in known if isinstance(name, str))[:LISTED]
    named = f"there are {', '.join(there)}" if there else "no decision or contact names one"
    return NotFoundError(f"no campaign {campaign_id!r} is known; {named}")


def _of_decisions(blocks: Sequence[Block]) -> tuple[pd.DataFrame, tuple[str, ...], Expected]:
    numbers = dict.fromkeys(("value", "churn_probability", "propensity"), np.float64)
    frame = pd.concat([block.frame.astype(numbers) for block in blocks], ignore_index=True)
    frame = frame.rename(columns={"decided_at": "contacted_at", "value": "foreseen"})
    offers = tuple(sorted({name for block in blocks for name in block.treatments} - {CONTROL}))
    refusals = _by_offer([(block.treatments, block.refusals) for block in blocks], offers, NOT_SCORED)
    control = np.concatenate([block.probabilities[:, :1] for block in blocks])
    chances = [(block.treatments, block.probabilities[:, 1:]) for block in blocks]
    expected = Expected(
        net_value=_by_offer([(block.treatments, block.net_value) for block in blocks], offers, np.nan),
        possible=refusals == "",
        uncapped=np.isin(refusals, ["", *PASSING]),
        probabilities=np.hstack([control, _by_offer(chances, offers, 0.0)]),
    )
    order = np.argsort(frame["contacted_at"].to_numpy(), kind="stable")
    return frame.iloc[order].reset_index(drop=True), offers, expected.take(order)


def _of_contacts(contacts: pd.DataFrame, home: Home) -> tuple[pd.DataFrame, tuple[str, ...], Expected]:
    columns = [name for name in ("contact_id", "decision_id", "propensity") if name in contacts]
    frame = contacts[["member_id", "contacted_at", "treatment", *columns]].assign(outcome=CONTACT)
    unknown = dict.fromkeys(("foreseen", "churn_probability"), np.nan) | dict.fromkeys(GROUPS)
    frame = frame.assign(propensity=frame.get("propensity", np.nan), **unknown)
    offers = tuple(sorted(set(frame["treatment"]) - {CONTROL}))
    nothing = np.full((len(frame), 1 + len(offers)), np.nan)
    everything = np.ones((len(frame), len(offers)), dtype=np.bool_)
    return frame, offers, Expected(_by_champion(frame, offers, home), everything, everything, nothing)


def _by_champion(frame: pd.DataFrame, offers: Sequence[str], home: Home) -> Floats:
    """Give what the champion would have expected of each offer; NaN if it learned from these contacts or later ones."""
    keep_up(home)
    net, champion = np.full((len(frame), len(offers)), np.nan), champion_id(home)
    if champion is None:
        return net
    release = open_release(home.releases, champion)
    learned = pd.Timestamp(release.manifest.evidence["data"]["known_until"])
    if learned > frame["contacted_at"].min() or not set(offers) <= set(release.offer_ids):
        return net
    X = snapshot_rows(frame, home, release.feature_names).to_numpy(dtype=np.float32)
    cost = np.array([offer.contact_cost for offer in release.manifest.offers], dtype=np.float64)
    return (release.score(X).uplift - cost)[:, [release.offer_ids.index(offer) for offer in offers]]


def _by_offer(blocks: Sequence[tuple[tuple[str, ...], NDArray[Any]]], offers: Sequence[str], missing: Any) -> Any:  # noqa: ANN401 (of any type)
    """Lay out matrices that have a column per offer of their own treatments, `(n, n_offers)` together."""
    laid = np.full(
        (sum(len(matrix) for _, matrix in blocks), len(offers)),
        missing,
        dtype=object if isinstance(missing, str) else None,
    )
    first = 0
    for treatments, matrix in blocks:
        columns = [offers.index(offer) for offer in treatments[1:]]
        laid[first : first + len(matrix), columns] = matrix
        first += len(matrix)
    return laid


def _as_of_first(frame: pd.DataFrame, home: Home) -> pd.DataFrame:
    """Set groups and what margin is foreseen from to what they were at each member's first decision."""
    names, first = [*GROUPS, "foreseen"], frame.sort_values("contacted_at", kind="stable").drop_duplicates("member_id")
    then = first.set_index("member_id")[["contacted_at", *names]]
    missing = [name for name in names if then[name].isna().all()]
    if missing and home.features.exists():
        found = snapshot_rows(then.reset_index(), home, (*GROUPS, FORESEEN)).set_axis(then.index)
        then = then.assign(**found.rename(columns={FORESEEN: "foreseen"})[missing])
    return frame.drop(columns=names).join(then[names], on="member_id")


def snapshot_rows(rows: pd.DataFrame, home: Home, columns: Sequence[str]) -> pd.DataFrame:
    """Read columns of the last snapshot before each row's time, in the rows' order; missing where there is none.

    Parameters
    ----------
    rows : member_id, contacted_at
    """
    dates = pd.DatetimeIndex(built(home))
    place = dates.searchsorted(pd.DatetimeIndex(rows["contacted_at"]), side="right") - 1
    found = pd.DataFrame(index=rows.index, columns=list(columns), dtype=object)
    for number in np.unique(place[place >= 0]):
        then = place == number
        snapshot = pd.read_parquet(home.snapshot(dates[number].to_pydatetime()), columns=["member_id", *columns])
        found[then] = snapshot.set_index("member_id").reindex(rows["member_id"][then]).to_numpy(dtype=object)
    return found
