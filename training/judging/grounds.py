"""The grounds on which the gate judges: what a training found, gathered from the models, the log and the data."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from training.artifacts import Models, Release, Scores
from training.churn import BEST_SINGLE
from training.judging.fairness import group_rows, member_groups, tier_groups
from training.judging.findings import Evidence, GroupRow
from training.judging.soundness import auc_spread, check_data, population_stability, top_overlap
from training.logged.experiment import MODEL, Judgement, columns_of
from training.logged.log import ExperimentLog
from training.metrics import Estimate
from training.preparation import Prepared

Floats = NDArray[np.float64]
Table = Mapping[str, Any]  # row -> metric -> an Estimate as JSON, and the leads


@dataclass(frozen=True)
class Trained:
    """Hold what one training came to."""

    prepared: Prepared
    log: ExperimentLog
    models: Models
    churn: Table
    judgement: Judgement | None  # None without offers
    foreknown: tuple[str, ...]  # features that know the future

    @cached_property
    def log_scores(self) -> Scores:
        """Score the rows of the log's later part, once for all that is judged on them."""
        return self.models.score(self.log.test[list(self.prepared.features)].to_numpy(dtype=np.float32))


def evidence_of(trained: Trained, champion: Release | None, *, recipe: str) -> Evidence:
    """Gather what speaks for and against a release; `recipe` is a fingerprint of all that it is beside its data."""
    prepared, log, judged = trained.prepared, trained.log, trained.judgement
    learn, test = (prepared.part(dates) for dates in (prepared.split.train, prepared.split.test))
    churned = test["churned"].to_numpy(dtype=np.float64)
    probability = _churn(trained, test)
    row = judged.table[MODEL] if judged else None
    metrics, leads = trained.churn["rows"]["model"], trained.churn["lead"]
    single = next(lead for rival, lead in leads.items() if rival.startswith(BEST_SINGLE))
    last = learn[learn["as_of"] == learn["as_of"].max()]
    return Evidence(
        experiment=log.experiment,
        auc=Estimate(**metrics["auc"]),
        auc_over_best_feature=Estimate(**single),
        calibration_error=Estimate(**metrics["calibration_error"]),
        against_no_contact=row.against_no_contact if row else None,
        against_best_fixed=row.against_best_fixed if row else None,
        against_champion=judged.against_champion if judged else None,
        personalised=judged.personalised if judged else False,
        refreshes=_refreshes(recipe, prepared, champion),
        effective_sample_size=row.effective_sample_size if row else None,
        sample_ratio_p=log.sample_ratio_p,
        balance_p=log.balance_p,
        not_identified=log.reasons,
        fewest_of_an_arm=log.fewest_of_an_arm,
        data=replace(check_data(learn, test, prepared.features), foreknown=trained.foreknown),
        groups=_groups(trained, test, probability - churned),
        auc_spread=auc_spread(churned, probability, test["as_of"]),
        score_shift=population_stability(_churn(trained, last), probability),
        top_overlap=None if champion is None else _overlap(test, probability, champion),
    )


def _refreshes(recipe: str, prepared: Prepared, champion: Release | None) -> bool:
    """Say whether this is the champion's recipe once more, learned from newer data."""
    if champion is None or champion.manifest.evidence.get("recipe") != recipe:
        return False
    return max(prepared.split.train).isoformat() > max(champion.manifest.reference_as_of)


def _churn(trained: Trained, frame: pd.DataFrame) -> Floats:
    X = frame[list(trained.prepared.features)].to_numpy(dtype=np.float32)
    return trained.models.score(X).churn_probability


def _overlap(test: pd.DataFrame, probability: Floats, champion: Release) -> float:
    last = (test["as_of"] == test["as_of"].max()).to_numpy()
    return top_overlap(probability[last], champion.score(columns_of(test[last], champion)).churn_probability)


def _groups(trained: Trained, test: pd.DataFrame, error: Floats) -> tuple[GroupRow, ...]:
    prepared, log, judged = trained.prepared, trained.log, trained.judgement
    groups = member_groups(prepared.known("members"), year=prepared.known_until.year)
    tiers = tier_groups(test, prepared.programme.tiers)
    churn = (test["member_id"], error)
    contact = (log.test["member_id"], judged.contacted) if judged else None
    # a tier is earned by spend, and a policy is there to contact by it: only its risk has to be as true
    return (*group_rows(groups, churn, contact), *group_rows(tiers, churn, None))
