"""A purchase that is posted to the real service changes the next answer about its member, within a second."""

import shutil
import subprocess
import sys
import time
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import httpx
import numpy as np
import pandas as pd
import pytest
import xgboost as xgb

from features.home import Home
from features.ingest import ingest
from features.live import materialize
from features.programme import Programme, read_programme
from features.schema import TABLES
from features.snapshots import build
from features.store import open_store
from serving import contract
from serving.problems import ProblemDocument
from training.artifacts import Models, write_release
from training.calibration import Platt
from training.learning.effects import EffectBands, Effects, Student
from training.promotion import Verdict
from training.releases.ledger import promote
from training.releases.manifest import FeatureSpec, Manifest, OfferSpec

LAST = datetime(2017, 6, 1, 17, tzinfo=UTC)  # the last purchase; a snapshot is of the midnight after
START = datetime(2017, 6, 20, 12, tzinfo=UTC)  # where the service's clock starts
NAMES = ("recency_days", "visits_28d", "spend_28d", "logins_28d")


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Make a company of twenty members (m<n> bought last n days before June), and a release: lapse by recency."""
    home = Home(tmp_path_factory.mktemp("live"))
    home.settings.write_text(f'timezone = "America/New_York"\nreplay_from = {START:%Y-%m-%dT%H:%M:%SZ}\n')
    days = [(member, day) for member in range(20) for day in range(member, 120, 5 + member)]
    bought = [LAST - timedelta(days=day, hours=member % 3) for member, day in days]
    lines = pd.DataFrame({"transaction_id": [f"t{n}" for n in range(len(days))], "occurred_at": bought, "amount": 1000})
    tables = {
        "members": pd.DataFrame({"member_id": [f"m{n}" for n in range(20)], "joined_at": LAST - timedelta(days=130)}),
        "transactions": lines.assign(member_id=[f"m{member}" for member, _ in days]),
        "events": pd.DataFrame({"event_id": ["e1"], "member_id": "m1", "occurred_at": [LAST], "kind": "login"}),
    }
    ingest(tables, home=home, programme=read_programme(home.settings), source="test", key="batch")
    (*_, as_of) = build(home, progress=lambda *_: None)
    store = open_store(home)
    store.apply()
    materialize(store, as_of, now=START)
    promote_tiny_release(home)
    return home


def promote_tiny_release(home):
    rng = np.random.default_rng(7)
    X = rng.integers(0, 60, (400, len(NAMES))).astype(np.float32)

    def booster(y, objective):
        return xgb.train({"objective": objective, "max_depth": 2, "nthread": 1}, xgb.DMatrix(X, y, nthread=1), 20)

    said = booster(np.hstack([X[:, :1] - 5, 0 * X[:, :1], 0 * X[:, :1]]), "reg:squarederror")
    sure = (EffectBands(edges=(), effect=(0.0,), error=(0.0,)),)
    models = Models(
        churn=booster((X[:, 0] > 10).astype(float), "binary:logistic"),
        value=booster(X[:, 2], "reg:squarederror"),
        uplift=Effects(Student(said, (0.0,) * 3, (1.0,) * 3, (-1e3, -1.0, 0.0), (1e3, 1.0, 1.0)), sure, sure),
        calibration=Platt(1.0, 0.0),
    )
    offer = OfferSpec("A", "Coupon", "mail", 5, 10, "2017-01-01T00:00:00+00:00", "2018-01-01T00:00:00+00:00")
    manifest = Manifest(
        features=tuple(FeatureSpec(name, name, "days", 0) for name in NAMES),
        offers=(offer,),
        programme=Programme(timezone="America/New_York", replay_from=START).model_dump(mode="json"),
        reference_as_of=("2017-06-02",),
        experiment="simulated",
        evidence={},
    )
    release_id = write_release(home.releases, manifest, models, X[:64]).release_id
    promote(home, release_id, expected=None, who="test", now=START, verdict=Verdict(promote=True, said=()))


@contextmanager
def served(home, workers=1):
    command = [sys.executable, "-m", "holdfast", "serve", "--home", str(home.root), "--port", "0"]
    with subprocess.Popen([*command, "--workers", str(workers)], stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def service(home):
    with served(home) as address, httpx.Client(base_url=address, timeout=20) as client:
        yield client


def bought(number, member, **values):
    row = {"transaction_id": f"live{number}", "member_id": member, "occurred_at": "2017-06-20T07:59:00-04:00"}
    return row | {"amount": 2500} | values


def post(service, *rows, table="transactions"):
    return service.post(f"/v1/{table}", json={"rows": rows})


def score(service, member):
    (one,) = service.post("/v1/scores", json={"members": [member]}).raise_for_status().json()["scores"]
    return one


def problem(response, status):
    document = ProblemDocument.model_validate_json(response.content)
    assert response.status_code == document.status == status
    return document


def test_a_purchase_counts_in_the_next_answer_within_a_second(service, home):
    before = score(service, "m12")
    assert before["feature_age_seconds"] > 18 * 86_400
    assert before["lifecycle_stage"] == "active"
    started = time.monotonic()
    answer = post(service, bought(1, "m12"), bought(1, "m12", amount=99))
    after = score(service, "m12")
    took = time.monotonic() - started
    contract.RowsAnswer.model_validate_json(answer.content)
    assert answer.json()["rows"] == ["accepted", "accepted"]
    assert after["feature_age_seconds"] <= 2
    assert after["churn_probability"] < before["churn_probability"]
    assert took < 1
    read = open_store(home).online(["m12"], ("recency_days", "visits_28d", "spend_28d"))
    assert read.X.tolist() == [[0, 1, 2500 + 99]]  # two lines are one visit; the last before it was on 20 May
    assert read.event_timestamp[0] == datetime.fromisoformat(answer.json()["as_of"])
    assert post(service, bought(1, "m12", amount=99), bought(1, "m12")).json()["rows"] == ["duplicate", "duplicate"]
    assert open_store(home).online(["m12"], ("spend_28d",)).X.tolist() == [[2500 + 99]]


def test_an_event_counts_as_well(service, home):
    row = {"event_id": "live1", "member_id": "m5", "occurred_at": "2017-06-20T11:00:00Z", "kind": "login"}
    assert post(service, row, table="events").json()["rows"] == ["accepted"]
    assert open_store(home).online(["m5"], ("logins_28d",)).X.tolist() == [[1]]


def test_a_row_of_a_member_nobody_knows_is_kept_and_waits(service):
    assert post(service, bought(2, "m6"), bought(2, "stranger")).json()["rows"] == ["accepted", "waiting"]
    assert score(service, "stranger")["fallback_reason"] == "unknown_member"


def test_of_a_request_with_a_fault_nothing_is_taken_and_every_fault_is_pointed_at(service):
    late, wrong = bought(4, "m8", occurred_at="2017-06-21T12:00:00Z"), bought(5, "m8", amount="12", colour="red")
    found = problem(post(service, bought(3, "m8"), wrong), 422)
    assert [error.pointer for error in found.errors] == ["/rows/1/amount", "/rows/1"]
    assert "colour" not in found.model_dump_json()
    assert [error.pointer for error in problem(post(service, bought(3, "m8"), late), 422).errors] == [
        "/rows/1/occurred_at"
    ]
    assert post(service, bought(3, "m8")).json()["rows"] == ["accepted"]


@pytest.mark.parametrize(
    "change",
    [
        {"amount": None}, {"amount": 1.5}, {"amount": 10**13}, {"discount": -1}, {"quantity": True}, {"member_id": ""},
        {"occurred_at": "2017-06-20T07:59:00"}, {"occurred_at": "9999-12-31T00:00:00Z"}, {"transaction_id": "t" * 129},
        {"known_at": "2017-06-01T00:00:00Z"},
    ],
)  # fmt: skip
def test_a_row_that_breaks_the_contract_is_refused(service, change):
    assert problem(post(service, bought(6, "m8") | change), 422).errors


def test_an_id_that_stands_for_something_else_is_a_conflict_and_nothing_is_taken(service):
    assert post(service, bought(7, "m9")).json()["rows"] == ["accepted"]
    found = problem(post(service, bought(8, "m9"), bought(7, "m9", amount=1)), 409)
    assert [error.pointer for error in found.errors] == ["/rows/1"]
    assert post(service, bought(8, "m9")).json()["rows"] == ["accepted"]
    event = {"event_id": "twice", "member_id": "m9", "occurred_at": "2017-06-20T11:00:00Z", "kind": "view"}
    again = problem(post(service, event, event | {"member_id": "m1"}, table="events"), 422)
    assert [error.pointer for error in again.errors] == ["/rows/1/event_id"]


def test_rows_that_meet_several_workers_count_once_and_at_once(home, tmp_path):
    copy, statuses = Home(tmp_path / "home"), Counter()
    shutil.copytree(home.root, copy.root, ignore=shutil.ignore_patterns("decisions.db*", "live.db*"))
    with served(copy, workers=2) as address:
        for number in range(8):
            for _ in range(3):  # by a connection of its own each, so that both workers are met
                with httpx.Client(base_url=address, timeout=20) as client:
                    taken = post(client, bought(f"worker{number}", "m19")).raise_for_status().json()
                    statuses.update(taken["rows"])
                with httpx.Client(base_url=address, timeout=20) as client:
                    assert score(client, "m19")["feature_age_seconds"] < 60
    assert statuses == {"accepted": 8, "duplicate": 16}
    (found,) = open_store(copy).online(("m19",), ("spend_28d",), facts=()).X.tolist()
    assert found == [8 * 2500]


def test_rows_are_metered_and_described(service):
    post(service, bought(9, "m9"))
    text = service.get("/metrics").text
    assert 'holdfast_live_rows_total{status="accepted",table="transactions"}' in text
    assert "holdfast_live_backlog 0.0" in text
    document = service.get("/openapi.json").json()
    row = document["paths"]["/v1/transactions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert "transaction_id" in row["properties"]["rows"]["items"]["properties"]


@pytest.mark.parametrize(("table", "row"), [("transactions", contract.TransactionRow), ("events", contract.EventRow)])
def test_a_row_has_the_columns_of_the_contract_but_the_time_it_became_known(table, row):
    columns = {column.name: column.required for column in TABLES[table].columns if column.name != "known_at"}
    assert {name: field.is_required() for name, field in row.model_fields.items()} == columns
