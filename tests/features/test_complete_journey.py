"""The built-in data against the package's own files, read once, and what is published of them."""

from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest

from features import complete_journey
from features.intake.checks import check_values
from features.schema import TABLES

STORES = ZoneInfo("America/New_York")


@pytest.fixture(scope="module")
def tables():
    return complete_journey.read_tables()


@pytest.fixture(scope="module")
def lines():
    columns = ["sales_value", "retail_disc", "coupon_disc", "coupon_match_disc", "transaction_timestamp"]
    return pd.read_parquet(complete_journey._path("transactions"), columns=columns)


def test_nothing_is_lost_and_nothing_doubled(tables):
    """As the package documents: households, lines, campaign types, who was in which campaign, redemptions."""
    rows = {name: len(table) for name, table in tables.items()}
    assert rows == {"members": 2469, "transactions": 1_469_307, "offers": 3, "contacts": 6589, "redemptions": 2102}


def test_money_is_the_sources_to_the_cent(tables, lines):
    cents = tables["transactions"]["amount"]
    assert cents.sum() == 459_603_958  # the package's sales add up to 4,596,039.58 dollars
    assert np.abs(cents / 100 - lines["sales_value"]).max() < 1e-9  # no line was moved by the rounding
    parts = lines[["retail_disc", "coupon_disc", "coupon_match_disc"]].sum(axis=1)
    assert np.abs(tables["transactions"]["discount"] / 100 - parts).max() < 1e-9
    assert tables["transactions"]["discount"].sum() == 82_255_319


def test_times_are_utc_though_they_do_not_say_so(tables, lines):
    """Shops are shut at night: in the stores' zone hardly anybody buys from 1 to 6, read as local time thousands do."""
    times = tables["transactions"]["occurred_at"]
    assert (times.dt.tz_localize(None) == lines["transaction_timestamp"]).all()
    local = times.dt.tz_convert(STORES).dt.tz_localize(None)
    assert local.dt.hour.between(1, 5).mean() < 0.01 < lines["transaction_timestamp"].dt.hour.between(1, 5).mean()
    assert (local.dt.year == 2017).all()
    other_day = (local.dt.normalize() != times.dt.tz_localize(None).dt.normalize()).mean()
    assert other_day == pytest.approx(0.1705, abs=5e-5)


def test_a_member_joins_with_the_first_thing_that_is_known_of_them(tables):
    joined = tables["members"].set_index("member_id")["joined_at"]
    for name, time in (("transactions", "occurred_at"), ("contacts", "contacted_at")):
        first = tables[name].groupby("member_id")[time].min()
        assert (joined[first.index] <= first).all()
    known = set(tables["transactions"]["member_id"]) | set(tables["contacts"]["member_id"])
    assert set(joined.index) == known


def test_campaigns_begin_and_redemptions_count_on_local_days(tables):
    begins = tables["contacts"]["contacted_at"].dt.tz_convert(STORES)
    assert (begins == begins.dt.normalize()).all()
    redeemed = tables["redemptions"]["occurred_at"].dt.tz_convert(STORES)
    assert (redeemed.dt.strftime("%H:%M:%S") == "23:59:59").all()


def test_a_redemption_points_to_a_contact_of_its_member_and_offer(tables):
    contacts = tables["contacts"].set_index("contact_id")
    met = tables["redemptions"].join(contacts, on="contact_id", rsuffix="_contacted", how="inner")
    assert len(met) == 2102
    assert (met["member_id"] == met["member_id_contacted"]).all()
    assert (met["offer_id"] == met["treatment"]).all()
    assert (met["occurred_at"] > met["contacted_at"]).all()


def test_every_offer_is_valid_when_the_replay_starts_and_has_a_response_in_the_experiment(tables):
    offers = tables["offers"]
    start = complete_journey.PROGRAMME.replay_from
    assert ((offers["valid_from"] < start) & (start < offers["valid_until"])).all()
    assert set(offers["offer_id"]) == set(complete_journey.RESPONSES) == set(tables["contacts"]["treatment"])


def test_the_tables_meet_the_contract(tables):
    for name, table in tables.items():
        rows = table.sample(min(len(table), 20_000), random_state=1, ignore_index=True)
        _, reasons = check_values(TABLES[name], rows)
        assert reasons.isna().all(), reasons.value_counts()
        assert "member_id" not in table or table["member_id"].isin(tables["members"]["member_id"]).all()
