from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from features import complete_journey
from features.home import Home
from features.ingest import ingest_world
from features.programme import Programme, read_programme
from features.snapshots import build
from features.store import open_store
from features.warehouse import open_warehouse
from features.world.law import World
from training.logged.contacts import contact_rows
from training.logged.log import BELIEVED_P, experiment_log, offer_specs, split_contacts
from training.preparation import Prepared, Settings, known, prepare
from training.releases.manifest import OfferSpec
from training.splits import Split

START = datetime(2017, 1, 2, tzinfo=UTC)
DATES = tuple(START + timedelta(days=7 * week) for week in range(20))
A = OfferSpec("A", "Coupon", "mail", 50, 100, "2017-01-01", "2018-01-01")
B = OfferSpec("B", "Points", "app", 5, 20, "2017-01-01", "2018-01-01")


def day(number, hour=8):
    return pd.Timestamp(START) + pd.Timedelta(days=number, hours=hour)


def contacts(*rows, propensity=0.5):
    frame = pd.DataFrame(rows, columns=["member_id", "treatment", "contacted_at"])
    return frame.assign(contact_id=[f"c{i}" for i in range(len(frame))], propensity=propensity)


def programme_of(table, visits=(), redemptions=None):
    """What a training starts from, with these contacts; members m and n joined long ago, x on day 30."""
    members = pd.DataFrame({"member_id": ["m", "n", "x"], "joined_at": [day(-99), day(-99), day(30)]})
    tables = {"contacts": table, "members": members}
    tables |= {"redemptions": redemptions} if redemptions is not None else {}
    warehouse = SimpleNamespace(
        source="my shop",
        tables=tables,
        expression=lambda name: tables[name],
        frame=lambda name, columns=None: tables[name][columns or list(tables[name])],
    )
    bought = pd.DataFrame(list(visits), columns=["member_id", "occurred_at", "margin"])
    bought = bought.astype({"occurred_at": "datetime64[us, UTC]", "margin": "int64"})
    return Prepared(warehouse, Programme(), pd.DataFrame(), bought, DATES, Split(DATES[:8], DATES[12:]), [])


def test_the_outcome_is_the_margin_within_the_horizon_less_what_redemptions_cost():
    visits = [
        ("m", day(9), 999),  # before the contact
        ("m", day(10), 10),  # at the very moment
        ("n", day(12), 500),  # somebody else
        ("m", day(37), 20),
        ("m", day(38), 4000),  # 28 days later, to the moment
    ]
    redeemed = pd.DataFrame(
        {
            "member_id": ["m", "m", "m"],
            "offer_id": ["A", "A", "A"],
            "occurred_at": [day(11), day(12), day(50)],
            "contact_id": ["c0", "c0", "c0"],
        }
    )
    found = contact_rows(programme_of(contacts(("m", "A", day(10))), visits, redeemed), (A, B)).frame
    assert found["outcome"].tolist() == [10 + 20 - 2 * 100]
    assert found["as_of"].tolist() == [pd.Timestamp(DATES[1])]  # the last snapshot before day 10


@pytest.mark.parametrize(
    ("treatment", "when", "redeemed"),
    [("A", 10, 1), ("A", 37, 1), ("A", 38, 0), ("A", 9, 0), ("B", 11, 0), ("control", 11, 0)],
)
def test_an_offer_is_redeemed_by_who_was_sent_it_within_the_horizon(treatment, when, redeemed):
    came = pd.DataFrame({"member_id": ["m"] * 2, "offer_id": ["A"] * 2, "occurred_at": [day(when)] * 2})
    found = contact_rows(programme_of(contacts(("m", treatment, day(10))), redemptions=came), (A, B)).frame
    assert found["redeemed"].tolist() == [redeemed]  # and twice is once
    named = came.assign(contact_id="c0")
    found = contact_rows(programme_of(contacts(("m", treatment, day(10))), redemptions=named), (A, B)).frame
    assert found["redeemed"].tolist() == [float(10 <= when < 38 and treatment != "control")]


def test_without_redemptions_none_is_redeemed():
    found = contact_rows(programme_of(contacts(("m", "A", day(10)))), (A, B)).frame
    assert found[["redeemed", "outcome"]].to_numpy().tolist() == [[0.0, 0.0]]


def test_who_comes_within_the_horizon_is_retained():
    visits = [("m", day(9), 1), ("n", day(37), 0), ("m", day(38), 1)]
    found = contact_rows(programme_of(contacts(("m", "A", day(10)), ("n", "A", day(10))), visits), (A, B)).frame
    assert dict(zip(found["member_id"], found["retained"], strict=True)) == {"m": 0, "n": 1}


@pytest.mark.parametrize(("ends", "retained"), [(37, 0), (38, 1), (99, 1)])
def test_under_contract_who_outlasts_the_horizon_is_retained(ends, retained):
    spells = pd.DataFrame(
        {"member_id": ["m"], "started_at": [day(0)], "ends_at": [day(20)], "ended_at": [day(ends)]}  # renewed on day 20
    )
    prepared = replace(
        programme_of(contacts(("m", "A", day(10)))), programme=Programme(churn="contract"), subscribed=spells
    )
    assert contact_rows(prepared, (A, B)).frame["retained"].tolist() == [retained]


def test_under_contract_the_grace_period_has_to_be_over_too():
    late = pd.Timestamp(DATES[-1]) - pd.Timedelta(days=30)  # 28 days have passed since, the 7 of grace have not
    prepared = programme_of(contacts(("m", "A", late)))
    assert len(contact_rows(prepared, (A, B)).frame) == 1
    contract = replace(prepared, programme=Programme(churn="contract"))
    assert contact_rows(contract, (A, B)).left_out == {"its horizon has not passed": 1}


def test_a_redemption_without_a_contact_is_that_of_the_member_and_the_offer():
    redeemed = pd.DataFrame({"member_id": ["m", "n"], "offer_id": ["B", "A"], "occurred_at": [day(11), day(11)]})
    table = contacts(("m", "A", day(10)), ("n", "A", day(10)), ("m", "B", day(2)))
    found = contact_rows(programme_of(table, redemptions=redeemed), (A, B)).frame
    assert dict(zip(zip(found["member_id"], found["treatment"], strict=True), found["outcome"], strict=True)) == {
        ("m", "A"): 0.0,
        ("n", "A"): -100.0,
        ("m", "B"): -20.0,
    }


@pytest.mark.parametrize(
    ("row", "propensity", "reason"),
    [
        (("m", "Z", day(10)), 0.5, "the offer is none of the table of offers"),
        (("m", "A", day(10)), np.nan, "its propensity is missing"),
        (("m", "A", day(10)), 0.0, "its propensity is 0, and yet it happened"),
        (("m", "control", day(10)), 1.0, "nothing else could have happened: its propensity is 1"),
        (("m", "A", day(120)), 0.5, "its horizon has not passed"),
        (("x", "A", day(31)), 0.5, "the member had no features yet"),
        (("m", "A", day(-3)), 0.5, "the member had no features yet"),
    ],
)
def test_a_contact_that_nothing_can_be_learned_from_is_left_out_and_counted(row, propensity, reason):
    both = pd.concat([contacts(row, propensity=propensity), contacts(("n", "control", day(10)))])
    found = contact_rows(programme_of(both), (A, B))
    assert found.left_out == {reason: 1}
    assert found.frame["member_id"].tolist() == ["n"]


def test_a_member_who_was_contacted_twice_at_once_had_no_one_treatment():
    table = contacts(("m", "A", day(10)), ("m", "control", day(10)), ("n", "A", day(10)))
    found = contact_rows(programme_of(table), (A, B))
    assert found.left_out == {"the member was contacted twice at once": 2}


def test_what_is_learned_from_is_over_before_what_is_judged_begins():
    rows = contacts(*[("m", "A", day(d)) for d in (20, 56, 57, 84, 90)])
    parts = split_contacts(rows, programme_of(rows))  # the test's first snapshot is of day 84
    assert parts["test"]["contacted_at"].tolist() == [day(84), day(90)]
    assert parts["train"]["contacted_at"].tolist() == [day(20), day(56)]


def test_what_was_not_known_by_then_is_not_read():
    table = contacts(("m", "A", day(10)), ("m", "A", day(40)), ("n", "A", day(11)))
    table = table.assign(known_at=[pd.NaT, pd.NaT, day(60)])
    prepared = programme_of(table)
    assert known(prepared.warehouse, "contacts", day(30))["member_id"].tolist() == ["m"]
    assert known(prepared.warehouse, "contacts", day(99))["member_id"].tolist() == ["m", "m", "n"]


def test_a_renewal_that_comes_later_has_not_happened_yet():
    terms = pd.DataFrame({"member_id": ["m"], "started_at": [day(0)], "ends_at": [day(30)], "renewed_at": [day(25)]})
    warehouse = SimpleNamespace(expression=lambda _: terms, frame=lambda *_: terms)
    assert known(warehouse, "subscriptions", day(20))["renewed_at"].isna().all()
    assert known(warehouse, "subscriptions", day(26))["renewed_at"].notna().all()


# Which log a programme has


def log_of_everybody(prepared, offers=(A, B)):
    return experiment_log(prepared, lambda rows: rows.assign(noise=1.0), offers, np.random.default_rng(0))


def test_without_offers_or_contacts_there_is_nothing_to_learn_from():
    assert log_of_everybody(programme_of(contacts()), ()).reasons == (
        "there are no offers: nothing says what an offer would bring",
    )
    prepared = programme_of(contacts())
    del prepared.warehouse.tables["contacts"]
    found = log_of_everybody(prepared)
    assert (found.experiment, found.offers) == ("none", ())
    assert "there are no contacts" in found.reasons[0]


def test_contacts_without_a_propensity_are_no_experiment():
    found = log_of_everybody(programme_of(contacts(("m", "A", day(10)), ("n", "A", day(10)), propensity=np.nan)))
    assert found.experiment == "none"
    assert found.reasons == ("no contact says what an offer brings (2 contacts: its propensity is missing)",)


def drawn(n, shares, seed=0):
    """Contacts of n members, half before and half within the test, drawn by known shares."""
    rng = np.random.default_rng(seed)
    arm = rng.choice(len(shares), n, p=shares)
    return pd.DataFrame(
        {
            "member_id": [f"m{i}" for i in range(n)],
            "contact_id": [f"c{i}" for i in range(n)],
            "treatment": np.array(["control", "A", "B"], dtype=object)[arm],
            "contacted_at": np.where(np.arange(n) % 2, day(20), day(90)),
            "propensity": np.array(shares)[arm],
        }
    )


def everybody(table):
    prepared = programme_of(table)
    prepared.warehouse.tables["members"] = pd.DataFrame({"member_id": table["member_id"], "joined_at": day(-9)})
    prepared.__dict__["features"] = ("noise",)
    return prepared


def test_an_offer_that_one_member_had_is_left_out_and_the_rest_is_learned_from():
    table = drawn(1000, (0.5, 0.5, 0.0))
    table.loc[0, ["treatment", "propensity"]] = ["B", 0.001]
    found = log_of_everybody(everybody(table))
    assert found.experiment == "randomised"
    assert [offer.offer_id for offer in found.offers] == ["A"]
    assert found.reasons == (
        "'B' is left out: it had 0 members before and after the split, at least 30 were wanted of each",
    )
    assert set(found.train["treatment"]) | set(found.test["treatment"]) == {"control", "A"}


def test_without_control_nothing_is_learned():
    found = log_of_everybody(everybody(drawn(1000, (0.0, 0.5, 0.5))))
    assert found.experiment == "none"
    assert "'control' is left out: it had 0 members" in found.reasons[0]


def test_contacts_that_were_not_drawn_as_they_say_are_not_believed():
    table = drawn(1000, (0.5, 0.25, 0.25))
    lost = table[(table["treatment"] != "A") | (np.arange(len(table)) % 3 > 0)]
    found = log_of_everybody(everybody(lost))
    assert found.experiment == "none"
    assert "contacts were not drawn as their propensities say: arms' sizes p 0.00" in found.reasons[0]
    assert found.sample_ratio_p < BELIEVED_P


def test_only_the_built_in_set_has_a_simulated_experiment(monkeypatch):
    monkeypatch.setattr("training.logged.log.simulate_log", lambda *_: {})
    monkeypatch.setattr("training.logged.log._judged", lambda experiment, *_: experiment)
    monkeypatch.setattr("training.logged.log.simulated_terms", lambda _: [])
    journey = programme_of(contacts())
    journey.warehouse.source = complete_journey.SOURCE
    assert log_of_everybody(journey) == "simulated"
    assert log_of_everybody(programme_of(contacts()), ()).experiment == "none"


def test_a_world_of_known_effects_gives_the_log_its_law_promises(tmp_path):
    home = Home(tmp_path)
    ingest_world(home, World(2000), seed=1)
    build(home, progress=lambda *_: None)
    store = open_store(home)
    store.apply()
    warehouse = open_warehouse(home)
    prepared = prepare(warehouse, store, read_programme(home.settings), Settings())
    log = experiment_log(prepared, store.training_frame, offer_specs(warehouse), np.random.default_rng(0))
    assert log.experiment == "randomised"
    assert [offer.offer_id for offer in log.offers] == ["discount", "points", "win_back"]
    assert set(log.train["propensity"]) == {0.25}
    assert log.train["contacted_at"].max() + pd.Timedelta(days=28) <= log.test["contacted_at"].min()
    assert (log.train["as_of"] <= log.train["contacted_at"]).all()
    assert len(log.train) + len(log.test) + sum(log.left_out.values()) <= warehouse.tables["contacts"].rows
    spends = log.test.groupby("treatment")["outcome"].mean()
    assert spends["control"] > 0
