"""From the feature store to a release that was judged: the flow alone; what each step does stands in `steps`.

A step is done once for the same inputs: churn, value, uplift and the past campaigns each by a fingerprint of their own,
so that more trials refit churn alone, and a run that was killed goes on where it stood.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from features import spark
from features.errors import CorruptError, NotFoundError
from features.files import fingerprint
from features.home import Home
from features.offers import read_catalogue
from features.privacy.consent import opted_out
from features.programme import Programme, read_programme
from features.sheet import Progress
from features.store import Store, open_store
from features.warehouse import Warehouse, open_warehouse
from training import model_card, registry, steps
from training.artifacts import Models, Release, golden_rows, latency, load_release, open_release, write_release
from training.cache import Step, cached
from training.calibration import calibration_from_json
from training.judging.grounds import Trained, evidence_of
from training.judging.redemption import redemption_table
from training.learning.effects import effects_from_json
from training.logged.experiment import Judgement, champion_policy, judge_policies, model_policy
from training.logged.log import ExperimentLog, experiment_log, offer_specs
from training.preparation import Prepared, Settings, described, feature_specs, label_ledger, prepare
from training.promotion import Verdict, evidence_from_json, judge
from training.releases import names
from training.releases.ledger import champion_id, follow, keep_up, promote
from training.releases.manifest import Manifest, OfferSpec, plain, read_manifest
from training.releases.shelf import bring, put, reach
from training.sheets.gallery import pictures
from training.sheets.uplift_table import OfferRow, uplift_table

STEPS: Final = ("future", "campaigns", "churn", "value", "worth", "uplift")
STREAMS: Final = ("log", *STEPS, "table", "contacts", "release", "pictures")


@dataclass(frozen=True)
class Inputs:
    """Hold what a training starts from, and the fingerprint of it for each step."""

    home: Home
    warehouse: Warehouse
    programme: Programme
    settings: Settings

    @cached_property
    def data(self) -> str:
        """Fingerprint what every step depends on: rows, programme, code, and how the dates are split."""
        silent = fingerprint(sorted(opted_out(self.home)))
        return fingerprint(
            self.warehouse.fingerprint, silent, self.programme.model_dump(mode="json"), self.settings.as_of, *_code()
        )

    @cached_property
    def churn(self) -> str:
        """Fingerprint what churn depends on, beside the champion's parameters."""
        return fingerprint(self.data, self.settings.folds, self.settings.tune_every, self.settings.trials)


@dataclass(frozen=True)
class Begun:
    """Hold what the steps work on."""

    prepared: Prepared
    store: Store
    offers: tuple[OfferSpec, ...]
    log: ExperimentLog
    champion: Release | None
    streams: Mapping[str, np.random.Generator]


def train(home: Home, *, settings: Settings, progress: Progress, name: str = "") -> tuple[Manifest, bool]:
    """Train, judge and write a release; give its manifest, and whether anything had to be done.

    Parameters
    ----------
    name : what to call the release, beside its id

    Raises
    ------
    ContractError
        If the history is too short, or there is nothing that can be learned from.
    NotFoundError, UnavailableError
        If a server that holdfast.toml names does not answer, or Spark is to learn and not there.
    """
    names.check(name)
    keep_up(home)
    inputs = Inputs(home, open_warehouse(home), read_programme(home.settings), settings)
    known = _trained(home, inputs.churn)
    if known:
        names.give(home, name, known.release_id)
        return known, False
    registry.reach(home)  # an hour before a run is logged there, not after
    reach(home)  # likewise
    if inputs.programme.engine.training == "spark":
        spark.reach(inputs.programme.engine.spark)  # likewise: it learns last
    begun = begin(inputs, progress)
    done = take_steps(inputs, begun, progress)
    progress("judging", 0, 1)
    trained = judged(begun, done)
    table = uplift_table(trained, begun.streams["table"])
    evidence = evidence_of_all(begun, done, trained, table)
    manifest = release(home, trained, evidence, begun.streams["release"])
    put(home, manifest.release_id)
    progress("drawing", 0, 1)
    drawn = pictures(trained, table, begun.streams["pictures"])
    run_id = log_run(home, manifest, trained.models, inputs, name=name, drawn=drawn)
    serving = begun.champion.release_id if begun.champion else None
    names.record_trained(home, manifest.release_id, inputs=inputs.churn, champion=serving, run_id=run_id)
    names.give(home, name, manifest.release_id)
    return manifest, True


def begin(inputs: Inputs, progress: Progress) -> Begun:
    """Join features and labels, and find the log that uplift is learned from."""
    store = open_store(inputs.home)
    streams = dict(zip(STREAMS, np.random.default_rng(inputs.programme.seed).spawn(len(STREAMS)), strict=True))
    serving = champion_id(inputs.home)
    champion = open_release(inputs.home.releases, serving) if serving else None
    progress("joining features, point in time", 0, 1)
    prepared = prepare(inputs.warehouse, store, inputs.programme, inputs.settings)
    offers = offer_specs(inputs.warehouse)
    log = experiment_log(prepared, store.training_frame, offers, streams["log"])
    return Begun(prepared, store, offers, log, champion, streams)


def take_steps(inputs: Inputs, begun: Begun, progress: Progress) -> dict[str, Step]:
    """Take every step that was not taken yet with the same inputs; each has its own stream of randomness."""
    prepared, store, streams = begun.prepared, begun.store, begun.streams
    # an input of churn alone: what was just trained stays what it is once it is the champion itself
    start = begun.champion.manifest.evidence["tuning"]["parameters"] if begun.champion else None
    churn_key = fingerprint(inputs.churn, start)
    kept = inputs.programme.engine.studies
    search = steps.Search(f"churn-{churn_key}", inputs.home.studies if kept == "file" else kept, start)
    work: dict[str, tuple[str, Callable[[np.random.Generator], Step]]] = {
        "future": (
            "looking for features that know the future",
            lambda rng: steps.look_ahead(inputs.home, rng, progress),
        ),
        "campaigns": (
            "estimating what past campaigns brought",
            lambda rng: steps.observe(prepared, store, begun.offers, rng),
        ),
        "churn": (
            "learning churn",
            lambda rng: steps.fit_churn(prepared, search, settings=inputs.settings, rng=rng, progress=progress),
        ),
        "value": ("learning value", lambda rng: steps.fit_value(prepared, rng)),
        "worth": ("judging lifetime value", lambda rng: steps.judge_worth(prepared, store, rng)),
        "uplift": ("learning uplift", lambda rng: steps.fit_uplift(begun.log, prepared.features, rng)),
    }
    done = {}
    for step, (doing, compute) in work.items():
        progress(doing, 0, 1)
        key = churn_key if step == "churn" else inputs.data
        done[step] = cached(inputs.home.steps, step, key, partial(compute, streams[step]))
    return done


def judged(begun: Begun, done: Mapping[str, Step]) -> Trained:
    """Gather the models, and what the later part of the log says of the policies they make."""
    churn, uplift, log = done["churn"], done["uplift"], begun.log
    models = Models(
        churn=churn.boosters["churn"],
        value=done["value"].boosters["value"],
        uplift=effects_from_json(uplift.record["effects"], uplift.boosters["uplift"]) if log.offers else None,
        calibration=calibration_from_json(churn.record["calibration"]),
    )
    found = judge_log(log, models, uplift, prepared=begun.prepared, champion=begun.champion)
    return Trained(begun.prepared, log, models, churn.record["table"], found, tuple(done["future"].record["foreknown"]))


def evidence_of_all(
    begun: Begun, done: Mapping[str, Step], trained: Trained, table: Mapping[str, OfferRow]
) -> dict[str, Any]:
    """Write down, as JSON values, everything that is known of a release."""
    prepared, log, worth = begun.prepared, begun.log, done["worth"].record
    returns = steps.judge_contacts(trained, begun.store, begun.streams["contacts"])
    names = [offer.offer_id for offer in begun.offers]
    recipe = fingerprint(prepared.programme.model_dump(mode="json"), prepared.features, names, *_code())
    evidence: dict[str, Any] = plain(
        {
            "data": described(prepared),
            "labels": label_ledger(prepared),
            "campaigns": done["campaigns"].record,
            "churn": done["churn"].record["table"],
            "value": done["value"].record["table"],
            "lifetime": worth["lifetime"],
            "economics": worth["economics"] | {"returns": returns, "experiment": log.experiment},
            "log": {"left_out": log.left_out, "reasons": log.reasons},
            "uplift": done["uplift"].record.get("uplift"),
            "retention": done["uplift"].record.get("retention"),
            "uplift_table": table,
            "redemption": redemption_table(trained),
            "policies": trained.judgement.to_json() if trained.judgement else None,
            "recipe": recipe,
            "gate": evidence_of(trained, begun.champion, recipe=recipe).to_json(),
            "compared_with": begun.champion.release_id if begun.champion else None,
            "tuning": done["churn"].record["tuning"],
        }
    )
    return evidence


def judge_log(
    log: ExperimentLog, models: Models, uplift: Step, *, prepared: Prepared, champion: Release | None
) -> Judgement | None:
    """Value the policies on the later part of the log; there is nothing to value where there are no offers."""
    if not log.offers:
        return None
    scores = models.score(log.test[list(prepared.features)].to_numpy(dtype=np.float32))
    effects = {offer: found["value"] for offer, found in uplift.record["uplift"]["average_effect"].items()}
    catalogue, ids = read_catalogue(prepared.warehouse, prepared.programme), [offer.offer_id for offer in log.offers]
    return judge_policies(
        log.test,
        scores,
        effects,
        offers=log.offers,
        policy=model_policy(scores, log.offers, prepared),
        champion=champion_policy(log.test, champion, ids, catalogue=catalogue) if champion else None,
    )


def release(home: Home, trained: Trained, evidence: dict[str, Any], rng: np.random.Generator) -> Manifest:
    """Write the models with their evidence."""
    prepared, log = trained.prepared, trained.log
    manifest = Manifest(
        features=feature_specs(prepared.features),
        offers=log.offers,
        programme=prepared.programme.model_dump(mode="json"),
        reference_as_of=tuple(as_of.isoformat() for as_of in prepared.split.train),
        experiment=log.experiment,
        evidence=evidence,
    )
    rows = prepared.part(prepared.split.train)[list(prepared.features)].to_numpy(dtype=np.float32)
    return write_release(home.releases, manifest, trained.models, golden_rows(rows, rng))


def log_run(
    home: Home, manifest: Manifest, models: Models, inputs: Inputs, *, name: str, drawn: Mapping[str, bytes]
) -> str:
    """Log a release to MLflow, with the pictures that were drawn of it, and give the run's id."""
    evidence = manifest.evidence
    with registry.tracked(home, name or "train") as run:
        settings = asdict(inputs.settings)
        run.parameters = {"settings": settings, "programme": manifest.programme, **evidence["tuning"]["parameters"]}
        run.metrics = dict(registry.metrics_of(evidence))
        run.tags = {
            "release_id": manifest.release_id,
            "data": inputs.warehouse.fingerprint,
            "experiment": manifest.experiment,
            **({"challenger": name} if name else {}),
        }
        run.models = models.boosters
        run.pictures = dict(drawn)
        run.texts = {"evidence.json": json.dumps(evidence, indent=1), "model_card.md": model_card.markdown(manifest)}
    return run.run_id


def promote_release(home: Home, which: str, *, who: str, now: datetime) -> tuple[Verdict, str]:
    """Let the gate judge a release (by default the one trained last) and, if it passes, make it champion."""
    follow(home)
    serving = champion_id(home)
    verdict, release_id = judge_release(home, which, serving=serving)
    if verdict.promote:
        put(home, release_id)
        promote(home, release_id, expected=serving, who=who, now=now, verdict=verdict)
        registry.set_champion(home, release_id)
    return verdict, release_id


def judge_release(home: Home, which: str, *, serving: str | None) -> tuple[Verdict, str]:
    """Let the gate judge a release against the one that serves.

    A comparison with a champion of the past says nothing about the one that serves, so it does not count. What it takes
    to score members is measured here, on the machine that promotes.
    """
    release_id = names.resolve(home, which)
    root = home.releases / release_id
    challenger = load_release(root)
    manifest = challenger.manifest
    milliseconds = (latency(root, challenger, 1), latency(root, challenger, 100))
    evidence = replace(evidence_from_json(manifest.evidence["gate"]), milliseconds=milliseconds)
    other = serving if serving != release_id else None
    if other:
        bring(home, other)
    champion = evidence_from_json(read_manifest(home.releases / other).evidence["gate"]) if other else None
    if manifest.evidence["compared_with"] != other:
        evidence = replace(evidence, against_champion=None)
    programme = Programme.model_validate(manifest.programme)
    return judge(evidence, champion, money=programme.money), release_id


def _trained(home: Home, key: str) -> Manifest | None:
    """Give the release trained last if its inputs and its rival are still the same."""
    record = names.trained(home)
    rivals = (record.get("champion"), record.get("release_id"))
    if record.get("inputs") != key or champion_id(home) not in rivals:
        return None
    try:
        return read_manifest(home.releases / str(record["release_id"]))
    except (NotFoundError, CorruptError):
        return None


def _code() -> list[Path]:
    """Name the modules that a training runs; how verbs ask for one is no part of it."""
    folders = (Path(__file__).parent, Path(__file__).parent.parent / "features")
    return sorted(path for folder in folders for path in folder.rglob("*.py") if path.parent.name != "verbs")
