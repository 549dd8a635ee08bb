"""The models of one training, each fitted on the training dates and judged on the test dates beside its rivals."""

from dataclasses import asdict
from typing import Any

import numpy as np

from features.definitions import NUMBERS
from features.home import Home
from features.sheet import Progress
from features.snapshots import as_of_dates
from features.store import Store
from training import campaigns, churn, judging, splits, value
from training.manifest import OfferSpec
from training.preparation import Prepared, Settings
from training.tuning import tune


def observe(
    prepared: Prepared, store: Store, offers: tuple[OfferSpec, ...], rng: np.random.Generator
) -> dict[str, campaigns.JudgedCampaign]:
    """Estimate what the real, targeted campaigns brought, with the checks that say whether that can be known."""
    if "contacts" not in prepared.warehouse.tables:
        return {}
    dates = as_of_dates(prepared.warehouse, prepared.programme)
    found = campaigns.cohorts(
        prepared.warehouse.frame("contacts"), prepared.visits, snapshots=dates, programme=prepared.programme
    )
    return campaigns.judge_campaigns(
        found,
        store.training_frame,
        features=NUMBERS,
        contact_cost={offer.offer_id: offer.contact_cost for offer in offers},
        programme=prepared.programme,
        rng=rng,
    )


def fit_churn(
    home: Home, prepared: Prepared, *, key: str, settings: Settings, rng: np.random.Generator, progress: Progress
) -> tuple[churn.ChurnModel, judging.Judged, dict[str, Any]]:
    """Tune on time-respecting folds, fit, calibrate, and judge on the test dates beside the rivals."""
    learn, test = (prepared.part(dates) for dates in (prepared.split.train, prepared.split.test))
    X, churned, as_of = learn[list(prepared.features)], learn["churned"].to_numpy(dtype=np.float64), learn["as_of"]
    thin = as_of.isin(list(prepared.split.train[:: settings.tune_every])).to_numpy()
    rows = churn.Rows(X[thin].to_numpy(dtype=np.float32), churned[thin], prepared.features)
    thin_folds = splits.row_folds(prepared.folds, as_of[thin])
    tuned = tune(
        lambda parameters: churn.fold_losses(rows, thin_folds, parameters),
        study=f"churn-{key}",
        storage=home.studies,
        trials=settings.trials,
        rng=rng,
        progress=lambda done, of: progress("tuning churn", done, of),
    )
    folds = splits.row_folds(prepared.folds, as_of)
    model = churn.fit_churn(X, churned, clusters=learn["member_id"], folds=folds, parameters=tuned.parameters)
    X_test = test[list(prepared.features)]
    predictions = {
        judging.MODEL: model.predict(X_test),
        "logistic regression": churn.logistic_rival(X, churned, X_test),
        f"best single feature ({churn.BEST_SINGLE_FEATURE})": -X_test[churn.BEST_SINGLE_FEATURE].to_numpy(
            dtype=np.float64
        ),
    }
    table = judging.judge_churn(
        test["churned"].to_numpy(dtype=np.float64), predictions, test["member_id"].to_numpy(), rng
    )
    return model, table, asdict(tuned)


def fit_value(prepared: Prepared, rng: np.random.Generator) -> tuple[Any, judging.Judged]:
    """Fit expected margin and judge it on the test dates beside the last period and the mean of the last three."""
    learn, test = (prepared.part(dates) for dates in (prepared.split.train, prepared.split.test))
    booster = value.fit_value(learn[list(prepared.features)], learn["margin"].to_numpy(dtype=np.float64))
    spend = test["spend_84d"].to_numpy(dtype=np.float64)
    predictions = {
        judging.MODEL: value.predict_value(booster, test[list(prepared.features)].to_numpy(dtype=np.float32)),
        "same as last period": test["previous_margin"].to_numpy(dtype=np.float64),
        "mean of 12 weeks": spend * prepared.programme.margin_rate * prepared.programme.horizon_days / 84,
    }
    table = judging.judge_value(
        test["margin"].to_numpy(dtype=np.float64), predictions, test["member_id"].to_numpy(), rng
    )
    return booster, table
