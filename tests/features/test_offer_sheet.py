"""The catalogue as people read it, and `holdfast offers` as people type it."""

import json
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from features.home import Home
from features.offer_sheet import offers_sheet
from features.offers import Offer, catalogue_of
from features.programme import Campaign, Economics, Policy, Programme

START, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)


def test_every_limit_is_shown():
    programme = Programme(
        economics=Economics(acquisition_cost=5_000),
        policy=Policy(
            channels=("mail",), contacts_per_period=3, cost_caps={"lapsed": 0.6}, min_days_between_contacts=2
        ),
        campaigns={
            "may": Campaign(budget=100_000, ends=END, offers=("A",), objective="retained_value"),
            "any": Campaign(),
        },
    )
    offers = (
        Offer("B", "B", "app", 0, 0, START, END),
        Offer(
            "A", "A", "mail", 40, 300, START, END, eligible="tier == 'gold'", stock=5_000, mandatory=True,
            excludes=("B",), min_days_between_contacts=14, points=200, price=199,
        ),
    )  # fmt: skip
    sheet = offers_sheet(catalogue_of(offers, programme), programme, ["offer B: something"])
    limits = "mandatory, 5,000 in stock, every 14 days, before B, 200 points, for 1.99 USD"
    first = ("A", "mail", "0.40 USD", "3.00 USD", "2026-01-01 to 2026-07-01", "tier == 'gold'", limits)
    assert sheet.rows[0] == first
    assert sheet.rows[1][5:] == ("everybody", "not sent for now")
    assert sheet.notes == (
        (
            "policy: the most profit, control where nothing is known, open channels mail, a contact every 2 days at "
            "most, 3 contacts in 28 days, lapsed members at no more than 30.00 USD"
        ),
        "campaign may: budget 1,000.00 USD, until 2026-07-01 00:00, only A, the most retained value",
        "campaign any: no limits",
        "wrong: offer B: something",
    )


@pytest.fixture
def run(tmp_path, company, typist):
    """A home with one offer that goes on for ever and one that is over."""
    home = Home(tmp_path / "home")
    costs = {"channel": "mail", "contact_cost": 40, "redemption_cost": 300}
    spans = {"A": (2025, 2100), "B": (2025, 2026)}
    rows = [
        {"offer_id": name, "name": name, "valid_from": datetime(first, 1, 1, tzinfo=UTC)}
        | {"valid_until": datetime(last, 1, 1, tzinfo=UTC)}
        | costs
        for name, (first, last) in spans.items()
    ]
    company.ingest(company.frames(np.random.default_rng(1)) | {"offers": pd.DataFrame(rows)}, home=home)

    def offers(*options):
        return typist("offers", *options, "--home", home.root)

    return offers


def test_the_verb_shows_the_catalogue_and_exits_1_if_anything_is_wrong(run):
    shown = run()
    assert shown.returncode == 1, shown.stderr
    assert "offer B: expired, it was valid until 2026-01-01 00:00 UTC" in shown.stdout
    told = json.loads(run("--json").stdout)
    assert [offer["offer_id"] for offer in told["offers"]] == ["A", "B"]
    assert len(told["faults"]) == 1


def test_a_programme_of_the_past_looks_at_its_own_clock(run, tmp_path):
    (tmp_path / "home" / "holdfast.toml").write_text("replay_from = 2025-06-01T00:00:00Z\n")
    shown = run()
    assert (shown.returncode, "nothing is wrong" in shown.stdout) == (0, True), shown.stdout
