"""From the feature store to a release that was judged: a function per step, cached by a fingerprint of the inputs."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd

from features import complete_journey
from features.catalogue import CATALOGUE
from features.definitions import MODEL_FEATURES, NUMBERS, model_features
from features.errors import ContractError, CorruptError, NotFoundError
from features.files import fingerprint, write_json
from features.home import Home
from features.programme import Programme, read_programme
from features.sheet import Progress
from features.snapshots import as_of_dates
from features.store import Store, open_store
from features.synthetic import OfferTerms, overlay_experiment
from features.warehouse import Warehouse, open_warehouse
from training import campaigns, churn, experiment, judging, labels, model_card, registry, splits, value
from training.artifacts import (
    FeatureSpec,
    Manifest,
    Models,
    OfferSpec,
    golden_rows,
    load_release,
    read_manifest,
    write_release,
)
from training.promotion import Evidence, Verdict, champion_id, evidence_from_json, judge, promote
from training.tuning import tune

STEPS: Final = ("features", "campaigns", "churn", "value", "uplift", "release")


@dataclass(frozen=True)
class Settings:
    """Say how much to search and what to hold back."""

    trials: int = 20
    folds: int = 3
    test_days: int = 56
    tune_every: int = 2  # tune on every second snapshot: neighbours a week apart say nearly the same


@dataclass(frozen=True)
class Prepared:
    """Hold what every model starts from."""

    warehouse: Warehouse
    programme: Programme
    frame: pd.DataFrame  # a row per active member and date: the features, and what followed
    visits: pd.DataFrame
    split: splits.Split
    folds: list[splits.Split]

    def part(self, dates: tuple[Any, ...]) -> pd.DataFrame:
        """Give the rows of some dates."""
        return self.frame[self.frame["as_of"].isin(list(dates))].reset_index(drop=True)

    @cached_property
    def features(self) -> tuple[str, ...]:
        """What this programme's models read."""
        return model_features(self.part(self.split.train), self.programme)


def train(home: Home, *, settings: Settings, progress: Progress) -> tuple[Manifest, bool]:
    """Train, judge and write a release; give its manifest, and whether anything had to be done.

    Raises
    ------
    ContractError
        If the history is too short, or there is no experiment to learn uplift from.
    """
    warehouse, programme = open_warehouse(home), read_programme(home.settings)
    key = fingerprint(warehouse.fingerprint, programme.model_dump(mode="json"), asdict(settings), *_code())
    trained = _trained(home, key)
    if trained:
        return trained, False
    store = open_store(home)
    offers = offer_specs(warehouse)
    terms = _terms(warehouse, offers)
    rng = np.random.default_rng(programme.seed)
    streams = dict(zip(STEPS, rng.spawn(len(STEPS)), strict=True))
    progress("joining features, point in time", 0, 1)
    prepared = prepare(warehouse, store, programme, settings)
    serving = champion_id(home)
    champion = load_release(home.releases / serving) if serving else None
    with registry.tracked(home, "train") as run:
        progress("estimating what past campaigns brought", 0, 1)
        observed = observe(prepared, store, offers, streams["campaigns"])
        fitted, churn_table, tuned = fit_churn(
            home, prepared, key=key, settings=settings, rng=streams["churn"], progress=progress
        )
        progress("fitting value", 0, 1)
        worth, value_table = fit_value(prepared, streams["value"])
        progress("learning uplift", 0, 1)
        log = simulate_log(prepared, terms, streams["uplift"])
        uplift = experiment.learn_uplift(log["train"], prepared.features, offers, streams["uplift"])
        judged = experiment.judge_policies(
            log["test"], uplift, worth, features=prepared.features, offers=offers, champion=champion
        )
        progress("writing the release", 0, 1)
        gate = _gate(churn_table, judged)
        evidence = plain(
            {
                "data": _described(prepared),
                "campaigns": observed,
                "churn": churn_table,
                "value": value_table,
                "uplift": uplift.record,
                "policies": judged,
                "gate": gate.to_json(),
                "compared_with": serving,
                "tuning": tuned,
            }
        )
        manifest = Manifest(
            features=feature_specs(prepared.features),
            offers=offers,
            programme=programme.model_dump(mode="json"),
            reference_as_of=tuple(as_of.isoformat() for as_of in prepared.split.train),
            experiment=gate.experiment,
            evidence=evidence,
        )
        models = Models(churn=fitted.booster, value=worth, uplift=uplift.booster, calibration=fitted.calibration)
        rows = prepared.part(prepared.split.train)[list(prepared.features)].to_numpy(dtype=np.float32)
        manifest = write_release(home.releases, manifest, models, golden_rows(rows, streams["release"]))
        run.parameters = {"settings": asdict(settings), "programme": manifest.programme, **tuned["parameters"]}
        run.metrics = dict(_metrics(evidence))
        run.tags = {"release_id": manifest.release_id, "data": warehouse.fingerprint, "experiment": manifest.experiment}
        run.models = {name: getattr(models, name) for name in ("churn", "value", "uplift")}
        run.texts = {"evidence.json": json.dumps(evidence, indent=1), "model_card.md": model_card.markdown(manifest)}
    record = {"inputs": key, "champion": serving, "release_id": manifest.release_id, "run_id": run.run_id}
    write_json(home.releases / "trained.json", record)
    return manifest, True


def promote_release(home: Home, release_id: str, *, who: str, now: datetime) -> tuple[Verdict, str]:
    """Let the gate judge a release (by default the one trained last) and, if it passes, make it champion.

    A comparison with a champion of the past says nothing about the one that serves, so it does not count.
    """
    release_id = release_id or last_trained(home)
    manifest = read_manifest(home.releases / release_id)
    evidence = evidence_from_json(manifest.evidence["gate"])
    serving = champion_id(home)
    other = serving if serving != release_id else None
    champion = evidence_from_json(read_manifest(home.releases / other).evidence["gate"]) if other else None
    if manifest.evidence["compared_with"] != other:
        evidence = replace(evidence, against_champion=None)
    programme = Programme.model_validate(manifest.programme)
    verdict = judge(evidence, champion, money=programme.money)
    if verdict.promote:
        promote(home, release_id, expected=serving, who=who, now=now, verdict=verdict)
        registry.set_champion(home, release_id)
    return verdict, release_id


def last_trained(home: Home) -> str:
    """Name the release that was trained last."""
    release_id = _record(home).get("release_id")
    if not release_id:
        raise NotFoundError("nothing was trained yet; `holdfast train` writes a release")
    return str(release_id)


def _record(home: Home) -> dict[str, str | None]:
    path = home.releases / "trained.json"
    record: dict[str, str | None] = json.loads(path.read_bytes()) if path.exists() else {}
    return record


def prepare(warehouse: Warehouse, store: Store, programme: Programme, settings: Settings) -> Prepared:
    """Label every mature snapshot and join its features, point in time."""
    dates = as_of_dates(warehouse, programme)
    brought = warehouse.expression("transactions").columns
    columns = [
        "member_id",
        "transaction_id",
        "occurred_at",
        *(name for name in ("amount", "margin") if name in brought),
    ]
    visits = labels.margins(warehouse.frame("transactions", columns), programme)
    mature = labels.mature(dates, known_until=dates[-1], programme=programme)
    subscribed = None
    if programme.churn == "contract":
        subscribed = labels.spells(warehouse.frame("subscriptions"), programme)
    labelled = labels.label(visits, mature, known_until=dates[-1], programme=programme, subscribed=subscribed)
    split = splits.split_by_time(mature, test_days=settings.test_days, programme=programme)
    folds = splits.time_folds(split.train, settings.folds, programme=programme)
    return Prepared(warehouse, programme, store.training_frame(labelled), visits, split, folds)


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
    predictions = {judging.MODEL: model.predict(X_test)} | churn.rivals(X, churned, X_test)
    table = judging.judge_churn(
        test["churned"].to_numpy(dtype=np.float64), predictions, test["member_id"].to_numpy(), rng
    )
    return model, table, asdict(tuned)


def fit_value(prepared: Prepared, rng: np.random.Generator) -> tuple[Any, judging.Judged]:
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
    return booster, table


def simulate_log(prepared: Prepared, terms: list[OfferTerms], rng: np.random.Generator) -> dict[str, pd.DataFrame]:
    """Overlay the simulated experiment on waves whose horizons do not overlap; the later ones are for judging."""
    waves = {
        name: splits.disjoint(dates, programme=prepared.programme)
        for name, dates in (("train", prepared.split.train), ("test", prepared.split.test))
    }
    rows = pd.concat(
        [prepared.part(tuple(dates)).assign(part=name) for name, dates in waves.items()], ignore_index=True
    )
    log = overlay_experiment(rows, offers=terms, rng=rng)
    return {name: log[log["part"] == name].reset_index(drop=True) for name in waves}


def offer_specs(warehouse: Warehouse) -> tuple[OfferSpec, ...]:
    """Read the offers, ordered by id; money as plain integers, times in ISO 8601."""
    rows: list[dict[str, Any]] = json.loads(
        warehouse.frame("offers").sort_values("offer_id").to_json(orient="records", date_format="iso", date_unit="s")
    )
    names = [field.name for field in fields(OfferSpec)]
    return tuple(OfferSpec(**{name: row[name] for name in names}) for row in rows)


def feature_specs(names: Sequence[str] = MODEL_FEATURES) -> tuple[FeatureSpec, ...]:
    """Describe the models' features, in the order in which they are read."""
    return tuple(
        FeatureSpec(
            name, CATALOGUE[name].meaning, CATALOGUE[name].unit, CATALOGUE[name].minimum, CATALOGUE[name].maximum
        )
        for name in names
    )


def plain(value: Any) -> Any:  # noqa: ANN401 (any value, any JSON value)
    """Turn nested dataclasses and NumPy scalars into JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain({field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def _terms(warehouse: Warehouse, offers: tuple[OfferSpec, ...]) -> list[OfferTerms]:
    if warehouse.source != complete_journey.SOURCE:
        raise ContractError(
            f"uplift is learned from contacts with a known propensity, and {warehouse.source} brings none; "
            f"`holdfast demo` shows the loop on {complete_journey.SOURCE} with a simulated experiment"
        )
    response = complete_journey.RESPONSES
    return [OfferTerms(o.offer_id, o.contact_cost, o.redemption_cost, response[o.offer_id]) for o in offers]


def _gate(table: judging.Judged, judged: experiment.Judgement) -> Evidence:
    model = judged.table[experiment.MODEL]
    single = next(lead for rival, lead in table.lead.items() if rival.startswith(churn.BEST_SINGLE))
    return Evidence(
        experiment="simulated",
        auc=table.rows[judging.MODEL]["auc"],
        auc_over_best_feature=single,
        calibration_error=table.rows[judging.MODEL]["calibration_error"],
        against_no_contact=model.against_no_contact,
        against_best_fixed=model.against_best_fixed,
        against_champion=judged.against_champion,
        effective_sample_size=model.effective_sample_size,
        sample_ratio_p=judged.sample_ratio_p,
    )


def _trained(home: Home, key: str) -> Manifest | None:
    """Give the release trained last if its inputs and its rival are still the same."""
    record = _record(home)
    rivals = (record.get("champion"), record.get("release_id"))
    if record.get("inputs") != key or champion_id(home) not in rivals:
        return None
    try:
        return read_manifest(home.releases / str(record["release_id"]))
    except (NotFoundError, CorruptError):
        return None


def _code() -> list[Path]:
    folders = (Path(__file__).parent, Path(__file__).parent.parent / "features")
    return sorted(path for folder in folders for path in folder.glob("*.py"))


def _described(prepared: Prepared) -> dict[str, Any]:
    days = {
        name: [f"{dates[0]:%Y-%m-%d}", f"{dates[-1]:%Y-%m-%d}", len(dates)]
        for name, dates in asdict(prepared.split).items()
    }
    return {
        "source": prepared.warehouse.source,
        "fingerprint": prepared.warehouse.fingerprint,
        "rows": len(prepared.frame),
        "members": int(prepared.frame["member_id"].nunique()),
        "churned": float(prepared.frame["churned"].mean()),
        "dates": days,
    }


def _metrics(evidence: dict[str, Any], prefix: str = "") -> list[tuple[str, float]]:
    """Flatten every estimate of the evidence into `table.row.metric` and its bounds."""
    found: list[tuple[str, float]] = []
    for key, item in evidence.items():
        name = "".join(c if c.isalnum() or c in "._- /" else " " for c in f"{prefix}{key}")
        if isinstance(item, dict) and set(item) == {"value", "lower", "upper", "n"}:
            found += [(name, item["value"]), (f"{name}.lower", item["lower"]), (f"{name}.upper", item["upper"])]
        elif isinstance(item, dict):
            found += _metrics(item, f"{name}.")
    return found
