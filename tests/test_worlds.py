"""The loop on worlds whose truth is stated: from a company's files to a decision, by the verbs that one types."""

from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from features.home import Home
from features.log.standing import nobody_contacted
from features.offers import read_catalogue
from features.programme import read_programme
from features.snapshots import built
from features.store import open_store
from features.warehouse import open_warehouse
from features.world.history import history, write_history
from features.world.law import World
from features.world.source import world_settings
from holdfast import app, quiet_dependencies
from serving.decide import Decider, Occasion, Purse
from serving.record import Request, open_file, record
from training.artifacts import load_release
from training.releases.ledger import champion_id

pytestmark = [
    pytest.mark.long,
    # MLflow, about its own types, when its `pyfunc` is imported
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
]
MEMBERS = 2000
OWN = {  # what a company calls its files and its columns
    "members": ("customers", {"member_id": "CustomerID", "joined_at": "SignupDate"}),
    "transactions": (
        "receipts",
        {"transaction_id": "ReceiptNo", "member_id": "CustomerID", "occurred_at": "SoldAt", "amount": "Total"},
    ),
    "subscriptions": ("contracts", {"member_id": "CustomerID", "started_at": "StartDate", "ends_at": "EndDate"}),
    "events": ("visits", {"event_id": "ID", "member_id": "CustomerID", "occurred_at": "Timestamp", "kind": "Action"}),
    "offers": ("coupons", {"offer_id": "CouponID"}),
    "contacts": (
        "mailings",
        {"contact_id": "MailID", "member_id": "CustomerID", "treatment": "Variant", "contacted_at": "SentAt"},
    ),
    "redemptions": ("redeemed", {"member_id": "CustomerID", "offer_id": "CouponID", "occurred_at": "When"}),
}
NOW = datetime(2024, 1, 1, 12, tzinfo=UTC)  # on the day on which the history of these worlds ends


@pytest.fixture(scope="module", params=["retail", "subscription"])
def shape(request):
    return request.param


@pytest.fixture(scope="module")
def typed(shape, tmp_path_factory):
    """Type a verb in a home of its own; what a person would be told in one line is raised."""
    quiet_dependencies()
    folder = tmp_path_factory.mktemp(shape)

    def run(*words):
        done = CliRunner().invoke(app, [*map(str, words), "--home", str(folder)])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    run.home = Home(folder)
    return run


@pytest.fixture(scope="module")
def brought(typed, shape, tmp_path_factory):
    """Bring what was lived in this world, in the company's own words, by the mapping that is proposed."""
    folder = tmp_path_factory.mktemp("files")
    tables = history(World(MEMBERS, shape=shape), np.random.default_rng(0)).tables
    for name, table in tables.items():
        file, words = OWN[name]
        table.to_pandas().rename(columns=words).to_csv(folder / f"{file}.csv", index=False)
    half_as_many = "snapshot_days = 14\n"  # are quicker
    typed.home.settings.write_text(world_settings(World(MEMBERS, shape=shape)) + half_as_many)
    for words in (("--init", folder), (folder, "--mapping", folder / "mapping.toml")):
        assert typed("ingest", *words).exit_code == 0
    return tables


@pytest.fixture(scope="module")
def promoted(typed, brought):
    assert brought
    for words in (("features", "build"), ("features", "apply"), ("features", "materialize"), ("train", "--trials", 2)):
        assert typed(*words).exit_code == 0
    return typed("promote")


@pytest.fixture(scope="module")
def assessed(promoted, typed):
    """The champion's decider, and what it makes of every member by the features that are online."""
    assert promoted.exit_code == 0, promoted.stdout
    release = load_release(typed.home.releases / champion_id(typed.home))
    decider = Decider(release, read_catalogue(open_warehouse(typed.home), read_programme(typed.home.settings)))
    ids = pd.read_parquet(typed.home.snapshot(built(typed.home)[-1]), columns=["member_id"])["member_id"]
    features = open_store(typed.home).online(tuple(ids), release.feature_names, facts=decider.facts)
    file = open_file(decider, features, nobody_contacted(len(ids), len(release.offer_ids)))
    return decider, file, decider.weigh(file.members, None)


def test_a_companys_own_words_are_understood_to_the_last_value(brought, typed):
    held = open_warehouse(typed.home)
    assert {*held.tables} == {*brought}
    for name, table in brought.items():
        key = table.column_names[:3]
        came, wanted = (frame.sort_values(key, ignore_index=True) for frame in (held.frame(name), table.to_pandas()))
        pd.testing.assert_frame_equal(came[wanted.columns], wanted, check_dtype=False)


def test_the_gate_judges_a_randomised_experiment_and_names_its_reasons(promoted):
    assert "is champion" in promoted.stdout
    for words in (
        "is randomised",
        "the arms' sizes agree",
        "no contact",
        "the best fixed offer",
        "gender, region, age",
    ):
        assert words in promoted.stdout
    assert "against: " not in promoted.stdout


def test_what_is_typed_next_shows_the_same_release(promoted, typed):
    assert promoted.exit_code == 0
    shown = typed("evaluate").stdout
    assert "RANDOMISED experiment, USD per decision" in shown
    assert "SIMULATED" not in shown
    assert champion_id(typed.home) in typed("releases").stdout
    assert "stands: nothing changed" in typed("train", "--trials", 2).stdout


def test_each_member_gets_one_treatment_drawn_as_its_propensity_says(assessed):
    decider, file, worth = assessed
    uniform, offers = np.random.default_rng(0).random(len(file.member_ids)), len(decider.release.offer_ids)
    occasion = Occasion(NOW, None, None, Purse(np.inf, decider.stock, 0.0, np.zeros(offers)))
    choice = decider.choose(file.members, worth, occasion=occasion, uniform=uniform)
    n = len(uniform)
    request = Request(occasion, uniform, ({},) * n, (None,) * n, iter(map(str, range(n))).__next__)
    decisions = record(decider, file, worth=worth, choice=choice, request=request)
    assert decider.treatments == ("control", "discount", "points", "win_back")
    assert file.members.known.all()
    assert {one.outcome for one in decisions} == {"model", "random", "hold_out", "opt_out"}
    assert all(one.propensity == one.probabilities[one.treatments.index(one.treatment)] > 0 for one in decisions)
    assert {one.treatment for one in decisions if one.outcome in {"hold_out", "opt_out"}} == {"control"}


def test_who_is_likelier_to_leave_by_the_law_of_the_world_is_so_by_the_model(assessed, shape, tmp_path):
    decider, file, worth = assessed
    truth = pd.read_parquet(write_history(World(MEMBERS, shape=shape), tmp_path, np.random.default_rng(0)))
    truth = truth.set_index("member_id").loc[list(file.member_ids)].reset_index()
    asked, law = (truth["left"] > World(MEMBERS).days) & file.members.scored, "churn_probability"
    if decider.programme.churn == "contract":  # who leaves does not renew: of those whose term ends within the horizon
        days = file.members.X[:, decider.release.feature_names.index("subscription_days_to_end")]
        asked, law = asked & (days < decider.programme.horizon_days), "hazard"
    assert asked.sum() > 300
    agreement = truth.loc[asked, law].corr(pd.Series(worth.churn_probability)[asked], method="spearman")
    assert agreement > 4 / np.sqrt(asked.sum())  # a rank correlation's standard error by chance is 1 / sqrt(n)
