"""The overview: every panel, gathered one by one; a panel that has nothing says what is missing and what to type."""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

from features.home import Home
from features.programme import Programme, read_programme
from features.sheet import Progress
from monitoring.kpis import View, gather_kpis
from monitoring.overview.budget import BudgetCurve, gather_budget
from monitoring.overview.campaigns import Campaigns, gather_campaigns
from monitoring.overview.health import Health, gather_health
from monitoring.overview.membership import Membership, gather_membership
from monitoring.overview.missing import Missing, or_missing
from monitoring.overview.releases import Releases, gather_releases
from monitoring.overview.risk import Risk, gather_risk
from monitoring.overview.segments import RfmMap, gather_segments
from monitoring.overview.triggers import Standing, gather_triggers
from training.releases.ledger import keep_up
from training.releases.manifest import plain


@dataclass(frozen=True)
class Overview:
    """Hold what people who run the programme want to know; no member is named in it."""

    programme: Programme
    written: datetime
    campaigns: Campaigns | Missing
    risk: Risk | Missing
    membership: Membership | Missing
    segments: RfmMap | Missing
    budget: BudgetCurve | Missing
    kpis: tuple[View, ...] | Missing
    triggers: tuple[Standing, ...]
    health: Health | Missing
    releases: Releases | Missing

    def to_json(self) -> dict[str, Any]:
        """Give it as JSON values; money in minor units."""
        settings = {"name": self.programme.name, "currency": self.programme.currency}
        digits = {"currency_digits": self.programme.currency_digits}
        panels = {name: value for name, value in vars(self).items() if name != "programme"}
        described: dict[str, Any] = plain({"programme": settings | digits} | {n: _json(v) for n, v in panels.items()})
        return described


def gather(home: Home, *, written: datetime, progress: Progress) -> Overview:
    """Gather every panel.

    Parameters
    ----------
    written : the time by the wall; a programme of the past has a time of its own
    """
    keep_up(home)
    programme = read_programme(home.settings)
    now, rng = programme.replay_from or written, np.random.default_rng(programme.seed)
    build, promote = "holdfast features build", "holdfast promote"
    progress("members", 0, 1)
    membership = or_missing(lambda: gather_membership(home, programme), "no_snapshot", build)
    segments = or_missing(lambda: gather_segments(home, programme), "no_snapshot", build)
    risk = or_missing(lambda: gather_risk(home, programme), "no_release", promote)
    kpis = or_missing(lambda: gather_kpis(home, programme), "no_tables", "holdfast ingest")
    releases = or_missing(lambda: gather_releases(home), "no_promotion", promote)
    weighs = ("no_release", promote) if isinstance(releases, Missing) else ("no_budget", "holdfast offers")
    progress("members", 1, 1)
    return Overview(
        programme=programme,
        written=written,
        campaigns=or_missing(
            lambda: gather_campaigns(home, now=written, rng=rng, progress=progress),
            "no_campaign",
            "holdfast decide --campaign spring",
        ),
        risk=risk,
        membership=membership,
        segments=segments,
        budget=or_missing(lambda: gather_budget(home, now=now, progress=progress), *weighs),
        kpis=kpis,
        triggers=gather_triggers(home, programme, kpis),
        health=or_missing(lambda: gather_health(home), "no_tables", "holdfast ingest"),
        releases=releases,
    )


def _json(value: Any) -> Any:  # noqa: ANN401 (any panel)
    if isinstance(value, tuple):
        return [_json(one) for one in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value.isoformat()
