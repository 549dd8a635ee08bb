"""Two releases side by side, on the same members and decisions: each metric of both, and the paired difference."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
from numpy.typing import NDArray

from features.home import Home
from features.offers import Catalogue, read_catalogue
from features.programme import read_programme
from features.store import open_store
from features.warehouse import open_warehouse
from training.artifacts import Release, open_release
from training.judging.estimators import dr
from training.judging.evidence import estimate
from training.judging.tables import CHURN_METRICS, VALUE_METRICS
from training.logged.experiment import champion_policy, columns_of
from training.logged.log import ExperimentLog, experiment_log, log_of, offer_specs
from training.metrics import Estimate, Metric, bootstrap, paired_bootstrap
from training.preparation import Prepared, Settings, prepare

POLICY: Final = "policy_value"
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class MetricRow:
    """Hold one metric of two releases; `difference` is of the second less the first."""

    metric: str
    first: Estimate
    second: Estimate
    difference: Estimate


@dataclass(frozen=True)
class Comparison:
    """Hold two releases' metrics on the latest test dates, and what has to be known to read them."""

    first: str
    second: str
    rows: tuple[MetricRow, ...]
    notes: tuple[str, ...]


def compare_releases(home: Home, first_id: str, second_id: str) -> Comparison:
    """Judge two releases on the same rows of the warehouse as it is now.

    Raises
    ------
    ContractError
        If one of them reads features that are no longer computed, or the history is too short.
    """
    releases = [open_release(home.releases, name) for name in (first_id, second_id)]
    store = open_store(home)
    prepared = prepare(open_warehouse(home), store, read_programme(home.settings), Settings())
    log_stream, rng = np.random.default_rng(prepared.programme.seed).spawn(2)  # the first is the log's in a training
    rows = _predictions(prepared, releases, rng)
    log = experiment_log(prepared, store.training_frame, offer_specs(prepared.warehouse), log_stream)
    policies = _policies(log, releases, read_catalogue(prepared.warehouse, prepared.programme))
    notes = [_late(release, prepared) for release in releases]
    if not policies:
        notes.append("policies are not compared: no experiment has every offer of both")
    return Comparison(first_id, second_id, (*rows, *policies), tuple(note for note in notes if note))


def _predictions(prepared: Prepared, releases: Sequence[Release], rng: np.random.Generator) -> list[MetricRow]:
    test = prepared.part(prepared.split.test)
    scores = [release.score(columns_of(test, release)) for release in releases]
    churned, margin = (test[name].to_numpy(dtype=np.float64) for name in ("churned", "margin"))
    asked: list[tuple[str, Metric, Floats, list[Floats]]] = [
        *((name, metric, churned, [s.churn_probability for s in scores]) for name, metric in CHURN_METRICS.items()),
        *((name, metric, margin, [s.value for s in scores]) for name, metric in VALUE_METRICS.items()),
    ]
    clusters = test["member_id"].to_numpy()
    return [
        MetricRow(
            name,
            bootstrap(metric, outcome, first, clusters=clusters, rng=rng),
            bootstrap(metric, outcome, second, clusters=clusters, rng=rng),
            paired_bootstrap(metric, outcome, model=second, rival=first, clusters=clusters, rng=rng),
        )
        for name, metric, outcome, (first, second) in asked
    ]


def _policies(log: ExperimentLog, releases: Sequence[Release], catalogue: Catalogue) -> list[MetricRow]:
    """Value both policies on the log's later part, doubly robust; nothing where the log lacks an offer of one."""
    ids = [offer.offer_id for offer in log.offers]
    policies = [champion_policy(log.test, release, ids, catalogue=catalogue) for release in releases] if ids else []
    first, second = policies or (None, None)
    if first is None or second is None:
        return []
    rows = log_of(log.test, log.offers)
    scores = releases[1].score(columns_of(log.test, releases[1]))
    known = dict(zip(releases[1].offer_ids, scores.uplift.T, strict=True))
    uplift = np.column_stack([known.get(name, np.zeros(len(rows))) for name in ids])
    q = np.hstack([scores.value[:, None], scores.value[:, None] + uplift])
    earlier, later = dr(rows, first, q), dr(rows, second, q)
    return [MetricRow(POLICY, *[estimate(terms, rows.member_ids) for terms in (earlier, later, later - earlier)])]


def _late(release: Release, prepared: Prepared) -> str | None:
    """Say of a release that it learned from dates whose horizon reaches into the test."""
    last = max(datetime.fromisoformat(as_of) for as_of in release.manifest.reference_as_of)
    if prepared.programme.days_before(last, -prepared.programme.label_days) <= prepared.split.test[0]:
        return None
    return f"{release.release_id} learned from {last:%Y-%m-%d}, which these dates overlap: its figures flatter it"
