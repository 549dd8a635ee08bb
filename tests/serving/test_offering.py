"""The catalogue that stands on the disk is the one that is decided by, and what limits it holds over a real socket."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial

import httpx
import pandas as pd
import pytest

from features.decisions import DecisionLog, read_decisions
from features.errors import ContractError
from features.home import Home
from features.ingest import ingest
from features.programme import Programme
from serving.offering import Offering

NOW = datetime(2017, 12, 1, 12, tzinfo=UTC)
STOCK, BUDGET = 50, 3_000
SETTINGS = """
[policy]
min_days_between_contacts = 2
[campaigns.spring]
budget = 3000
[campaigns.autumn]
offers = ["B"]
"""


def offers(**changes):
    rows = {
        "offer_id": ["A", "B"],
        "name": ["Coupon", "Points"],
        "channel": ["mail", "app"],
        "contact_cost": [50, 5],
        "redemption_cost": [100, 20],
        "valid_from": datetime(2017, 1, 1, tzinfo=UTC),
        "valid_until": datetime(2018, 1, 1, tzinfo=UTC),
        "stock": [None, STOCK],
    }
    return pd.DataFrame(rows | changes)


def bring(home, table, key, **contacts):
    tables = {
        "members": pd.DataFrame({"member_id": ["m1"], "joined_at": [NOW - timedelta(days=99)]}),
        "transactions": pd.DataFrame(
            {"transaction_id": ["t"], "member_id": ["m1"], "occurred_at": [NOW - timedelta(days=9)], "amount": [100]}
        ),
        "offers": table,
    }
    ingest(tables | contacts, home=home, programme=Programme(), source="test", key=key)


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    home.settings.write_text(SETTINGS)
    bring(home, offers(), "first")
    return home


def change(home, text):
    """Write the settings anew, a moment later."""
    before = home.settings.stat().st_mtime_ns
    home.settings.write_text(text)
    os.utime(home.settings, ns=(before + 10**9, before + 10**9))


def test_a_catalogue_that_changes_is_taken_up_and_a_wrong_one_refused(home, decider, caplog):
    with DecisionLog(home.decisions) as log:
        offering = Offering(home, decider.release, log, now=NOW)
        first = offering.decider.catalogue
        offering.follow(NOW)
        assert offering.decider.catalogue is first
        change(home, SETTINGS.replace("3000", "-1"))
        offering.follow(NOW)
        assert offering.decider.catalogue is first
        assert "the new offers or settings are refused, the old ones stay" in caplog.text
        change(home, SETTINGS.replace("3000", "4000"))
        offering.follow(NOW)
        assert offering.decider.catalogue.campaigns["spring"].budget == 4000
        bring(home, offers(contact_cost=[60, 5]), "second")
        offering.follow(NOW)
        assert [offer.contact_cost for offer in offering.decider.catalogue.offers] == [60, 5]


def test_a_service_does_not_start_on_wrong_offers(home, decider):
    change(home, '[policy]\nfallback = "LETTER"')
    with DecisionLog(home.decisions) as log, pytest.raises(ContractError, match="LETTER"):
        Offering(home, decider.release, log, now=NOW)


def test_contacts_of_other_systems_count(home, decider):
    contacts = pd.DataFrame(
        {"contact_id": ["x"], "member_id": "m1", "treatment": "A", "contacted_at": [NOW - timedelta(days=1)]}
    )
    bring(home, offers(), "third", contacts=contacts)
    with DecisionLog(home.decisions) as log:
        standing = Offering(home, decider.release, log, now=NOW).standing(["m1", "m2"], NOW)
    assert standing.since_any.tolist() == [1, float("inf")]


def ask(address, members, **fields):
    with httpx.Client(base_url=address, timeout=30) as client:
        return client.post("/v1/decisions", json={"members": members, **fields})


def test_stock_budget_and_caps_hold_under_concurrent_requests_and_over_a_restart(home, start, held_out):
    """Two callers ask for 400 members each, twice: before and after a restart; nobody is contacted twice."""
    requests = [[f"m{n + i}" for i in range(20)] for n in range(0, 400, 20)] * 2
    for campaign_id in ("spring", "autumn"):
        with start(home.decisions) as (process, address), ThreadPoolExecutor(2) as callers:
            answers = list(callers.map(partial(ask, address, campaign_id=campaign_id), requests))
            process.terminate()
            process.wait(timeout=20)
        assert {answer.status_code for answer in answers} == {200}
    rows = read_decisions(home.decisions)
    contacts = [row for row in rows if row["treatment"] != "control"]
    assert max(Counter(row["member_id"] for row in contacts).values()) == 1  # all of it takes less than two days
    assert Counter(row["treatment"] for row in contacts)["B"] == STOCK
    cost = [
        row["cost"][row["treatments"].index(row["treatment"]) - 1] for row in contacts if row["campaign_id"] == "spring"
    ]
    assert BUDGET - 200 < sum(cost) <= BUDGET
    for row in rows:
        assert (row["outcome"] == "hold_out") == (row["member_id"] in held_out)
        assert row["propensity"] == row["probabilities"][row["treatments"].index(row["treatment"])] > 0
        assert sum(row["probabilities"]) == pytest.approx(1, abs=1e-12)
        for probability, refusal in zip(row["probabilities"][1:], row["refusals"], strict=True):
            assert not (refusal and probability)


def test_a_campaign_that_is_none_is_refused_with_those_there_are(home, start):
    with start(home.decisions) as (_, address):
        answer = ask(address, ["m1"], campaign_id="sprng")
        assert ask(address, ["m1"]).status_code == 200  # without a campaign
    assert answer.status_code == 422
    assert answer.json()["errors"] == [{"pointer": "/campaign_id", "detail": "one of autumn, spring was wanted"}]
