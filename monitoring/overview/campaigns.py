"""What offers were promised to bring and brought, what they cost, and whether the experiments can be believed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

import numpy as np

from features.decisions import campaign_ids
from features.errors import ContractError, NotFoundError
from features.home import Home
from features.sheet import Progress
from features.warehouse import Warehouse, open_warehouse
from monitoring.overview.missing import FEWEST
from training.metrics import Estimate
from training.reporting.campaign import Report, report_campaign

MOST: Final = 12  # campaigns, the latest


@dataclass(frozen=True)
class Earned:
    """Hold what all experiments together brought after their costs, in minor units."""

    net_value: Estimate
    cost: float
    decisions: int
    campaigns: int


@dataclass(frozen=True)
class Campaigns:
    """Hold the reports of campaigns whose windows have passed, the latest first."""

    reports: tuple[Report, ...]
    earned: Earned | None  # None: no experiment says it
    waiting: tuple[str, ...]  # campaigns of which no window has passed


def gather_campaigns(home: Home, *, now: datetime, rng: np.random.Generator, progress: Progress) -> Campaigns:
    """Report on every campaign of the decision log, and on the latest of the warehouse's contacts.

    Raises
    ------
    NotFoundError
        If there is no campaign at all.
    """
    names = _names(home, open_warehouse(home))
    if not names:
        raise NotFoundError("no decision and no contact names a campaign")
    reports, waiting = [], []
    for number, name in enumerate(names):
        progress("campaigns", number, len(names))
        try:
            reports.append(_without_the_few(report_campaign(home, name, now=now, rng=rng)))
        except ContractError:  # none of its windows has passed
            waiting.append(name)
    progress("campaigns", len(names), len(names))
    latest = sorted(reports, key=lambda report: (report.design != "observational", report.last), reverse=True)
    return Campaigns(tuple(latest), earned(latest), tuple(waiting))


def earned(reports: Iterable[Report]) -> Earned | None:
    """Add up what experiments brought.

    Half-widths of intervals add up as well: campaigns may be about the same members, and however their errors go
    together the sum's is at most that.
    """
    tried = [report for report in reports if report.design != "observational" and report.whole.net_value]
    if not tried:
        return None
    whole = [(report.whole.decisions, found) for report in tried if (found := report.whole.net_value)]
    value, lower, upper = (
        sum(decisions * getattr(found, name) for decisions, found in whole) for name in ("value", "lower", "upper")
    )
    decisions = sum(decisions for decisions, _ in whole)
    return Earned(
        Estimate(value, lower, upper, decisions), sum(report.whole.cost for report in tried), decisions, len(tried)
    )


def _names(home: Home, warehouse: Warehouse) -> Sequence[str]:
    decided = sorted(campaign_ids(home.decisions)) if home.decisions.exists() else []
    if "contacts" not in warehouse.tables:
        return decided
    contacts = warehouse.frame("contacts")
    if "campaign_id" not in contacts:
        return decided
    last = contacts.groupby("campaign_id")["contacted_at"].max().sort_values(ascending=False)
    return [*decided, *[str(name) for name in last.index if name not in decided]][: max(MOST, len(decided))]


def _without_the_few(report: Report) -> Report:
    groups = {
        kind: {name: effect for name, effect in found.items() if effect.decisions >= FEWEST}
        for kind, found in report.groups.items()
    }
    return replace(report, groups=groups)
