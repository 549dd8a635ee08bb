"""What people on call are told: alerts that a verdict raises, and the one message that a run of them becomes.

An alert is the same alert as long as its key is: it fires once, is repeated as a reminder, and is resolved by the first
verdict of its kind without it. A verdict that could not be reached resolves nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from typing import Any, Final, Literal

from features.files import fingerprint
from features.programme import Alerts, Programme
from features.saying import Saying, saying
from monitoring.verdict import Finding, Status

Severity = Literal["critical", "warning", "info"]
Event = Literal["firing", "reminder", "resolved"]

BROKEN: Final = frozenset({"empty", "twice", "lost_column", "new_column", "all_missing", "retyped", "infinite"})
ORDER: Final[tuple[Severity, ...]] = ("critical", "warning", "info")
_HEADS: Final[dict[Event, str]] = {"firing": "New", "reminder": "Still so", "resolved": "Over"}


@dataclass(frozen=True)
class Alert:
    """Hold one thing that people should know; `key` says which it is, whenever it comes."""

    key: str
    source: str  # the check that found it, and that resolves it
    severity: Severity
    said: Saying
    runbook: str

    @property
    def sentence(self) -> str:
        """Say it in English."""
        return str(self.said)

    @property
    def labels(self) -> dict[str, str]:
        """Name it for Alertmanager, the same every time."""
        return {"alertname": f"Holdfast_{self.source}", "key": self.key, "severity": self.severity}


@dataclass(frozen=True)
class News:
    """Hold an alert, and what happened to it."""

    alert: Alert
    event: Event
    since: datetime


def alerts_of(findings: Sequence[Finding], source: str, programme: Programme) -> list[Alert]:
    """Make an alert of each finding, the gravest first and then by the margin at risk."""
    found = sorted(findings, key=lambda one: (ORDER.index(_severity(one)), -(one.margin_a_week or 0)))
    return [
        Alert(
            fingerprint(source, finding.column, finding.kind),
            source,
            _severity(finding),
            _said(finding, programme),
            finding.runbook,
        )
        for finding in found
    ]


def concludes(status: Status) -> bool:
    """Say whether what a verdict does not find is over: not where there was too little to find it in."""
    return status != "insufficient_data"


def title(news: Sequence[News], programme: Programme) -> str:
    """Head a message: how many are new, and how grave the gravest is."""
    firing = [one for one in news if one.event != "resolved"]
    if not firing:
        return f"{programme.name}: {_count(len(news), 'alert')} over"
    worst = min((one.alert.severity for one in firing), key=ORDER.index)
    return f"{programme.name}: {_count(len(firing), 'alert')}, {worst}"


def body(news: Sequence[News], message_id: str) -> str:
    """Write a message; who gets it twice knows it by its id."""
    lines = []
    for event, head in _HEADS.items():
        of_event = [one for one in news if one.event == event]
        lines += [f"{head}:"] * bool(of_event)
        lines += [
            f"- [{one.alert.severity}] {one.alert.sentence} (since {one.since:%Y-%m-%d %H:%M} UTC; "
            f"runbook: {one.alert.runbook})"
            for one in of_event
        ]
    return "\n".join([*lines, f"message {message_id}"])


def for_alertmanager(news: Sequence[News], now: datetime, reminder: timedelta) -> list[dict[str, Any]]:
    """Write a run for Alertmanager's `POST /api/v2/alerts`: it lets go of what nobody repeats, so each has an end."""
    return [
        {
            "labels": one.alert.labels,
            "annotations": {"summary": one.alert.sentence, "runbook": one.alert.runbook},
            "startsAt": one.since.isoformat(),
            "endsAt": (now if one.event == "resolved" else now + 2 * reminder).isoformat(),
        }
        for one in news
    ]


def earliest(settings: Alerts, severity: Severity, now: datetime, programme: Programme) -> datetime:
    """Say when a message may be sent: what is not critical waits for the end of the quiet hours."""
    if settings.quiet is None or severity == "critical":
        return now
    begins, ends = (time.fromisoformat(text) for text in settings.quiet.split("-"))
    local = now.astimezone(programme.zone)
    clock = local.time().replace(tzinfo=None)
    quiet = begins <= clock < ends if begins <= ends else clock >= begins or clock < ends
    if not quiet:
        return now
    day = local.date() + timedelta(days=int(clock >= ends))
    return datetime.combine(day, ends, tzinfo=programme.zone).astimezone(now.tzinfo)


def _severity(finding: Finding) -> Severity:
    if finding.kind in BROKEN:
        return "critical"
    return "info" if finding.kind == "too_few" else "warning"


def _said(finding: Finding, programme: Programme) -> Saying:
    if finding.margin_a_week is None:
        return finding.said
    words = "{finding}; {changed} of {decided} decisions hang on it, {margin} a week if it is a fault of the data"
    decisions = {"changed": f"{finding.decisions:,}", "decided": f"{finding.decided:,}"}
    return saying(words, finding=finding.said, **decisions, margin=programme.money(finding.margin_a_week))


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
