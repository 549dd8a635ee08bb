"""From the feature store to a release that was judged: a function per step, cached by a fingerprint of the inputs."""

import json
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import numpy as np

from features.errors import CorruptError, NotFoundError
from features.files import fingerprint, write_json
from features.home import Home
from features.programme import Programme, read_programme
from features.sheet import Progress
from features.store import open_store
from features.warehouse import open_warehouse
from training import experiment, judging, model_card, registry
from training.artifacts import Models, golden_rows, load_release, write_release
from training.ledger import champion_id, promote
from training.logs import offer_specs, offer_terms, simulate_log
from training.manifest import Manifest, plain, read_manifest
from training.preparation import Settings, described, feature_specs, prepare
from training.promotion import Evidence, Verdict, evidence_from_json, judge
from training.steps import fit_churn, fit_value, observe

STEPS: Final = ("features", "campaigns", "churn", "value", "uplift", "release")


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
    terms = offer_terms(warehouse, offers)
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
                "data": described(prepared),
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
        run.metrics = dict(registry.metrics_of(evidence))
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


def _gate(table: judging.Judged, judged: experiment.Judgement) -> Evidence:
    model = judged.table[experiment.MODEL]
    single = next(lead for rival, lead in table.lead.items() if rival.startswith("best single feature"))
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
