"""The models of one training, each fitted on the training dates and judged on the test dates beside its rivals."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features.definitions import NUMBERS
from features.home import Home
from features.parity import other_futures
from features.sheet import Progress
from features.store import Store
from training import campaigns, churn, experiment, judging, splits, value
from training.cache import Step
from training.effects import Effects
from training.logs import ExperimentLog
from training.manifest import OfferSpec
from training.observational import FOLDS
from training.preparation import Prepared, Settings
from training.tuning import tune


def observe(prepared: Prepared, store: Store, offers: Sequence[OfferSpec], rng: np.random.Generator) -> Step:
    """Estimate what targeted campaigns brought, with the checks that say whether that can be known.

    Contacts with a propensity are an experiment, and no campaign of this kind.
    """
    if "contacts" not in prepared.warehouse.tables:
        return Step({})
    contacts = prepared.known("contacts")
    if "propensity" in contacts:
        contacts = contacts[contacts["propensity"].isna()]
    found = campaigns.cohorts(contacts, prepared.visits, snapshots=prepared.dates, programme=prepared.programme)
    judged = campaigns.judge_campaigns(
        {offer: cohort for offer, cohort in found.items() if _enough(cohort)},
        store.training_frame,
        features=NUMBERS,
        contact_cost={offer.offer_id: offer.contact_cost for offer in offers},
        programme=prepared.programme,
        rng=rng,
    )
    return Step(dict(judged))


def look_ahead(home: Home, rng: np.random.Generator, progress: Progress) -> Step:
    """Name features of the snapshots that are others once all that came later is made up."""
    found = other_futures(home, rng=rng, progress=progress)
    return Step({"foreknown": sorted({difference.feature for difference in found.first})})


def fit_churn(
    prepared: Prepared, *, study: str, studies: Path, settings: Settings, rng: np.random.Generator, progress: Progress
) -> Step:
    """Tune on time-respecting folds, fit, calibrate, and judge on the test dates beside the rivals."""
    learn, test = (prepared.part(dates) for dates in (prepared.split.train, prepared.split.test))
    X, churned, as_of = learn[list(prepared.features)], learn["churned"].to_numpy(dtype=np.float64), learn["as_of"]
    dates = prepared.split.train[:: settings.tune_every]
    thin = as_of.isin(list(dates)).to_numpy()
    rows = churn.Rows(X[thin].to_numpy(dtype=np.float32), churned[thin], prepared.features)
    # cut anew: where snapshots are far apart, a fold of all dates may keep none of these
    thin_folds = splits.row_folds(splits.time_folds(dates, settings.folds, programme=prepared.programme), as_of[thin])
    tuned = tune(
        lambda parameters: churn.fold_losses(rows, thin_folds, parameters),
        study=study,
        storage=studies,
        trials=settings.trials,
        rng=rng,
        progress=lambda done, of: progress("tuning churn", done, of),
    )
    folds = splits.row_folds(prepared.folds, as_of)
    model = churn.fit_churn(X, churned, clusters=learn["member_id"], folds=folds, parameters=tuned.parameters)
    X_test = test[list(prepared.features)]
    predictions = {judging.MODEL: model.predict(X_test)} | churn.rivals(X, churned, X_test)
    table = judging.judge_churn(
        test["churned"].to_numpy(dtype=np.float64), predictions, test["member_id"].to_numpy(), rng
    )
    record = {"table": table, "tuning": asdict(tuned), "calibration": model.calibration.to_json()}
    return Step(record, {"churn": model.booster})


def fit_value(prepared: Prepared, rng: np.random.Generator) -> Step:
    """Fit expected margin and judge it on the test dates beside the last period and the mean of the last three."""
    learn, test = (prepared.part(dates) for dates in (prepared.split.train, prepared.split.test))
    X = learn[list(prepared.features)]
    booster = value.fit_value(X, learn["margin"], clusters=learn["member_id"], rng=rng).booster
    spend = test["spend_84d"].to_numpy(dtype=np.float64)
    predictions = {
        judging.MODEL: value.predict_value(booster, test[list(prepared.features)].to_numpy(dtype=np.float32)),
        "same as last period": test["previous_margin"].to_numpy(dtype=np.float64),
        "mean of 12 weeks": spend * prepared.programme.margin_rate * prepared.programme.horizon_days / 84,
    }
    table = judging.judge_value(
        test["margin"].to_numpy(dtype=np.float64), predictions, test["member_id"].to_numpy(), rng
    )
    return Step({"table": table}, {"value": booster})


def fit_uplift(log: ExperimentLog, features: Sequence[str], rng: np.random.Generator) -> Step:
    """Learn the uplift of every offer that was tried; nothing where none was."""
    if not log.offers:
        return Step({})
    models = experiment.learn_uplift(log.train, features, log.offers, rng)
    margin, retention = models[experiment.MARGIN], models[experiment.RETENTION]
    effects = Effects(margin.student, margin.bands)
    record = {"uplift": margin.record, "retention": retention.record, "effects": effects.to_json()}
    return Step(record, {"uplift": effects.student.booster})


def _enough(cohort: pd.DataFrame) -> bool:
    sides: dict[Any, int] = cohort.groupby("treated")["member_id"].nunique().to_dict()
    return len(sides) > 1 and min(sides.values()) >= 2 * FOLDS
