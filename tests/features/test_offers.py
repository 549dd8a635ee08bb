"""The catalogue is read as a whole and refused as a whole, with every fault; what was there stays."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ContractError
from features.home import Home
from features.ingest import bring
from features.intake.mapping import SourceMapping
from features.intake.sources import Source
from features.offers import (
    Offer,
    catalogue_from_json,
    catalogue_of,
    check_catalogue,
    expired,
    precedence,
    read_catalogue,
)
from features.programme import Campaign, Economics, Policy, Programme
from features.warehouse import open_warehouse

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAY = timedelta(days=1)


def _offer(offer_id, **terms):
    return replace(Offer(offer_id, "An offer", "mail", 40, 300, NOW - DAY, NOW + DAY), **terms)


def _programme(**policy):
    campaigns = policy.pop("campaigns", {})
    return Programme(policy=Policy(**policy), campaigns=campaigns, economics=Economics(acquisition_cost=5_000))


@pytest.mark.parametrize(
    ("terms", "policy", "fault"),
    [
        ({"contact_cost": -3}, {}, "offer A: contact_cost is -3, 0 or more was wanted"),
        ({"redemption_cost": -1}, {}, "offer A: redemption_cost is -1"),
        ({"stock": -1}, {}, "offer A: stock is -1"),
        ({"valid_until": NOW - DAY}, {}, "offer A: valid_until 2026-02-28 00:00 has to be after 2026-02-28 00:00"),
        ({"currency": "EUR"}, {}, "offer A: currency is EUR, the programme's is USD"),
        ({"price": 200, "public_price": 199}, {}, "offer A: price 2.00 USD is above the public one, 1.99 USD"),
        (
            {"eligible": "lifecycle_stagee == 'lapsed'"},
            {},
            "offer A: the rule .* at character 1, lifecycle_stagee is no feature; did you mean lifecycle_stage",
        ),
        ({"excludes": ("C", "B")}, {}, "offer A: excludes C, which is no offer"),
        ({"excludes": ("A",)}, {}, "offers exclude each other in a circle: A excludes A"),
        ({"mandatory": True}, {"excluded_offers": ("A",)}, "offer A: mandatory, and excluded in policy.excluded"),
        ({}, {"excluded_offers": ("X",)}, "policy.excluded_offers in holdfast.toml names X, which is no offer"),
        ({}, {"campaigns": {"may": Campaign(offers=("A", "Y"))}}, "campaigns.may.offers in holdfast.toml names Y"),
        ({}, {"fallback": "Z"}, "policy.fallback in holdfast.toml is Z, which is no offer; wanted control"),
        (
            {"eligible": "tier_level > 1", "stock": 5},
            {"fallback": "A"},
            "A: the fallback, and bound by eligible, stock",
        ),
        ({}, {"fallback": "A", "channels": ("app",)}, "offer A: the fallback, and bound by policy.channels"),
    ],
)
def test_each_fault_is_said(terms, policy, fault):
    (said,) = check_catalogue([_offer("A", **terms), _offer("B")], _programme(**policy))
    assert re.search(fault, said), said


def test_every_fault_is_said_at_once():
    offers = [
        _offer("A", contact_cost=-1, excludes=("B",), eligible="tier = 3"),
        _offer("B", excludes=("A",), currency="EUR", mandatory=True),
        _offer("B", valid_until=NOW - 2 * DAY),
        _offer("control"),
    ]
    faults = check_catalogue(offers, _programme(fallback="none"), NOW)
    wanted = ["contact_cost is -1", "the rule 'tier = 3'", "currency is EUR", "has to be after", "'control' is what"]
    wanted += ["B: came 2 times", "B: mandatory, and excluded by A", "in a circle", "policy.fallback", "B: expired"]
    assert len(faults) == len(wanted)
    assert all(part in said for part, said in zip(wanted, faults, strict=True)), faults


def test_a_currency_is_one_however_it_is_written():
    assert check_catalogue([_offer("A", currency=" usd")], Programme()) == []


def test_an_offer_is_expired_from_the_moment_at_which_it_is_no_longer_valid():
    offer = _offer("A")
    assert expired([offer], offer.valid_until - timedelta(microseconds=1)) == []
    assert expired([offer], offer.valid_until) == ["offer A: expired, it was valid until 2026-03-02 00:00 UTC"]
    assert check_catalogue([offer], Programme()) == []  # nobody asked about the time


@given(st.data())
def test_offers_are_ordered_by_who_excludes_whom_or_are_in_a_circle(data):
    ids = [f"o{number}" for number in range(6)]
    offers = [_offer(name, excludes=tuple(data.draw(st.sets(st.sampled_from(ids), max_size=3)))) for name in ids]

    def reached(name, seen=frozenset()):
        further = set(next(o.excludes for o in offers if o.offer_id == name)) - seen
        return further | {far for near in further for far in reached(near, seen | further)}

    if any(name in reached(name) for name in ids):
        with pytest.raises(ContractError, match="in a circle"):
            precedence(offers)
    else:
        order = precedence(offers)
        assert sorted(order) == ids
        assert all(order.index(o.offer_id) < order.index(name) for o in offers for name in o.excludes)


OFFERS = st.builds(
    Offer,
    offer_id=st.text(min_size=1),
    name=st.text(),
    channel=st.text(),
    contact_cost=st.integers(0),
    redemption_cost=st.integers(0),
    valid_from=st.datetimes(timezones=st.just(UTC)),
    valid_until=st.datetimes(timezones=st.just(UTC)),
    eligible=st.text(),
    category=st.none() | st.text(),
    min_days_between_contacts=st.integers(0),
    points=st.integers(0),
    stock=st.none() | st.integers(0),
    mandatory=st.booleans(),
    excludes=st.lists(st.text()).map(tuple),
    price=st.none() | st.integers(0),
    public_price=st.none() | st.integers(0),
    currency=st.none() | st.text(),
)


@given(offers=st.lists(OFFERS, unique_by=lambda offer: offer.offer_id, max_size=3), budget=st.integers(1))
def test_a_catalogue_is_the_same_after_json(offers, budget):
    programme = _programme(channels=("mail",), cost_caps={"lapsed": 0.6}, campaigns={"may": Campaign(budget=budget)})
    catalogue = catalogue_of(offers, programme)
    again = catalogue_from_json(json.loads(json.dumps(catalogue.to_json())))
    assert again == catalogue
    assert again.catalogue_id == catalogue.catalogue_id
    other = catalogue_of(offers, programme.model_copy(update={"policy": Policy()}))
    assert other.catalogue_id != catalogue.catalogue_id


# From files to the warehouse


def _table(*offers):
    rows = [
        {"offer_id": "A", "name": "A", "channel": "mail", "contact_cost": 40, "redemption_cost": 300} | offer
        for offer in offers
    ]
    times = {"valid_from": "2026-01-01T00:00:00Z", "valid_until": "2027-01-01T00:00:00Z"}
    return pd.DataFrame([times | row for row in rows])


@pytest.fixture
def folder(tmp_path, company):
    path = tmp_path / "brought"
    path.mkdir()
    for name, table in company.frames(np.random.default_rng(3)).items():
        if name in {"members", "transactions"}:
            table.to_csv(path / f"{name}.csv", index=False)
    return path


def _bring(home, folder, offers, *, allow=(), now=NOW, settings=""):
    home.root.mkdir(exist_ok=True)
    home.settings.write_text(settings)
    offers.to_csv(folder / "offers.csv", index=False)
    source = Source(folder=folder)
    return bring(home, source, SourceMapping(), allow=frozenset({"columns", "types", *allow}), now=now)


def test_what_is_brought_is_the_catalogue(folder, tmp_path):
    home = Home(tmp_path / "home")
    table = _table({"excludes": "B, C", "eligible": "tier == 'gold'", "stock": 7}, {"offer_id": "B"}, {"offer_id": "C"})
    _bring(home, folder, table.assign(points=[5, None, 0], price=199, public_price=200))
    first, second, _ = read_catalogue(open_warehouse(home), Programme()).offers
    start, end = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
    shared = {"price": 199, "public_price": 200}
    assert first == Offer(
        "A", "A", "mail", 40, 300, start, end, "tier == 'gold'", points=5, stock=7, excludes=("B", "C"), **shared
    )
    assert second == Offer("B", "A", "mail", 40, 300, start, end, **shared)


def test_a_company_without_offers_has_an_empty_catalogue(company):
    tables = company.frames(np.random.default_rng(3))
    catalogue = read_catalogue(company.ingest(tables), Programme())
    assert catalogue.offers == ()
    assert check_catalogue(catalogue.offers, Programme(), NOW) == []


def test_a_fault_that_many_offers_have_is_said_once_with_what_mends_it(folder, tmp_path):
    table = _table(*({"offer_id": f"N{number}", "contact_cost": "0.05"} for number in range(7)))
    with pytest.raises(
        ContractError, match=r"N0, N1, N2, N3, N4 \.\.\.: contact_cost is no money; amounts are"
    ) as refused:
        _bring(Home(tmp_path / "home"), folder, table)
    assert str(refused.value).count("no money") == 1


@pytest.mark.parametrize(
    ("bad", "faults", "allow"),
    [
        ([{"contact_cost": -3}], ["A: contact_cost: wanted 0 or more"], "bad-rows"),
        ([{"contact_cost": "cheap"}], ["A: contact_cost is no money"], "bad-rows"),
        ([{"currency": "EUR"}], ["A: currency is EUR, the programme's is USD"], "bad-rows"),
        ([{}, {}], ["A: offer_id came before"], "bad-rows"),
        ([{"valid_until": "2026-02-01"}], ["offer A: expired, it was valid until 2026-02-01"], "expired"),
        ([{"eligible": "stage == 'new'"}], ["offer A: the rule", "stage is no feature"], None),
        ([{"excludes": "B"}, {"offer_id": "B", "excludes": "A"}], ["in a circle"], None),
        (
            [
                {"contact_cost": -3},
                {"offer_id": "B", "excludes": "A D"},
                {"offer_id": "C", "valid_until": "2026-02-01"},
            ],
            ["A: contact_cost: wanted 0 or more", "offer B: excludes D, which", "offer C: expired"],  # A is known
            None,
        ),
    ],
)
def test_one_bad_offer_refuses_the_catalogue_and_the_one_before_stays(folder, tmp_path, bad, faults, allow):
    home = Home(tmp_path / "home")
    good = _table(*({"offer_id": f"old {number}"} for number in range(300)))  # one row is far below 1 %
    _bring(home, folder, good)
    before = read_catalogue(open_warehouse(home), Programme())
    table = pd.concat([good, _table(*bad)], ignore_index=True)
    with pytest.raises(ContractError, match="the batch was refused, nothing changed") as refused:
        _bring(home, folder, table)
    assert all(fault in str(refused.value) for fault in faults), refused.value
    assert str(refused.value).count("offer") <= 4 + 2 * len(faults)  # and nothing else
    assert ("type --allow" in str(refused.value)) == (allow is not None)
    assert read_catalogue(open_warehouse(home), Programme()) == before
    if allow:
        taken = _bring(home, folder, table, allow=[allow]).warehouse.tables["offers"]
        assert (taken.rows + taken.quarantined, taken.quarantined) == (len(table), int(allow == "bad-rows"))


def test_offers_are_checked_against_the_settings(folder, tmp_path):
    home, settings = Home(tmp_path / "home"), '[policy]\nfallback = "D"\n[campaigns.may]\noffers = ["A", "E"]\n'
    with pytest.raises(
        ContractError, match=r"campaigns.may.offers .* names E, .*policy.fallback .* is D, .*; mend that"
    ):
        _bring(home, folder, _table({}), settings=settings)


def test_a_programme_of_the_past_looks_at_offers_with_its_own_clock(folder, tmp_path):
    late = datetime(2030, 1, 1, tzinfo=UTC)
    with pytest.raises(ContractError, match=r"offer A: expired, .*; for a programme of the past, replay_from in"):
        _bring(Home(tmp_path / "home"), folder, _table({}), now=late)
    _bring(Home(tmp_path / "home"), folder, _table({}), now=late, settings="replay_from = 2026-03-01T00:00:00Z\n")


def test_offers_in_memory_are_read_like_those_of_files(company):
    tables = company.frames(np.random.default_rng(3)) | {"offers": _table({}, {"offer_id": "B"})}
    home = company.ingest(tables).home
    assert [offer.offer_id for offer in read_catalogue(open_warehouse(home), Programme()).offers] == ["A", "B"]
