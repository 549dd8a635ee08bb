"""A home with a warehouse of offers, a snapshot of a few thousand members in small groups of rows, and a champion."""

import shutil
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.catalogue.entries import CATALOGUE
from features.definitions import NUMBERS, WORDS
from features.home import Home
from features.warehouse import NewTable, replace_tables
from training.promotion import Verdict
from training.releases.ledger import promote

NOW = datetime(2017, 12, 1, 12, tzinfo=UTC)
AS_OF = NOW - timedelta(hours=12)
MEMBERS, GROUP = 2_000, 300
OFFERS = {
    "offer_id": ["A", "B", "OLD"],
    "name": ["Coupon", "Points", "Gone"],
    "channel": ["mail", "app", "mail"],
    "contact_cost": [50, 5, 0],
    "redemption_cost": [100, 20, 0],
    "valid_from": [datetime(2017, 1, 1, tzinfo=UTC)] * 3,
    "valid_until": [datetime(2018, 1, 1, tzinfo=UTC)] * 2 + [datetime(2017, 2, 1, tzinfo=UTC)],
}


def snapshot(members=MEMBERS):
    rng = np.random.default_rng(11)
    numbers = {name: rng.integers(0, 9, members).astype(float) for name in NUMBERS}
    numbers["recency_days"] = rng.integers(0, 80, members).astype(float)
    numbers["spend_28d"] = np.where(rng.random(members) < 0.1, np.nan, rng.integers(0, 90_00, members))
    numbers["weekend_share_84d"] = rng.random(members)
    words = {name: rng.choice(["one", "other"], members) for name in WORDS}
    words["segment"] = rng.choice(["loyal", "best", "hibernating"], members)
    words["lifecycle_stage"] = rng.choice(["active", "dormant"], members)
    words["personalisation"] = np.where(rng.random(members) < 0.03, "no", "yes")
    time = pa.array([AS_OF] * members, pa.timestamp("us", tz="UTC"))
    columns = {name: pa.array((numbers | words)[name], from_pandas=True) for name in CATALOGUE}
    ids = [f"m{number:05d}" for number in range(members)]
    return pa.table({"member_id": ids, "event_timestamp": time, "created_timestamp": time, **columns})


@pytest.fixture(scope="session")
def filled(release_root, tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("batch") / "home")
    home.features.mkdir(parents=True)
    pq.write_table(snapshot(), home.snapshot(AS_OF), row_group_size=GROUP)
    bring_offers(home)
    shutil.copytree(release_root, home.releases / release_root.name)
    promote(home, release_root.name, expected=None, who="test", now=NOW, verdict=Verdict(promote=True, said=()))
    return home


def bring_offers(home, **columns):
    table = pa.table(OFFERS | columns)
    new = NewTable(lambda path: pq.write_table(table, path), table.num_rows, 0)
    replace_tables(home, {"offers": new}, source="test", source_fingerprint=str(columns), read_by={})


@pytest.fixture
def home(filled, tmp_path):
    shutil.copytree(filled.root, tmp_path / "home")
    return Home(tmp_path / "home")


@pytest.fixture
def bring(home):
    """Bring another table of offers."""
    return lambda **columns: bring_offers(home, **columns)
