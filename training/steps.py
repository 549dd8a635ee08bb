"""The models of one training, each fitted on the training dates and judged on the test dates beside its rivals."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from features.as_of.parity import other_futures
from features.definitions import DECISION, NUMBERS
from features.errors import ContractError
from features.home import Home
from features.sheet import Progress
from features.store import Store
from training import churn, lifetime, splits, value
from training.cache import Step
from training.judging import economics, tables
from training.judging.grounds import Trained
from training.learning.effects import Effects
from training.logged import campaigns, experiment
from training.logged.log import ExperimentLog
from training.logged.observational import FOLDS
from training.preparation import Prepared, Settings
from training.releases.manifest import OfferSpec, plain
from training.repeat_purchase import expected_in_horizon, purchase_history
from training.tuning import Parameters, tune

Floats = NDArray[np.float64]

MORE_THAN_PURCHASES: Final = frozenset({"events", "subscriptions", "contacts"})
LIFETIME_DATES: Final = 3  # snapshots, months apart, that lifetime value is learned from


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


@dataclass(frozen=True)
class Search:
    """Say under which name and where a search for parameters is kept, and which ones it tries beside the usual."""

    study: str
    storage: Path | str = field(repr=False)  # a journal's file, or an address, which may hold a password
    start: Parameters | None = None  # the champion's


def fit_churn(
    prepared: Prepared, search: Search, *, settings: Settings, rng: np.random.Generator, progress: Progress
) -> Step:
    """Tune on time-respecting folds, fit, calibrate, and judge on the test dates beside the rivals.

    The champion's parameters are an input as the data are: with the same data, seed, trials and champion the same
    model comes out.
    """
    learn, test = (prepared.part(dates) for dates in (prepared.split.train, prepared.split.test))
    X, churned, as_of = learn[list(prepared.features)], learn["churned"].to_numpy(dtype=np.float64), learn["as_of"]
    dates = prepared.split.train[:: settings.tune_every]
    thin = as_of.isin(list(dates)).to_numpy()
    rows = churn.Rows(X[thin].to_numpy(dtype=np.float32), churned[thin], prepared.features)
    # cut anew: where snapshots are far apart, a fold of all dates may keep none of these
    thin_folds = splits.row_folds(splits.time_folds(dates, settings.folds, programme=prepared.programme), as_of[thin])
    tuned = tune(
        lambda parameters: churn.fold_losses(rows, thin_folds, parameters),
        study=search.study,
        storage=search.storage,
        start=search.start,
        trials=settings.trials,
        rng=rng,
        progress=lambda done, of: progress("tuning churn", done, of),
    )
    folds = splits.row_folds(prepared.folds, as_of)
    model = churn.fit_churn(
        X,
        churned,
        clusters=learn["member_id"],
        folds=folds,
        parameters=tuned.parameters,
        boost=_elsewhere(prepared, learn),
    )
    X_test = test[list(prepared.features)]
    expected, notes = _expected_purchases(prepared, test)
    predictions = {tables.MODEL: model.predict(X_test)} | churn.rivals(X, churned, X_test, expected_purchases=expected)
    table = tables.judge_churn(
        test["churned"].to_numpy(dtype=np.float64), predictions, test["member_id"].to_numpy(), rng
    )
    table = plain(table) | {"notes": notes}
    record = {"table": table, "tuning": asdict(tuned), "calibration": model.calibration.to_json()}
    return Step(record, {"churn": model.booster})


def _elsewhere(prepared: Prepared, learn: pd.DataFrame) -> churn.Boost | None:
    """Learn churn where the settings say, if that is not here."""
    engine = prepared.programme.engine
    if engine.training != "spark":
        return None
    from training.spark import boost_on_spark

    labelled = learn[["member_id", "as_of"]].assign(label=learn["churned"])
    return lambda given: boost_on_spark(prepared.warehouse.home, engine.spark, labelled, prepared.features, given)


def fit_value(prepared: Prepared, rng: np.random.Generator) -> Step:
    """Fit expected margin and judge it on the test dates beside the last period and the mean of the last three."""
    learn, test = (prepared.part(dates) for dates in (prepared.split.train, prepared.split.test))
    X = learn[list(prepared.features)]
    model = value.fit_value(X, learn["margin"], clusters=learn["member_id"], rng=rng)
    X_test, margin = test[list(prepared.features)], test["margin"].to_numpy(dtype=np.float64)
    spend = test["spend_84d"].to_numpy(dtype=np.float64)
    predictions = {
        tables.MODEL: model.predict(X_test),
        "same as last period": test["previous_margin"].to_numpy(dtype=np.float64),
        "mean of 12 weeks": spend * prepared.programme.margin_rate * prepared.programme.horizon_days / 84,
    }
    table = tables.judge_value(margin, predictions, test["member_id"].to_numpy(), rng)
    within = value.share_within(margin, model.interval(X_test))
    return Step({"table": plain(table) | {"within_interval": within}}, {"value": model.booster})


def judge_worth(prepared: Prepared, store: Store, rng: np.random.Generator) -> Step:
    """Judge lifetime value on days that have passed, and sum up what segments are worth at the last date with labels.

    That lifetime value can't be known, since the history is too short or hardly anybody came back, is a finding.
    """
    last = prepared.split.test[-1]
    members = _ever_bought(prepared, store, [last])[last]
    try:
        found, expected = _lifetime(prepared, store, members, rng)
        members = members.assign(lifetime_value=expected)
    except ContractError as error:
        found = {"reason": str(error)}
    return Step({"lifetime": found, "economics": {"as_of": last.isoformat(), "worth": _worth(prepared, members, rng)}})


def judge_contacts(trained: Trained, store: Store, rng: np.random.Generator) -> dict[str, Any]:
    """Sum up by segment what the model's contacts would cost and bring; nothing without an experiment."""
    if not trained.log.offers:
        return {}
    policy = experiment.model_policy(trained.log_scores, trained.log.offers, trained.prepared)
    terms = economics.contact_terms(trained.log, trained.log_scores, policy)
    words = store.training_frame(terms[["member_id", "as_of"]], DECISION)
    return {
        name: economics.return_by_segment(terms.assign(**{name: words[name].to_numpy()}), name, rng=rng)
        for name in economics.SEGMENTS
        if words[name].notna().any()
    }


def fit_uplift(log: ExperimentLog, features: Sequence[str], rng: np.random.Generator) -> Step:
    """Learn what every offer that was tried adds, and who redeems it; nothing where none was."""
    if not log.offers:
        return Step({})
    models = experiment.learn_uplift(log.train, features, log.offers, rng)
    margin, retention = models[experiment.MARGIN], models[experiment.RETENTION]
    effects = Effects(margin.student, margin.bands, retention.bands)
    record = {"uplift": margin.record, "retention": retention.record, "effects": effects.to_json()}
    return Step(record, {"uplift": effects.student.booster})


def _enough(cohort: pd.DataFrame) -> bool:
    sides: dict[Any, int] = cohort.groupby("treated")["member_id"].nunique().to_dict()
    return len(sides) > 1 and min(sides.values()) >= 2 * FOLDS


def _expected_purchases(prepared: Prepared, test: pd.DataFrame) -> tuple[Floats | None, list[str]]:
    """Expect purchases by BG/NBD where transactions are all that is known of members, else none; say if it can't."""
    if MORE_THAN_PURCHASES & set(prepared.warehouse.tables):
        return None, []
    try:
        return expected_in_horizon(prepared.visits, test, prepared.programme), []
    except ContractError as error:
        return None, [f"{churn.PURCHASES} is not among the rivals: {error}"]


def _ever_bought(prepared: Prepared, store: Store, dates: Sequence[datetime]) -> dict[datetime, pd.DataFrame]:
    """Give the features and the words of everybody who had ever bought at each date, by member_id."""
    visits = prepared.visits
    bought = {as_of: visits["member_id"][visits["occurred_at"] < pd.Timestamp(as_of)].unique() for as_of in dates}
    times = np.repeat(pd.DatetimeIndex(list(dates)).as_unit("us"), [len(members) for members in bought.values()])
    rows = pd.DataFrame({"member_id": np.concatenate(list(bought.values())), "as_of": times})
    frame = store.training_frame(rows, DECISION)
    return {as_of: frame[frame["as_of"] == pd.Timestamp(as_of)].set_index("member_id") for as_of in dates}


def _lifetime(
    prepared: Prepared, store: Store, members: pd.DataFrame, rng: np.random.Generator
) -> tuple[dict[str, Any], Floats]:
    """Judge lifetime value, and expect it of members `(n_members,)` by all that is known now; minor units."""
    visits, now, programme = prepared.visits, prepared.known_until, prepared.programme
    past, days = lifetime.back_test(visits, prepared.dates, known_until=now, programme=programme)
    asked = {past}
    for known_until, ahead in ((past, days), (now, lifetime.YEAR)):
        dates = lifetime.learnable(visits, prepared.dates, known_until=known_until, programme=programme, days=ahead)
        asked |= {dates[place] for place in np.linspace(0, len(dates) - 1, LIFETIME_DATES).astype(int)}
    X = {at: rows[list(prepared.features)] for at, rows in _ever_bought(prepared, store, sorted(asked)).items()}
    judged = lifetime.judge_lifetime(visits, X, as_of=past, days=days, programme=programme, rng=rng)
    model = lifetime.learn_lifetime(visits, X, known_until=now, programme=programme, rng=rng)
    history = purchase_history(visits, members["as_of"].iloc[0], programme).loc[members.index]
    found = judged | {"as_of": past.isoformat(), "year_from_days": model.window_days}
    return found, model.predict(members[list(prepared.features)], history)


def _worth(prepared: Prepared, members: pd.DataFrame, rng: np.random.Generator) -> dict[str, Any]:
    programme, last = prepared.programme, members["as_of"].iloc[0].to_pydatetime()
    start, end = (
        programme.days_before(last, -days)
        for days in (programme.lead_days, programme.lead_days + programme.horizon_days)
    )
    margin = lifetime.margin_within(prepared.visits, members.index, start, end)
    rows = members.assign(margin_28d=margin * economics.ARPU_DAYS / programme.horizon_days)
    brought = prepared.known("members").set_index("member_id")
    if "acquisition_cost" in brought:
        rows["acquisition_cost"] = brought["acquisition_cost"].reindex(rows.index)
    rows = rows.reset_index()
    return {
        name: economics.worth_by_segment(rows, name, programme=programme, rng=rng)
        for name in economics.SEGMENTS
        if rows[name].notna().any()
    }
