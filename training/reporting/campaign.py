"""Whether a campaign paid: what it brought beside members who got nothing, what it cost, and what had been promised.

Against a hold-out, everybody who was decided for is compared with everybody who was held out, whatever was sent, so
that nothing is selected. By offer that is done among members for whom the same offer was worth most. Where nobody was
held out, the decisions that were drawn to be `control` stand in, each for 1 / propensity. Where no propensity is known
either, the comparison is observational: it shows who was chosen as much as what it did.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from features.home import Home
from features.programme import Experiment, Programme, read_programme
from features.schema import CONTROL
from features.warehouse import open_warehouse
from training.judging.evidence import sample_ratio_mismatch, smallest_detectable_effect
from training.logged.balance import sample_ratio_p
from training.metrics import Estimate
from training.releases.manifest import read_manifest
from training.releases.shelf import had
from training.reporting.effect import enough, mean, narrower, numbered, ratio
from training.reporting.rows import DRAWN, GROUPS, HELD, MODEL, RANDOM, Campaign, read_campaign
from training.reporting.standing import Standing, log_of, stand

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Design = Literal["hold_out", "randomised", "observational"]

SILENT: Final = 30  # decisions that sent nothing, and not one outcome among them
NOTHING: Final = "no offer"  # of members for whom none was worth its cost


@dataclass(frozen=True)
class Effect:
    """Hold what a group of decisions cost and brought, in minor units per decision but for `cost`.

    None: too few members to say, or nothing was promised.
    """

    decisions: int
    compared: int  # decisions of the base group
    sent: int
    cost: float  # in all
    promised: float | None  # the net value that was expected when it was decided
    incremental_margin: Estimate | None = None
    net_value: Estimate | None = None  # incremental margin less what was spent on it
    return_on_cost: Estimate | None = None  # net value for each unit of cost
    adjusted: bool = False  # for the margin that was foreseen

    @property
    def kept(self) -> bool | None:
        """Whether the promise lies in the interval of what was found."""
        if self.promised is None or self.net_value is None:
            return None
        return self.net_value.lower <= self.promised <= self.net_value.upper


@dataclass(frozen=True)
class Sent:
    """Hold what was sent of an offer; cost in minor units."""

    sent: int
    redeemed: int
    cost: float


@dataclass(frozen=True)
class Known:
    """Hold the net value that was given up to know what offers bring, as expected then, in minor units."""

    hold_out: float
    random: float
    exploration: float


@dataclass(frozen=True)
class Report:
    """Hold everything that is known of a campaign."""

    campaign_id: str
    source: str  # decisions, or contacts of the warehouse
    design: Design
    margin_from: str
    redeemed_from: str
    attribution_days: int
    first: datetime
    last: datetime
    members: int
    outcomes: dict[str, int]  # decisions by outcome: model, random, hold_out, opt_out, fallback
    waiting: int
    lost: int
    whole: Effect
    groups: dict[str, dict[str, Effect]]  # by arm, offer, lifecycle_stage, tier
    sent: dict[str, Sent]
    arms_p: float | None  # that members' arms have the shares that were planned
    draws_p: float | None  # that treatments came as often as their propensities say
    smallest_detectable_effect: float | None
    standing: dict[str, Standing]
    cost_to_know: Known | None
    in_money: bool  # whether decisions were for margin: else nothing of it was promised
    silent_control: bool  # outcomes came for what was sent alone


def report_campaign(home: Home, campaign_id: str, *, now: datetime, rng: np.random.Generator) -> Report:
    """Report on a campaign of the decision log or of the warehouse's contacts.

    Raises
    ------
    NotFoundError, ContractError
        If there is none, or none of its windows has passed.
    """
    programme, warehouse = read_programme(home.settings), open_warehouse(home)
    campaign = read_campaign(home, warehouse, campaign_id, programme=programme, now=now)
    design, frame = design_of(campaign), campaign.frame
    whole = effect_of(campaign, *weights_of(campaign, design))
    return Report(
        campaign_id=campaign_id,
        source=campaign.source,
        design=design,
        margin_from=campaign.margin_from,
        redeemed_from=campaign.redeemed_from,
        attribution_days=campaign.attribution_days,
        first=frame["contacted_at"].min().to_pydatetime(),
        last=frame["contacted_at"].max().to_pydatetime(),
        members=frame["member_id"].nunique(),
        outcomes={str(name): int(count) for name, count in frame["outcome"].value_counts().items()},
        waiting=campaign.waiting,
        lost=campaign.lost,
        whole=whole,
        groups={name: dict(groups) for name, groups in _groups(campaign, design)},
        sent={offer: _sent(campaign, offer) for offer in campaign.offers},
        arms_p=arms_p(campaign, home, programme) if campaign.source == "decisions" else None,
        draws_p=draws_p(campaign) if campaign.randomised else None,
        smallest_detectable_effect=smallest_detectable_effect(whole.net_value) if whole.net_value else None,
        standing=stand(campaign, rng) if campaign.randomised else {},
        cost_to_know=cost_to_know(campaign) if campaign.in_money and campaign.source == "decisions" else None,
        in_money=campaign.in_money,
        silent_control=_silent_control(campaign),
    )


def design_of(campaign: Campaign) -> Design:
    """Say what the campaign is compared with."""
    members = numbered(campaign.frame["member_id"].to_numpy())
    if enough(_flags(campaign, HELD), members):
        return "hold_out"
    return "randomised" if campaign.randomised else "observational"


def weights_of(campaign: Campaign, design: Design) -> tuple[Floats, Floats]:
    """Weigh the decisions of the campaign, and those that it is compared with, `(n,)` each."""
    drawn, control = _flags(campaign, *DRAWN), (campaign.frame["treatment"] == CONTROL).to_numpy(np.float64)
    if design == "hold_out":
        return drawn, _flags(campaign, HELD)
    if design == "randomised":
        return drawn, drawn * control / campaign.frame["propensity"].to_numpy()
    return drawn * (1 - control), drawn * control


def effect_of(campaign: Campaign, weight: Floats, base: Floats) -> Effect:
    """Compare two groups of a campaign's decisions, each a weight `(n,)`."""
    rows = (weight > 0) | (base > 0)
    campaign, weight, base = campaign.take(rows), weight[rows], base[rows]
    frame, there = campaign.frame, weight > 0
    members = numbered(frame["member_id"].to_numpy())
    margin, cost = (frame[name].to_numpy(dtype=np.float64) for name in ("margin", "cost"))
    spent = float(cost[there].sum())
    plain = Effect(
        decisions=int(there.sum()),
        compared=int((base > 0).sum()),
        sent=int((frame["treatment"] != CONTROL)[there].sum()),
        cost=spent,
        promised=_promised(campaign, weight),
    )
    if not (enough(weight, members) and enough(base, members)):
        return plain
    foreseen = _foreseen(campaign)
    gross, adjusted = narrower(margin, weight, base, members, known=foreseen)
    net, _ = narrower(margin - cost, weight, base, members, known=foreseen)
    return replace(
        plain,
        incremental_margin=gross.estimate,
        net_value=net.estimate,
        return_on_cost=ratio(net, mean(cost, weight, members)) if spent else None,
        adjusted=adjusted,
    )


def arms_p(campaign: Campaign, home: Home, programme: Programme) -> float:
    """Give the p value that members' arms have the shares that their releases planned.

    Who opted out or was unknown has no arm. A release that is gone is taken to have planned what the settings say.
    """
    frame = campaign.frame[campaign.frame["outcome"].isin([HELD, MODEL, RANDOM])]
    first = frame.sort_values("contacted_at", kind="stable").drop_duplicates("member_id")
    if not len(first):
        return 1.0
    planned = {name: _experiment(home, name) or programme.experiment for name in first["release_id"].unique()}
    own = [planned[name] for name in first["release_id"]]
    held, random = (float(np.mean(share)) for share in zip(*((e.hold_out, e.random_arm) for e in own), strict=True))
    shares = {HELD: held, RANDOM: random, MODEL: 1.0 - held - random}
    counts = {name: int((first["outcome"] == name).sum()) for name in shares}
    there = [name for name, share in shares.items() if share > 0]
    if any(counts[name] for name in shares if name not in there):
        return 0.0
    if len(there) == 1:
        return 1.0
    return sample_ratio_mismatch([counts[name] for name in there], [shares[name] for name in there])


def _experiment(home: Home, release_id: str) -> Experiment | None:
    if not had(home, release_id):
        return None
    return Programme.model_validate(read_manifest(home.releases / release_id).programme).experiment


def draws_p(campaign: Campaign) -> float:
    """Give the p value that treatments came as often as their propensities say."""
    return sample_ratio_p(log_of(campaign))


def cost_to_know(campaign: Campaign) -> Known:
    """Add up the net value given up by the hold-out, by the random arm, and by exploring in the model's arm.

    It is what was expected when it was decided: the best possible offer's, or nothing where none is above 0, less that
    of what was drawn from. In the model's arm the best is what had the largest chance.
    """
    net = np.nan_to_num(campaign.expected.net_value)
    net = np.where(campaign.expected.possible, net, 0.0)
    outcome, chances = campaign.frame["outcome"].to_numpy(), campaign.expected.probabilities
    best = np.maximum(net.max(axis=1, initial=0.0), 0.0)
    worth = np.column_stack([np.zeros(len(net)), net])
    expected = (chances * worth).sum(axis=1)
    chosen = worth[np.arange(len(worth)), np.argmax(chances, axis=1)]
    return Known(
        hold_out=float(best[outcome == HELD].sum()),
        random=float((best - expected)[outcome == RANDOM].sum()),
        exploration=float((chosen - expected)[outcome == MODEL].sum()),
    )


def _groups(campaign: Campaign, design: Design) -> Iterator[tuple[str, Iterator[tuple[str, Effect]]]]:
    weight, base = weights_of(campaign, design)
    if campaign.source == "decisions":
        outcome = campaign.frame["outcome"].to_numpy()
        arms = (name for name in (MODEL, RANDOM) if (outcome == name).any())
        own = base if design == "hold_out" else np.zeros_like(base)
        yield "arm", ((name, effect_of(campaign, weight * (outcome == name), own)) for name in arms)
        yield "offer", _strata(campaign, weight, base, _best(campaign))
    else:
        yield "offer", _by_offer(campaign, design)
    for name in (name for name in GROUPS if campaign.frame[name].notna().any()):
        yield name, _strata(campaign, weight, base, campaign.frame[name].fillna("not known").to_numpy(dtype=object))


def _strata(campaign: Campaign, weight: Floats, base: Floats, stratum: NDArray[Any]) -> Iterator[tuple[str, Effect]]:
    for name in sorted(set(stratum[(weight > 0) | (base > 0)])):
        there = stratum == name
        yield str(name), effect_of(campaign, weight * there, base * there)


def _by_offer(campaign: Campaign, design: Design) -> Iterator[tuple[str, Effect]]:
    """Compare who was drawn for an offer with who was drawn for none: both stand for everybody."""
    treatment = campaign.frame["treatment"].to_numpy()
    chance = campaign.frame["propensity"].to_numpy() if design == "randomised" else np.ones(len(campaign))
    for offer in campaign.offers:
        yield offer, effect_of(campaign, (treatment == offer) / chance, (treatment == CONTROL) / chance)


def _best(campaign: Campaign) -> NDArray[Any]:
    """Name the offer that was worth most at the member's first decision, whatever went before; `(n,)`."""
    worth = np.where(campaign.expected.uncapped, np.nan_to_num(campaign.expected.net_value, nan=-np.inf), -np.inf)
    worth = np.column_stack([np.zeros(len(worth)), worth])
    names = np.array([NOTHING, *campaign.offers], dtype=object)[np.argmax(worth, axis=1)]
    frame = campaign.frame[["member_id", "contacted_at"]].assign(best=names)
    first = frame.sort_values("contacted_at", kind="stable").drop_duplicates("member_id").set_index("member_id")["best"]
    return frame["member_id"].map(first).to_numpy(dtype=object)


def _promised(campaign: Campaign, weight: Floats) -> float | None:
    """Average the net value that was expected of what decisions were drawn from."""
    net, chances = campaign.expected.net_value, campaign.expected.probabilities[:, 1:]
    there = weight > 0
    if (
        not campaign.in_money
        or not there.any()
        or np.isnan(chances[there]).any()
        or np.isnan(net[there]).all(axis=1).any()
    ):
        return None
    return float(np.average((chances * np.nan_to_num(net)).sum(axis=1)[there], weights=weight[there]))


def _foreseen(campaign: Campaign) -> Floats | None:
    foreseen = campaign.frame["foreseen"].astype(np.float64)
    return None if foreseen.isna().all() else np.asarray(foreseen.fillna(foreseen.mean()), dtype=np.float64)


def _sent(campaign: Campaign, offer: str) -> Sent:
    of = campaign.frame[campaign.frame["treatment"] == offer]
    return Sent(len(of), int(of["redeemed"].sum()), float(of["cost"].sum()))


def _silent_control(campaign: Campaign) -> bool:
    """Say whether outcomes were reported of contacts, and none of those who got nothing."""
    if campaign.margin_from != "outcomes":
        return False
    control, margin = (campaign.frame["treatment"] == CONTROL).to_numpy(), campaign.frame["margin"].to_numpy()
    return bool(control.sum() >= SILENT and margin[~control].any() and not margin[control].any())


def _flags(campaign: Campaign, *outcomes: str) -> Floats:
    return np.asarray(campaign.frame["outcome"].isin(outcomes), dtype=np.float64)
