"""The uplift table: how each uplift ranks members, beside its rivals, and whether what it promised came."""

from dataclasses import dataclass, replace

import numpy as np

from training.judging.estimators import Floats, Log
from training.judging.grounds import Trained
from training.judging.tables import BY_CHURN, MODEL, judge_uplift
from training.judging.uplift_metrics import UpliftBin, calibration_bins, uplift_calibration
from training.logged.log import log_of
from training.metrics import Clusters, Estimate


@dataclass(frozen=True)
class OfferRow:
    """Hold what the test part says of one offer's uplift; money in minor units per member, before contact costs."""

    rows: dict[str, dict[str, Estimate]]  # by ranking, the model's and its rivals', and metric
    lead: dict[str, Estimate]  # of the model's Qini coefficient, over each rival's
    calibration: list[UpliftBin]


@dataclass(frozen=True)
class Tried:
    """Hold who got one offer or nothing after the split, what was promised and what came; each `(n,)`."""

    outcome: Floats
    uplift: Floats
    treated: Floats
    weight: Floats
    members: Clusters


def uplift_table(trained: Trained, rng: np.random.Generator) -> dict[str, OfferRow]:
    """Judge each offer's uplift on the test part of the log; nothing where there are no offers."""
    if not trained.log.offers:
        return {}
    log, scores = later_part(trained), trained.log_scores
    rankings = {MODEL: scores.uplift, BY_CHURN: scores.churn_probability}
    offers = [offer.offer_id for offer in trained.log.offers]
    tables = judge_uplift(log, rankings, offers=offers, rng=rng)
    came = tried(trained)
    return {offer: OfferRow(table.rows, table.lead, _calibration(came[offer])) for offer, table in tables.items()}


def later_part(trained: Trained) -> Log:
    """Give the test part with outcomes less the margin expected without an offer.

    What is expected was learned before and knows nothing of the treatment: effects stay what they are, with less noise.
    """
    log = log_of(trained.log.test, trained.log.offers)
    return replace(log, outcome=log.outcome - trained.log_scores.value)


def tried(trained: Trained) -> dict[str, Tried]:
    """Give by offer who got it or nothing, in the test part."""
    log, scores = later_part(trained), trained.log_scores
    found = {}
    for arm, offer in enumerate(trained.log.offers, 1):
        rows = np.isin(log.treatment, (0, arm))
        part = log.take(rows)
        treated = (part.treatment > 0).astype(np.float64)
        uplift = scores.uplift[rows, arm - 1]
        found[offer.offer_id] = Tried(part.outcome, uplift, treated, 1 / part.propensity, part.member_ids)
    return found


def _calibration(came: Tried) -> list[UpliftBin]:
    return uplift_calibration(
        came.outcome,
        came.uplift,
        came.treated,
        clusters=came.members,
        weight=came.weight,
        bins=calibration_bins(came.treated),
    )
