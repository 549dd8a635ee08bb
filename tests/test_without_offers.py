"""A company with transactions alone, called as it calls them: it learns who leaves, and nobody is sent anything."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from features.home import Home
from holdfast import app, quiet_dependencies
from training.releases.ledger import champion_id
from training.releases.manifest import read_manifest

pytestmark = [
    pytest.mark.long,
    # MLflow, about its own types, when its `pyfunc` is imported
    pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning"),
    pytest.mark.usefixtures("few_rounds"),
]
ROOT = Path(__file__).parent.parent
WEEKS = 40
MAPPING = """
currency = "EUR"
major_units = true
[members.columns]
joined_at = "first transaction"
[transactions]
file = "sales.csv"
[transactions.columns]
transaction_id = "row hash"
member_id = "customer"
occurred_at = "day"
amount = "paid"
"""


def sales(customers=400):
    """Buy in most weeks, and half of the customers one day no more; the year is long over."""
    rng = np.random.default_rng(0)
    rate = np.clip(rng.gamma(2.0, 0.3, customers), 0.1, 0.95)
    left = np.where(rng.random(customers) < 0.5, rng.uniform(10, 60, customers), WEEKS)
    week, who = np.nonzero((np.arange(WEEKS)[:, None] < left) & (rng.random((WEEKS, customers)) < rate))
    days = pd.Timestamp("2023-01-02") + pd.to_timedelta(7 * week + rng.integers(0, 6, len(week)), unit="D")
    paid = rng.gamma(2.0, 15.0, len(week)).round(2)
    return pd.DataFrame({"customer": who, "day": days.strftime("%Y-%m-%d"), "paid": paid})


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    quiet_dependencies()
    folder = tmp_path_factory.mktemp("sales")
    sales().to_csv(folder / "sales.csv", index=False)
    (folder / "mapping.toml").write_text(MAPPING)

    def run(*words):
        done = CliRunner().invoke(app, [*map(str, words), "--home", str(folder / "home")])
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        return done

    run.home, run.folder = Home(folder / "home"), folder
    return run


@pytest.fixture(scope="module")
def promoted(typed):
    typed("ingest", typed.folder, "--mapping", typed.folder / "mapping.toml")
    for words in (("features", "build"), ("features", "apply"), ("features", "materialize"), ("train", "--trials", 2)):
        assert typed(*words).exit_code == 0
    with typed.home.settings.open("a", encoding="utf-8") as settings:
        # the sales are of years ago, and a machine that is busy with tests is late
        settings.write("\n[serving]\nfeature_days = 3660\ndeadline_ms = 10000\n")
    return typed("promote")


@pytest.fixture(scope="module")
def client(promoted, typed):
    """Ask the real service over a real socket."""
    assert promoted.exit_code == 0, promoted.stdout
    command = [sys.executable, "-m", "holdfast", "serve", "--home", str(typed.home.root), "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, env=os.environ, stdout=subprocess.PIPE, text=True) as process:
        address = process.stdout.readline().split()[-1]
        with httpx.Client(base_url=address, timeout=30) as client:
            yield client
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def test_the_gate_says_that_it_makes_no_offer_and_why(promoted, typed):
    assert "it makes no offer: there are no offers: nothing says what an offer would bring" in promoted.stdout
    assert "a decision" not in promoted.stdout  # no money is judged
    manifest = read_manifest(typed.home.releases / champion_id(typed.home))
    assert (manifest.experiment, manifest.offers) == ("none", ())


def test_its_sheets_hold_no_table_of_offers(promoted, typed):
    assert promoted.exit_code == 0
    shown = typed("evaluate").stdout
    assert "Lapse" in shown
    assert "Value" in shown
    assert "Next best offer" not in shown
    assert "there are no offers" in shown


def test_the_service_explains_everybody_and_contacts_nobody(client, typed):
    members = [str(number) for number in range(40)]
    asked = {"members": [*members, "nobody"]}
    answer = client.post("/v1/decisions", json=asked, headers={"Idempotency-Key": "k"}).raise_for_status().json()
    assert answer["experiment"] == "none"
    *known, stranger = answer["decisions"]
    assert {(one["treatment"], one["propensity"]) for one in answer["decisions"]} == {("control", 1.0)}
    assert {one["outcome"] for one in known} <= {"model", "hold_out"}
    assert all(0 < one["churn_probability"] < 1 and one["reasons"] and one["uplift"] == {} for one in known)
    assert stranger["fallback_reason"] == "unknown_member"
    said = client.get("/v1/release").raise_for_status().json()
    assert (said["experiment"], said["offers"], said["release_id"]) == ("none", [], champion_id(typed.home))


def test_the_document_names_every_experiment_an_answer_can(client):
    text = client.get("/openapi.json").raise_for_status().text
    (described,) = set(re.findall(r"where the uplift comes from: [^\"]*", text))
    assert all(word in described for word in ("simulated", "randomised", "none"))


def test_an_offer_that_nobody_knows_is_refused(client):
    asked = {"members": ["1"], "offers": ["A"]}
    refused = client.post("/v1/decisions", json=asked, headers={"Idempotency-Key": "other"})
    assert refused.status_code == 422
    assert "offer" in refused.text


def test_it_is_watched_like_any_other(promoted, typed):
    assert promoted.exit_code == 0
    watched = typed("monitor", "drift", "--json")
    said = json.loads(watched.stdout)
    assert watched.exit_code == said["exit_code"] == {"no_drift": 0, "drift": 1, "insufficient_data": 3}[said["status"]]
    assert list(typed.home.reports.glob("drift-*.html"))
