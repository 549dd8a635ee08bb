import json
import shutil
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from features.catalogue.entries import CATALOGUE
from features.definitions import MODEL_FEATURES
from features.errors import ContractError, NotFoundError
from features.files import write_json
from features.home import Home
from features.ingest import ingest_world
from features.programme import Programme, read_programme
from features.saying import saying
from features.snapshots import build
from features.store import open_store
from features.stores.objects import Objects
from features.synthetic import READ, TRUTH, OfferTerms
from features.warehouse import open_warehouse
from features.world.law import World
from holdfast import app
from training import pipeline, preparation
from training.churn import fit_churn
from training.logged.log import offer_specs, simulate_log
from training.metrics import Estimate, auc
from training.pipeline import promote_release
from training.preparation import Prepared, Settings, feature_specs, prepare
from training.promotion import Verdict
from training.registry import metrics_of
from training.releases.ledger import champion_id, ledger, promote
from training.releases.manifest import plain, read_manifest
from training.releases.names import last_trained
from training.releases.shelf import bring
from training.splits import Split

NOW = datetime(2017, 11, 1, 12, tzinfo=UTC)


@pytest.fixture
def home(tmp_path):
    return Home(tmp_path / "home")


@pytest.fixture
def aliases(monkeypatch):
    """MLflow's alias is tested with the registry; here it takes too long."""
    seen = []
    monkeypatch.setattr(pipeline.registry, "set_champion", lambda _, release_id: seen.append(release_id))
    return seen


def trained(home, release_id, *, inputs="key", champion=None):
    record = {"inputs": inputs, "champion": champion, "release_id": release_id, "run_id": "r"}
    write_json(home.releases / "trained.json", record)


def crown(home, release_id):
    verdict = Verdict(promote=True, said=(saying("for: by hand"),))
    promote(home, release_id, expected=champion_id(home), who="ada", now=NOW, verdict=verdict)


def raise_(home, release_id="challenger"):
    return promote_release(home, release_id, who="ada", now=NOW)


# What is written to the evidence


@dataclass(frozen=True)
class Nested:
    figures: dict
    rows: tuple


def test_a_change_of_any_module_that_a_training_runs_trains_anew():
    ours = {name for name in sys.modules if name.partition(".")[0] in {"features", "training"}}
    assert "features.stores.offline" in ours
    ran = {Path(sys.modules[name].__file__) for name in ours if ".verbs" not in name}
    assert ran <= set(pipeline._code())


def test_plain_values_are_json_whatever_they_were():
    value = Nested({("a", 1): np.float64(0.5), "b": Estimate(1.0, 0.0, 2.0, 3)}, (np.int64(4), np.True_, None, "x"))
    wanted = {
        "figures": {"('a', 1)": 0.5, "b": {"value": 1.0, "lower": 0.0, "upper": 2.0, "n": 3}},
        "rows": [4, True, None, "x"],
    }
    assert plain(value) == wanted
    assert json.loads(json.dumps(plain(value))) == wanted


def test_every_estimate_becomes_three_metrics_with_names_that_mlflow_takes(about):
    evidence = {"churn": {"rows": {"best single feature (visits_56d)": {"auc": about(0.8, 0.1)}}}, "n": 3}
    name = "churn.rows.best single feature  visits_56d .auc"
    assert metrics_of(evidence) == [
        (name, 0.8),
        (f"{name}.lower", pytest.approx(0.7)),
        (f"{name}.upper", pytest.approx(0.9)),
    ]


def test_features_are_described_in_the_order_in_which_models_read_them():
    specs = feature_specs()
    assert tuple(spec.name for spec in specs) == MODEL_FEATURES
    assert all(spec.meaning == CATALOGUE[spec.name].meaning and spec.unit for spec in specs)


def test_offers_are_read_by_id_with_plain_numbers_and_iso_times():
    frame = pd.DataFrame(
        {
            "offer_id": ["B", "A"],
            "name": ["b", "a"],
            "channel": "mail",
            "contact_cost": np.array([20, 50]),
            "redemption_cost": np.array([300, 100]),
            "valid_from": pd.Timestamp("2017-01-01", tz="UTC"),
            "valid_until": pd.Timestamp("2018-01-01", tz="UTC"),
            "category": "extra columns are kept in the warehouse",
        }
    )
    first, second = offer_specs(SimpleNamespace(frame=lambda _: frame, tables=["offers"]))
    assert (first.offer_id, second.offer_id) == ("A", "B")
    assert (first.contact_cost, type(first.contact_cost)) == (50, int)
    assert datetime.fromisoformat(first.valid_until) == datetime(2018, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(("brought", "margin"), [({}, 250), ({"margin": 70}, 70)])
def test_a_margin_that_the_company_brings_is_the_one_that_is_learned(monkeypatch, tmp_path, brought, margin):
    dates = [datetime(2017, 1, 2, tzinfo=UTC) + timedelta(days=7 * week) for week in range(30)]
    rows = {"member_id": "m", "transaction_id": [f"t{i}" for i in range(30)], "occurred_at": dates, "amount": 1000}
    table = pd.DataFrame(rows | brought).assign(category="not read")
    tables = {"transactions": table, "members": pd.DataFrame({"member_id": ["m"], "joined_at": dates[:1]})}
    told = {"home": Home(tmp_path), "tables": ["transactions"]}
    warehouse = SimpleNamespace(expression=tables.get, frame=lambda name, columns: tables[name][columns], **told)
    monkeypatch.setattr(preparation, "as_of_dates", lambda *_: dates)
    store = SimpleNamespace(training_frame=lambda labelled: labelled)
    prepared = prepare(warehouse, store, Programme(), Settings())
    assert set(prepared.frame["margin"]) == {4 * margin}  # a visit on each Monday of four weeks
    assert prepared.frame["as_of"].max() == dates[-5]  # the last whose four weeks are over by the last snapshot


def test_a_wave_of_the_experiment_is_over_before_the_next_begins():
    programme = Programme()
    dates = tuple(datetime(2017, 1, 2, tzinfo=UTC) + timedelta(days=7 * week) for week in range(20))
    split = Split(dates[:12], dates[16:])
    rows = pd.DataFrame(
        {"as_of": np.repeat(dates, 30), "member_id": np.tile(np.arange(30), 20), "margin": 100, "churned": 0}
    )
    frame = rows.assign(**dict.fromkeys(READ, 1.0))
    prepared = Prepared(SimpleNamespace(), programme, frame, frame, dates, split, [])
    terms = [OfferTerms("A", 10, 20, "come_back")]
    log = simulate_log(prepared, terms, np.random.default_rng(0))
    waves = sorted({*log["train"]["as_of"], *log["test"]["as_of"]})
    assert min(np.diff(waves)) >= programme.horizon
    assert set(log["train"]["as_of"]) <= set(split.train)
    assert set(log["test"]["as_of"]) <= set(split.test)
    assert log["test"]["as_of"].max() == dates[-1]
    assert not log["train"].duplicated(["member_id", "as_of"]).any()
    assert f"{TRUTH}A" in log["test"]


# What is not done again


@pytest.fixture
def releases(home, write):
    """A release that was trained, and two others."""
    names = [write(home.releases, effective_sample_size=size) for size in (900.0, 901.0, 902.0)]
    trained(home, names[0])
    return names


def test_what_is_unchanged_is_not_done_again(home, releases):
    assert pipeline._trained(home, "key") == read_manifest(home.releases / releases[0])


def test_it_is_still_unchanged_once_it_is_champion_itself(home, releases):
    crown(home, releases[0])
    assert pipeline._trained(home, "key").release_id == releases[0]


def test_it_is_still_unchanged_while_its_rival_serves(home, releases):
    crown(home, releases[1])
    trained(home, releases[0], champion=releases[1])
    assert pipeline._trained(home, "key").release_id == releases[0]


def test_other_inputs_are_trained_on(home, releases):
    assert releases
    assert pipeline._trained(home, "another key") is None


@pytest.mark.parametrize("rival", [None, 1])
def test_another_champion_is_another_rival(home, releases, rival):
    trained(home, releases[0], champion=None if rival is None else releases[rival])
    crown(home, releases[2])
    assert pipeline._trained(home, "key") is None


def test_nothing_trained_yet(home):
    assert pipeline._trained(home, "key") is None
    with pytest.raises(NotFoundError, match="nothing was trained yet; `holdfast train`"):
        last_trained(home)


@pytest.mark.parametrize("spoil", ["remove", "corrupt"])
def test_a_release_that_is_gone_or_spoilt_is_made_again(home, releases, spoil):
    path = home.releases / releases[0] / "manifest.json"
    if spoil == "remove":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-10])
    assert pipeline._trained(home, "key") is None


# Who may serve


def test_the_one_trained_last_is_promoted_and_the_alias_follows(home, releases, aliases):
    verdict, release_id = raise_(home)
    assert verdict.promote
    assert release_id == champion_id(home) == releases[0]
    assert aliases == [releases[0]]
    assert ledger(home)[-1].reasons == verdict.reasons
    assert any("0.40 USD [0.25 USD, 0.55 USD] a decision" in reason for reason in verdict.reasons)


def test_promoting_the_champion_again_changes_nothing(home, releases, aliases):
    first, second = raise_(home), raise_(home)
    assert (first[1], second[1]) == (releases[0], releases[0])
    assert first[0].promote
    assert second[0].promote
    assert len(ledger(home)) == 1
    assert set(aliases) == {releases[0]}


def test_who_promotes_the_champion_is_told_that_nothing_was_to_do(home, releases, aliases):
    first, second, told = (
        CliRunner().invoke(app, ["promote", *asked, "--home", str(home.root)]) for asked in ((), (), ("--json",))
    )
    assert (first.exit_code, second.exit_code, told.exit_code) == (0, 0, 0)
    assert first.stdout.startswith(f"release {releases[0]} is champion:")
    assert second.stdout.startswith(f"release {releases[0]} is champion already:")
    assert (json.loads(told.stdout)["promote"], json.loads(told.stdout)["changed"]) == (True, False)
    assert set(aliases) == {releases[0]}


def test_a_champion_that_the_gate_would_refuse_by_now_stays_one(home, write, about, aliases):
    loses = write(home.releases, against_no_contact=about(-400.0, 50.0))
    crown(home, loses)
    told = CliRunner().invoke(app, ["promote", loses, "--home", str(home.root)])
    assert told.exit_code == 0
    assert told.stdout.startswith(f"release {loses} is champion already, though the gate would refuse it:")
    assert aliases == []


def test_a_refusal_names_its_reasons_and_moves_nothing(home, write, about, aliases):
    loses = write(home.releases, against_no_contact=about(-400.0, 50.0))
    verdict, _ = raise_(home, loses)
    assert not verdict.promote
    assert [reason for reason in verdict.reasons if reason.startswith("against")] == [
        "against: its policy earns less than no contact: -4.00 USD [-4.50 USD, -3.50 USD] a decision"
    ]
    assert champion_id(home) is None
    assert aliases == []


@pytest.mark.parametrize("difference", [60.0, -60.0, 10.0])
def test_a_challenger_has_to_prove_itself_against_the_champion(home, releases, write, about, *, aliases, difference):
    crown(home, releases[0])
    challenger = write(home.releases, compared_with=releases[0], against_champion=about(difference, 20.0))
    promoted = difference - 20.0 >= 0  # by the lower end of the interval
    verdict, _ = raise_(home, challenger)
    assert verdict.promote is promoted
    assert aliases == [challenger] * promoted
    assert champion_id(home) == (challenger if promoted else releases[0])


def test_a_comparison_with_a_champion_of_the_past_does_not_count(home, releases, write, about, aliases):
    challenger = write(home.releases, compared_with=releases[0], against_champion=about(60.0, 20.0))
    crown(home, releases[1])  # another one came between
    verdict, _ = raise_(home, challenger)
    assert "against: its policy was not compared with the champion's on the same decisions" in verdict.reasons
    assert champion_id(home) == releases[1]
    assert aliases == []


@pytest.mark.parametrize(
    ("owner", "name", "told"),
    [(pipeline, "put", "another promotion came between"), (Objects, "create", "another machine changed the champion")],
    ids=["before the ledger is read", "before it is written"],
)
def test_of_two_homes_that_promote_at_once_one_is_told_and_compares_anew(
    home, releases, s3, monkeypatch, aliases, *, owner, name, told
):
    other = Home(home.root.with_name("other"))
    shutil.copytree(home.releases / releases[1], other.releases / releases[1])
    trained(other, releases[1])
    for place in (home, other):
        place.settings.write_text(f'[engine]\nobjects = "{s3.address}"\n')
    true = getattr(owner, name)

    def late(*given):
        monkeypatch.setattr(owner, name, true)
        raise_(other)
        return true(*given)

    monkeypatch.setattr(owner, name, late)
    with pytest.raises(ContractError, match=told):
        raise_(home)
    assert aliases == [releases[1]]
    verdict, _ = raise_(home)
    assert "against: its policy was not compared with the champion's on the same decisions" in verdict.reasons
    assert champion_id(home) == champion_id(other) == releases[1]
    assert ledger(home) == ledger(other)
    bring(other, releases[0])  # it was put there all the same: whoever trained it may promote it later
    assert read_manifest(other.releases / releases[0]).release_id == releases[0]


def test_a_release_that_does_not_exist_is_not_found(home, aliases):
    with pytest.raises(NotFoundError, match="there is no release 'nowhere'"):
        raise_(home, "nowhere")
    assert aliases == []


@pytest.mark.usefixtures("few_rounds")
def test_a_programme_of_contracts_learns_who_does_not_renew(tmp_path):
    home = Home(tmp_path)
    ingest_world(home, World(1000, shape="subscription"), seed=3)
    programme = read_programme(home.settings)
    assert programme.churn == "contract"
    build(home, progress=lambda *_: None)
    store = open_store(home)
    store.apply()
    prepared = prepare(open_warehouse(home), store, programme, Settings())
    learn, test = (prepared.part(dates) for dates in (prepared.split.train, prepared.split.test))
    assert 0.02 < learn["churned"].mean() < 0.5
    assert learn["subscription_days_to_end"].min() >= 0  # whoever is in the audience is in a term
    model = fit_churn(learn[list(prepared.features)], learn["churned"], clusters=learn["member_id"])
    assert auc(test["churned"].to_numpy(), model.predict(test[list(prepared.features)])) > 0.6
