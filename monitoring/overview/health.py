"""Whether it is still true, and whether the data are: the last verdicts, what was refused, and which alerts fire."""

import json
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from features.errors import CorruptError
from features.home import Home
from features.saying import Saying
from features.snapshots import built_if_any
from features.warehouse import open_warehouse
from monitoring.alerts import Severity
from monitoring.outbox import Outbox
from monitoring.overview.missing import Missing
from monitoring.verdict import FindingKind


@dataclass(frozen=True)
class Said:
    """Hold one finding of a verdict, in words, and the step of the runbook that applies."""

    kind: FindingKind
    said: Saying
    runbook: str
    decisions: int | None = None
    margin_a_week: int | None = None


@dataclass(frozen=True)
class Checked:
    """Hold a verdict; `report` is the page beside it that shows everything."""

    status: str
    said: Saying
    findings: tuple[Said, ...]
    report: str | None


@dataclass(frozen=True)
class TableRows:
    """Hold how many rows of a table were taken and refused."""

    table: str
    rows: int
    refused: int


@dataclass(frozen=True)
class Firing:
    """Hold an alert that is not over."""

    severity: Severity
    said: Saying
    since: datetime


@dataclass(frozen=True)
class Health:
    """Hold what is known of data, drift and performance."""

    newest: datetime | None  # snapshot
    tables: tuple[TableRows, ...]
    drift: Checked | Missing
    performance: Checked | Missing
    firing: tuple[Firing, ...]


def gather_health(home: Home) -> Health:
    """Read what the last runs of `holdfast monitor` left.

    Raises
    ------
    NotFoundError
        If nothing was ingested.
    """
    tables = (TableRows(name, table.rows, table.quarantined) for name, table in open_warehouse(home).tables.items())
    return Health(
        newest=max(built_if_any(home), default=None),
        tables=tuple(tables),
        drift=_last(home, "drift", Missing("no_drift_yet", "holdfast monitor drift")),
        performance=_last(home, "performance", Missing("no_performance_yet", "holdfast monitor performance")),
        firing=_firing(home),
    )


def _last(home: Home, what: str, missing: Missing) -> Checked | Missing:
    paths = sorted(home.reports.glob(f"{what}-*.json"))
    if not paths:
        return missing
    return _read(paths[-1], what)


def _read(path: Path, what: str) -> Checked:
    page = path.with_suffix(".html")
    try:
        told: dict[str, Any] = json.loads(path.read_bytes())
        names = Said.__dataclass_fields__
        found = (
            {name: one.get(name) for name in names} | {"said": Saying.read(one["said"])} for one in told["findings"]
        )
        findings = tuple(Said(**one) for one in found)
        return Checked(told["status"], Saying.read(told["said"]), findings, page.name if page.exists() else None)
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptError(f"{path} is no verdict ({error}); `holdfast monitor {what}` writes it anew") from error


def _firing(home: Home) -> tuple[Firing, ...]:
    if not home.alerts.exists():
        return ()
    with Outbox(home.alerts) as outbox:
        return tuple(Firing(alert.severity, alert.said, since) for alert, since, _ in outbox.firing())
