"""Watch what decisions rest on and what they are: the last weeks against what the champion learned from."""

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features import transforms  # noqa: F401  (registers the features)
from features.catalogue.entries import CATALOGUE
from features.decisions import read_decisions
from features.errors import ContractError, NotFoundError
from features.files import write_json
from features.home import Home
from features.offers import read_catalogue
from features.programme import Programme, read_programme
from features.rules import known_facts, parse_rule
from features.sheet import Progress
from features.snapshots import as_of_dates, built, on_grid, read_snapshots
from features.warehouse import Warehouse, open_warehouse
from monitoring.decided import judge_decisions, skew, window
from monitoring.drift import monitor_drift
from monitoring.performance import Performance, cohorts, judge, scored_rows
from monitoring.reference import Reference, read_reference, summarise, write_reference
from monitoring.stakes import Stakes
from monitoring.verdict import Verdict
from monitoring.windows import UPLIFT, floats
from serving.batch.audience import active_rule
from serving.decide import Decider
from training.artifacts import Release, open_release
from training.labels import label_rows, margins, spells
from training.metrics import Estimate
from training.releases.ledger import champion_id, keep_up
from training.releases.manifest import plain, read_manifest
from training.releases.shelf import had
from training.reporting.campaign import report_campaign


def watch_drift(home: Home, *, weeks: int, now: datetime, progress: Progress) -> tuple[Verdict, Path]:
    """Compare the last `weeks` with what the champion learned from; give the verdict and the report's path.

    Compared are features and scores of the last snapshots, and the decisions taken since the first of them.

    Raises
    ------
    NotFoundError
        If nothing serves yet, or snapshots are missing.
    """
    keep_up(home)
    serving = champion_id(home)
    if serving is None:
        raise NotFoundError("nothing serves yet, so there is nothing to compare with; `holdfast promote` first")
    release = open_release(home.releases, serving)
    programme = Programme.model_validate(release.manifest.programme)
    dates = current_window(home, weeks=weeks)
    reference = reference_of(home, release, progress=progress)
    rng, pricing, sampling = np.random.default_rng(programme.seed).spawn(3)
    progress("reading decisions", 0, 1)
    length = timedelta(days=programme.snapshot_days * len(dates))
    log = read_decisions(home.decisions, since=now - 2 * length) if home.decisions.exists() else []
    earlier = window(log, now - 2 * length, now - length, serving)
    lately = window(log, now - length, None, serving)  # a programme of the past goes on from its own now
    found = judge_decisions(earlier, lately, floor=_floor(programme, len(release.offer_ids)))
    found += skew(home, lately, release.feature_names, sampling)
    progress("comparing windows", 0, 1)
    current = read_snapshots(home, dates)
    stakes = _stakes(home, release, current, now=now, decisions=len(lately) / len(dates), rng=pricing)
    report = home.reports / f"drift-{dates[-1]:%Y-%m-%d}.html"
    verdict = monitor_drift(
        reference,
        scored(release, current),
        rng=rng,
        report=report,
        programme=programme,
        price=lambda findings: stakes.attach(findings, reference),
        decisions=found,
    )
    write_json(report.with_suffix(".json"), plain(verdict.to_json()))
    return verdict, report


def scored(release: Release, rows: pd.DataFrame) -> pd.DataFrame:
    """Set the release's scores beside the features they are made from."""
    if not {*release.feature_names} <= {*rows.columns}:
        return rows  # the gate names what is gone; nothing can be scored
    X = np.column_stack([floats(rows[name]) for name in release.feature_names]).astype(np.float32)
    fine = np.isfinite(X) | np.isnan(X)
    scores = release.score(np.where(fine, X, np.nan).astype(np.float32))
    uplift = {f"{UPLIFT}{name}": scores.uplift[:, place] for place, name in enumerate(release.offer_ids)}
    return rows.assign(**{"churn probability": scores.churn_probability, "value": scores.value}, **uplift)


def _stakes(
    home: Home, release: Release, rows: pd.DataFrame, *, now: datetime, decisions: float, rng: np.random.Generator
) -> Stakes:
    """Price columns for the members who are active in the newest week."""
    programme = Programme.model_validate(release.manifest.programme)
    catalogue = read_catalogue(open_warehouse(home), read_programme(home.settings))
    newest = rows[rows["as_of"] == rows["as_of"].max()]
    rule = parse_rule(active_rule(programme), known_facts())
    active = newest[rule.holds({name: floats(newest[name]) for name in rule.names})]
    a_week = decisions or len(active) * 7 / programme.horizon_days
    return Stakes(Decider(release, catalogue), active, now=now, decisions_a_week=a_week, rng=rng)


def _floor(programme: Programme, offers: int) -> float:
    """Give what everything possible has at least: half of exploration is shared evenly, unless regret limits it."""
    experiment = programme.experiment
    return experiment.exploration / 2 / (1 + offers) if experiment.regret is None and offers else 0.0


def watch_performance(home: Home, *, now: datetime, progress: Progress) -> Performance:
    """Hold every past score and campaign whose window has passed against what followed.

    Raises
    ------
    NotFoundError
        If nothing was decided, or nothing ingested.
    """
    programme, warehouse = read_programme(home.settings), open_warehouse(home)
    decisions = read_decisions(home.decisions)
    until = min(now, as_of_dates(warehouse, programme)[-1])
    rng = np.random.default_rng(programme.seed)
    progress("labels", 0, 1)
    rows = scored_rows(decisions, programme)
    ripe = rows[rows["matures"] <= pd.Timestamp(until)]
    found = cohorts(ripe.assign(churned=_churned(ripe, warehouse, programme)), _promised(home, ripe), rng)
    reports, waiting = [], len(rows) - len(ripe)
    campaigns = sorted({row["campaign_id"] for row in decisions if row["campaign_id"]})
    for number, campaign_id in enumerate(campaigns):
        progress("campaigns", number, len(campaigns))
        try:
            reports.append(report_campaign(home, campaign_id, now=now, rng=rng))
        except ContractError:  # none of its windows has passed
            continue
    judged = judge(found, reports, programme, waiting=waiting)
    kept = {name: value for name, value in plain(judged.to_json()).items() if name not in {"cohorts", "campaigns"}}
    write_json(home.reports / f"performance-{now:%Y-%m-%d}.json", kept)
    return judged


def _churned(rows: pd.DataFrame, warehouse: Warehouse, programme: Programme) -> NDArray[np.float64]:
    money = [name for name in ("amount", "margin") if name in warehouse.expression("transactions").columns]
    visits = margins(warehouse.frame("transactions", ["member_id", "transaction_id", "occurred_at", *money]), programme)
    contract = programme.churn == "contract"
    subscribed = spells(warehouse.frame("subscriptions"), programme) if contract else None
    return label_rows(rows, visits, programme, subscribed=subscribed)


def _promised(home: Home, rows: pd.DataFrame) -> dict[str, Estimate]:
    """Read the AUC that each release was judged to have; a release that is gone promised nothing that is known."""
    found = {}
    for release_id in rows["release_id"].unique():
        if had(home, release_id):
            judged = read_manifest(home.releases / release_id).evidence["churn"]["rows"]["model"]["auc"]
            found[release_id] = Estimate(**judged)
    return found


def reference_of(home: Home, release: Release, *, progress: Progress) -> Reference:
    """Read the summary of what a release learned from; where there is none yet, make it from its snapshots.

    Raises
    ------
    NotFoundError
        If it has to be made, and the snapshots are gone.
    """
    manifest = release.manifest
    folder = home.reference / manifest.release_id
    if folder.exists():
        return read_reference(folder)
    progress("summarising the reference", 0, 1)
    programme = Programme.model_validate(manifest.programme)
    learned_from = read_snapshots(home, [datetime.fromisoformat(as_of) for as_of in manifest.reference_as_of])
    reference = summarise(
        scored(release, learned_from),
        money={name for name, feature in CATALOGUE.items() if feature.unit == "money"}
        | {"value", *(f"{UPLIFT}{name}" for name in release.offer_ids)},
        ageing={name for name, feature in CATALOGUE.items() if feature.ageing(programme)},
        rng=np.random.default_rng(programme.seed),
    )
    write_reference(folder, reference)
    return reference


def current_window(home: Home, *, weeks: int) -> list[datetime]:
    """Give the last `weeks` snapshots of the grid.

    The one that is served may follow the last of them by a day: as a week of its own it would count members twice.

    Raises
    ------
    NotFoundError
        If there is none.
    """
    programme = read_programme(home.settings)
    dates = [as_of for as_of in built(home) if on_grid(as_of, programme)][-weeks:]
    if not dates:
        raise NotFoundError(
            f"{home.features} holds no snapshot of the grid that {home.settings.name} lays, one every "
            f"{programme.snapshot_days} days; `holdfast features build` computes them"
        )
    return dates
