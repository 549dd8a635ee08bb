"""Triggers: a figure of the programme that stays beyond its threshold makes an audience, at first a mild one.

Which level is due follows from the figures alone: from for how many periods in a row they have been beyond. What was
done is kept, so that a level acts once, and again only after the cool-down; once the figure is back, all begins anew.
Whom an action reaches, and with what, is the policy's word: a level is a batch under a campaign.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np

from features.errors import HoldfastError, NotFoundError
from features.files import write_json
from features.home import Home
from features.programme import Level, Programme, Trigger
from features.saying import Saying, saying
from features.sheet import Progress, Sheet
from monitoring.clock import passed
from monitoring.kpis import LAYERS, View, gather_kpis
from monitoring.verdict import Finding, Status
from serving.batch.closing import preview_batch, write_decisions
from serving.batch.plan import Request, plan_batch
from serving.batch.run import decide_batch

STATUS_WORDS: Final[dict[Status, str]] = {
    "no_drift": "No trigger: every figure is where it should be.",
    "insufficient_data": "No verdict: not one whole period of a figure is there.",
}


@dataclass(frozen=True)
class Acted:
    """Hold which level of a trigger acted last, and when."""

    level: str
    at: datetime


@dataclass(frozen=True)
class Pulled:
    """Hold where a trigger stands; its figure in the metric's own unit."""

    name: str
    trigger: Trigger
    value: float | None  # mean of the window; None where it is not known
    beyond: int  # periods in a row, the last one counted
    level: Level | None  # the one that is due by them
    acts: bool = False  # whether it acts now: not while it cools down
    members: int | None = None  # whom it decided on, or would
    path: Path | None = None  # the audience
    failure: str | None = None  # why it could not act

    def said(self, level: Level, programme: Programme) -> Saying:
        """Say where it stands, and what came of the level that is due."""
        trigger = self.trigger
        words = (
            "{name}: {metric} by {period} {value}, below {threshold} for {n} in a row: level {place}, {level}, {done}"
        )
        if trigger.below is None:
            words = (
                "{name}: {metric} by {period} {value}, above {threshold} for {n} in a row: level {place}, {level}, "
                "{done}"
            )
        return saying(
            words,
            name=self.name,
            metric=saying(trigger.metric.replace("_", " ")),
            period=saying(trigger.period),
            value=saying("not known") if self.value is None else written(self.value, trigger, programme),
            threshold=written(trigger.threshold, trigger, programme),
            n=str(self.beyond),
            place=str(trigger.levels.index(level) + 1),
            level=level.name,
            done=self.done,
        )

    @property
    def done(self) -> Saying:
        """Say what came of its level."""
        if self.failure:
            return saying("could not act: {failure}", failure=self.failure)
        if not self.acts:
            return saying("has acted")
        members = f"{self.members or 0:,}"
        if self.path:
            return saying("{members} members in {path}", members=members, path=str(self.path))
        return saying("{members} members", members=members)


@dataclass(frozen=True)
class Pulls:
    """Hold where all triggers stand."""

    pulled: tuple[Pulled, ...]
    findings: tuple[Finding, ...]

    @property
    def status(self) -> Status:
        """Conclude: beyond counts as drift, for it is something to act on."""
        if self.findings:
            return "drift"
        known = any(one.value is not None for one in self.pulled) or not self.pulled
        return "no_drift" if known else "insufficient_data"

    @property
    def sentence(self) -> str:
        """Conclude in one sentence."""
        return STATUS_WORDS.get(self.status, f"{len(self.findings)} of {len(self.pulled)} triggers are pulled.")

    def to_json(self) -> dict[str, Any]:
        """Give the triggers as JSON values."""
        rows = [
            {
                "trigger": one.name,
                "metric": one.trigger.metric,
                "value": one.value,
                "threshold": one.trigger.threshold,
                "beyond": one.beyond,
                "level": one.level.name if one.level else None,
                "acts": one.acts,
                "members": one.members,
                "path": str(one.path) if one.path else None,
                "failure": one.failure,
            }
            for one in self.pulled
        ]
        return {"status": self.status, "sentence": self.sentence, "triggers": rows}


def pull_triggers(
    home: Home, programme: Programme, *, out: Path, now: datetime, rehearse: bool, progress: Progress
) -> Pulls:
    """Find which triggers are pulled, and make the audiences of those that are due.

    Parameters
    ----------
    out : the folder that audiences are written to, one CSV for each
    rehearse : count whom an action would decide on; decide nothing and keep nothing
    """
    acted, found = read_acted(home), []
    views = {view.length: view for view in _views(home, programme)}
    for name, trigger in programme.triggers.items():
        pulled = stand(name, trigger, views.get(trigger.period))
        if (level := pulled.level) is None:
            if pulled.value is not None:  # it is back; of what is not known nobody can say so
                acted.pop(name, None)
        elif _due(trigger, level, acted.get(name), now):
            acting = replace(pulled, acts=True)
            pulled = _act(home, acting, level, out=out, now=now, rehearse=rehearse, progress=progress)
            if pulled.failure is None:
                acted[name] = Acted(level.name, now)
        found.append(pulled)
    if not rehearse:
        kept = {name: acted[name] for name in programme.triggers if name in acted}
        write_json(home.triggers, {name: {"level": one.level, "at": one.at.isoformat()} for name, one in kept.items()})
    findings = tuple(_finding(one, one.level, programme) for one in found if one.level is not None)
    return Pulls(tuple(found), findings)


def read_acted(home: Home) -> dict[str, Acted]:
    """Read which level of each trigger acted last, and when."""
    if not home.triggers.exists():
        return {}
    told = json.loads(home.triggers.read_bytes())
    return {name: Acted(one["level"], datetime.fromisoformat(one["at"])) for name, one in told.items()}


def stand(name: str, trigger: Trigger, view: View | None) -> Pulled:
    """Say where a trigger stands by a figure's course; a window with a period that is not known counts for nothing."""
    course = next((kpi.course for kpi in view.kpis if kpi.name == trigger.metric), ()) if view else ()
    numbers = np.array([np.nan if one is None else one for one in course], dtype=np.float64)
    if len(numbers) < trigger.window:
        return Pulled(name, trigger, None, 0, None)
    means = np.lib.stride_tricks.sliding_window_view(numbers, trigger.window).mean(axis=1)
    beyond = means < trigger.threshold if trigger.below is not None else means > trigger.threshold
    within = np.flatnonzero(~beyond)
    periods = len(means) - 1 - int(within[-1]) if len(within) else len(means)
    reached = [level for level in trigger.levels if periods >= level.after]
    value = float(means[-1]) if np.isfinite(means[-1]) else None
    return Pulled(name, trigger, value, periods, reached[-1] if reached else None)


def written(value: float, trigger: Trigger, programme: Programme) -> str:
    """Write a figure in its unit.

    >>> written(0.0412, Trigger(metric="active_share", below=0.05, levels=({"name": "mild"},)), Programme())
    '4.1 %'
    """
    unit = LAYERS[trigger.metric][1]
    if unit == "share":
        return f"{100 * value:.1f} %"
    return programme.money(value) if unit == "money" else f"{value:,.2f}".removesuffix(".00")


def triggers_sheet(pulls: Pulls, programme: Programme) -> Sheet:
    """Show every trigger: where its figure is, and what was done."""

    def figure(one: Pulled, value: float | None) -> str:
        return "not known" if value is None else written(value, one.trigger, programme)

    rows = tuple(
        (
            one.name,
            figure(one, one.value),
            f"{one.trigger.side} {figure(one, one.trigger.threshold)}",
            str(one.beyond),
            one.level.name if one.level else "",
            str(one.done) if one.level else "",
        )
        for one in pulls.pulled
    )
    notes = () if rows else ("holdfast.toml has no [triggers]; docs/runbook/triggers.md shows one",)
    return Sheet("Triggers", ("trigger", "figure", "acts", "in a row", "level", "what was done"), rows, notes)


def _views(home: Home, programme: Programme) -> Sequence[View]:
    try:
        return gather_kpis(home, programme) if programme.triggers else ()
    except NotFoundError:
        return ()


def _due(trigger: Trigger, level: Level, acted: Acted | None, now: datetime) -> bool:
    """Say whether a level acts: it has not yet, it is further than what has, or it has cooled down."""
    if acted is None:
        return True
    names = [one.name for one in trigger.levels]
    before = names.index(acted.level) if acted.level in names else -1
    cooled = passed(acted.at, timedelta(days=trigger.cooldown_days), now)
    return names.index(level.name) > before or cooled


def _act(
    home: Home, pulled: Pulled, level: Level, *, out: Path, now: datetime, rehearse: bool, progress: Progress
) -> Pulled:
    """Let the policy decide on a level's audience; what can't be done is said, and the other triggers go on."""
    path = out / f"{pulled.name}-{level.name}-{now:%Y-%m-%d}.csv"
    try:
        plan = plan_batch(home, Request(level.audience, level.campaign, level.budget))
        if rehearse:
            return replace(pulled, members=preview_batch(plan, now=now, progress=progress).members)
        out.mkdir(parents=True, exist_ok=True)
        batch = decide_batch(plan, now=now, progress=progress)
        closing = write_decisions(plan, batch, path, progress=progress)
    except HoldfastError as error:
        return replace(pulled, failure=str(error))
    return replace(pulled, members=closing.tally.contacts.total(), path=path)


def _finding(pulled: Pulled, level: Level, programme: Programme) -> Finding:
    return Finding(pulled.name, "trigger", pulled.said(level, programme), pulled.value, pulled.trigger.threshold)
