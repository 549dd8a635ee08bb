"""A live vector is what a snapshot of that moment would be, had the same rows been ingested."""

import json
import shutil
import warnings
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.as_of.plan import compared, make_plan, read_plan
from features.as_of.vectors import Vectors
from features.catalogue.entries import CATALOGUE
from features.engine import Engine
from features.errors import ContractError, NotFoundError
from features.home import Home
from features.journal import Journal, entries_of
from features.live import Live, materialize
from features.programme import Programme
from features.snapshots import build, built
from features.store import open_store
from features.warehouse import open_warehouse

OWN = [name for name in CATALOGUE if name not in compared()]
ZONES = ("UTC", "America/New_York", "Asia/Kathmandu", "Pacific/Auckland")
NIGHTS = {  # the hours around which clocks change, in UTC
    "America/New_York": (datetime(2017, 3, 12, 7, tzinfo=UTC), datetime(2016, 11, 6, 6, tzinfo=UTC)),
    "Pacific/Auckland": (datetime(2017, 4, 1, 14, tzinfo=UTC), datetime(2016, 9, 24, 14, tzinfo=UTC)),
}
ids = st.sampled_from(["m00", "m03", "m07", "m22", "m24"])  # who buys often, seldom, never; and joined at as_of
minutes = st.integers(0, 200 * 1440)


@st.composite
def posts(draw, as_of, zone):
    """Draw lines of purchases and events before a moment; some in the hours of a clock change, some refunds."""

    def time():
        if draw(st.booleans()) and zone in NIGHTS:
            return draw(st.sampled_from(NIGHTS[zone])) + timedelta(minutes=draw(st.integers(-90, 90)))
        return as_of - timedelta(minutes=draw(minutes), microseconds=draw(st.integers(1, 10)))

    lines = []
    for number in range(draw(st.integers(0, 4))):
        own = {"transaction_id": f"live{number}", "member_id": draw(ids), "occurred_at": time()}
        for _ in range(draw(st.integers(1, 3))):
            values = {
                "amount": draw(st.sampled_from([-500, 0, 250, 99_999])),
                "discount": draw(st.sampled_from([0, 50])),
            }
            more = {"category": draw(st.sampled_from(["meat", "new"])), "margin": 7, "channel": "web", "quantity": 2}
            lines.append(own | values | (more if draw(st.booleans()) else {}))
    kinds = st.sampled_from(["login", "view", "support", "survey", "points_earned", "points_burnt", "other"])
    events = [
        {
            "event_id": f"live{n}",
            "member_id": draw(ids),
            "occurred_at": time(),
            "kind": draw(kinds),
            "value": draw(value),
        }
        for n in range(draw(st.integers(0, 3)))
        for value in [st.sampled_from([0, 3, 40])]
    ]
    return {"transactions": lines, "events": events}


@pytest.fixture(scope="module", params=ZONES)
def world(request, company):
    """Give a company in a zone, twice: its tables, its warehouse, and the vectors of its plan."""
    programme = Programme(timezone=request.param, tracked_offers=("A",), tracked_categories=("meat",))
    tables = company.everything(np.random.default_rng(5))
    warehouse = company.ingest(tables, programme=programme)
    audience = warehouse.home.root / "audience.parquet"
    frame = pd.DataFrame({"member_id": ["m00"], "segment": ["best"]})
    frame.assign(**dict.fromkeys(compared()[:3], 5.0)).to_parquet(audience)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        plan = make_plan(warehouse, programme, as_of=company.as_of, audience=audience)
    return programme, tables, Vectors(plan, warehouse)


@given(data=st.data())
@settings(max_examples=5, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_live_vector_is_the_snapshot_of_its_moment_to_the_bit(world, company, data):
    programme, tables, vectors = world
    as_of = company.as_of + timedelta(
        minutes=data.draw(st.integers(-3000, 3000)), microseconds=data.draw(st.integers(0, 9))
    )
    live = data.draw(posts(as_of, programme.timezone))
    entries = [entry for name, rows in live.items() if rows for entry in entries_of(name, rows)[0]]
    known = as_of - timedelta(microseconds=1)
    asked = ["m00", "m03", "m07", "m22", "m24", "nobody"]
    found = vectors.at(as_of, asked, [(entry, known) for entry in entries]).to_pandas().set_index("member_id")
    more = {
        name: pd.concat([tables[name], pd.DataFrame(rows)]) if rows else tables[name] for name, rows in live.items()
    }
    wanted = company.snapshot(tables | more, as_of=as_of, programme=programme)
    wanted = wanted.loc[[member for member in asked if member in wanted.index]]
    assert (found.loc[wanted.index, "event_timestamp"] == as_of).all()
    assert len(found) == len(wanted)
    pd.testing.assert_frame_equal(found.loc[wanted.index, OWN], wanted[OWN], check_exact=True, check_dtype=False)


def test_what_the_warehouse_has_counts_once(world, company):
    _, tables, vectors = world
    for name, own in (("transactions", "transaction_id"), ("events", "event_id")):
        first = tables[name].dropna(subset="member_id").iloc[0]
        row = first[["member_id", own]].to_dict() | {"occurred_at": company.as_of - timedelta(hours=1), "kind": "login"}
        ((entry,), _) = entries_of(name, [row | {"amount": 12345}])
        member = [row["member_id"]]
        with_it = vectors.at(company.as_of, member, [(entry, company.as_of - timedelta(seconds=1))])
        assert with_it.equals(vectors.at(company.as_of, member))


def test_what_compares_members_is_the_last_snapshots(world, company):
    _, _, vectors = world
    found = vectors.at(company.as_of, ["m00", "m03"]).to_pandas().set_index("member_id")
    assert found.loc["m00", compared()].tolist() == [5.0, 5.0, 5.0, "best"]
    assert found.loc["m03", compared()].isna().all()
    assert set(compared()) == {"recency_score", "frequency_score", "monetary_score", "segment"}


class Online:
    """An online store in memory that keeps the newest row of each member."""

    def __init__(self, home):
        self.home, self.rows, self.fails, self.before = home, {}, False, lambda: None

    def rewrite(self, rows, schema):
        self.before()
        if self.fails:
            raise ConnectionError("down")
        assert set(schema.numbers) | set(schema.words) == set(CATALOGUE)
        for row in rows.to_pylist():
            self._put(row)

    def materialize(self, as_of):
        self.before()
        for row in pd.read_parquet(self.home.features / f"{as_of:%Y-%m-%dT%H%MZ}.parquet").to_dict("records"):
            self._put(row)

    def _put(self, row):
        standing = self.rows.get(row["member_id"])
        if standing is None or standing["event_timestamp"] <= row["event_timestamp"]:
            self.rows[row["member_id"]] = row


@pytest.fixture(scope="module")
def stocked(company, tmp_path_factory):
    home = Home(tmp_path_factory.mktemp("stocked"))
    tables = company.frames(np.random.default_rng(3), days=95)
    tables["transactions"] = tables["transactions"].query("occurred_at < @company.as_of")
    company.ingest(tables, home=home)
    (*_, as_of) = build(home, progress=lambda *_: None)
    materialize(Online(home), as_of, now=as_of)
    return home, as_of, tables


@pytest.fixture
def shop(stocked, tmp_path):
    """Give a home of one's own whose last snapshot is online."""
    ready, as_of, tables = stocked
    home = Home(tmp_path / "shop")
    shutil.copytree(ready.root, home.root)
    online = Online(home)
    online.materialize(as_of)
    return home, online, as_of, tables


def purchase(number, time, *, member="m03", amount=1000):
    row = {"transaction_id": f"live{number}", "member_id": member, "occurred_at": time, "amount": amount}
    return entries_of("transactions", [row])[0]


def visits(online, member="m03"):
    return online.rows[member]["visits_total"]


def test_a_purchase_counts_at_once_and_once(shop):
    home, online, as_of, _ = shop
    before, now = visits(online), as_of + timedelta(hours=3)
    live = Live(home, online)
    posted, moment_ = live.keep([purchase(1, now), purchase(1, now, amount=5)], now=now)
    assert [one.fresh for one in posted] == [(True,), (False,)]
    assert [one.conflicts for one in posted] == [(), (0,)]
    assert live.rewrite(moment_) == {"m03"}
    assert (visits(online), online.rows["m03"]["recency_days"]) == (before + 1, 0)
    assert now < moment_ == online.rows["m03"]["event_timestamp"] <= now + timedelta(microseconds=1)
    posted, again = live.keep([purchase(1, now)], now=now)
    assert posted[0].fresh == (False,)
    assert again > moment_  # the journal's clock goes on even where the service's stands
    live.rewrite(again)
    assert visits(online) == before + 1
    live.close()


def test_before_the_moment_of_the_snapshot_that_is_online_a_live_vector_takes_that_moment(shop):
    """The last snapshot is of the midnight after the last purchase, which is still to come."""
    home, online, as_of, _ = shop
    before, now = visits(online), as_of - timedelta(hours=5)
    live = Live(home, online)
    _, at = live.keep([purchase(1, now)], now=now)
    live.rewrite(at)
    assert as_of < at < as_of + timedelta(seconds=1)
    assert visits(online) == before + 1
    live.close()


def test_a_newer_snapshot_that_lacks_a_live_row_does_not_lose_it_not_even_for_a_moment(shop, company):
    home, online, as_of, tables = shop
    before, now = visits(online), as_of + timedelta(hours=3)
    live = Live(home, online)
    live.rewrite(live.keep([purchase(1, now)], now=now)[1])
    later = purchase(9, as_of + timedelta(days=6), member="m00")[0].rows()[0] | {"category": "meat"}
    more = pd.DataFrame([later]).assign(occurred_at=lambda t: pd.to_datetime(t["occurred_at"]))
    company.ingest(tables | {"transactions": pd.concat([tables["transactions"], more])}, home=home, key="next")
    (*_, newer) = build(home, progress=lambda *_: None)
    assert newer > now
    seen = []
    online.before = lambda: seen.append(visits(online))
    materialize(online, newer, now=newer + timedelta(hours=1))
    assert [*seen, visits(online)] == [before + 1] * 3
    assert online.rows["m00"]["event_timestamp"] == newer < online.rows["m03"]["event_timestamp"]
    # and the service that runs on follows what was ingested and materialised meanwhile
    live.rewrite(live.keep([purchase(2, newer)], now=newer)[1])
    assert visits(online) == before + 2
    live.close()


def test_an_entry_is_let_go_once_a_snapshot_that_saw_it_is_online(shop, company):
    home, online, as_of, tables = shop
    before = visits(online)
    live = Live(home, online)
    for number in range(2):
        live.rewrite(live.keep([purchase(number, as_of + timedelta(hours=1))], now=as_of + timedelta(hours=3))[1])
    live.close()
    rows = pd.DataFrame([purchase(0, as_of + timedelta(hours=1))[0].rows()[0]]).assign(category="meat")
    rows["occurred_at"] = pd.to_datetime(rows["occurred_at"])
    company.ingest(tables | {"transactions": pd.concat([tables["transactions"], rows])}, home=home, key="next")

    def kept():
        with Journal(home.journal) as journal:
            return sorted(key for key, _ in journal.keys("transactions"))

    materialize(online, as_of, now=as_of + timedelta(hours=4))  # computed before the ingest: it has not seen the row
    assert (kept(), visits(online)) == (["live0", "live1"], before + 2)
    (*_, newer) = build(home, progress=lambda *_: None)
    materialize(online, newer, now=newer)
    assert (kept(), visits(online)) == (["live1"], before + 2)


def test_what_could_not_be_brought_online_is_owed_also_by_the_next_process(shop):
    home, online, as_of, _ = shop
    before, now = visits(online), as_of + timedelta(hours=3)
    live, online.fails = Live(home, online), True
    _, at = live.keep([purchase(1, now)], now=now)
    with pytest.raises(ConnectionError):
        live.rewrite(at)
    assert live.owed == {"m03"}
    live.close()
    online.fails = False
    after = Live(home, online)
    after.rewrite(after.keep([], now=now)[1])
    assert (visits(online), after.owed) == (before + 1, set())
    after.close()


def test_a_row_of_a_member_nobody_knows_waits_for_the_ingest_that_brings_the_member(shop, company):
    home, online, as_of, tables = shop
    now = as_of + timedelta(hours=3)
    live = Live(home, online)
    assert live.rewrite(live.keep([purchase(1, now, member="new")], now=now)[1]) == frozenset()
    live.close()
    joined = pd.concat(
        [tables["members"], pd.DataFrame({"member_id": ["new"], "joined_at": [as_of - timedelta(days=1)]})]
    )
    company.ingest(tables | {"members": joined}, home=home, key="next")
    (*_, last) = build(home, progress=lambda *_: None)
    materialize(online, last, now=now)
    assert visits(online, "new") == 1


def test_without_a_plan_nothing_is_kept(tmp_path):
    live = Live(Home(tmp_path), Online(Home(tmp_path)))
    with pytest.raises(NotFoundError, match="features materialize"):
        live.keep([purchase(1, datetime(2017, 1, 1, tzinfo=UTC))], now=datetime(2017, 1, 2, tzinfo=UTC))
    assert list(tmp_path.iterdir()) == []


def test_a_warehouse_without_a_planned_column_is_said_in_words(shop):
    home, online, as_of, _ = shop
    plan = home.live / "plan.json"
    value = json.loads(plan.read_text())
    value["columns"]["transactions"].append("colour")
    plan.write_text(json.dumps(value))
    live = Live(home, online)
    with pytest.raises(ContractError, match="other columns"):
        live.keep([purchase(1, as_of)], now=as_of)


def test_the_clock_never_goes_back_whoever_asks(tmp_path):
    now = datetime(2017, 1, 1, tzinfo=UTC)
    with Journal(tmp_path / "live.db") as one, Journal(tmp_path / "live.db") as other:
        times = [
            journal.add([], now - timedelta(days=number))[1] for number, journal in enumerate([one, other, one, other])
        ]
        _, as_of = one.add([purchase(1, now)], now - timedelta(days=9))
        assert times == sorted(set(times))
        assert [time for _, time in other.of_members(["m03"], as_of=as_of)] == [times[-1]]
        assert other.of_members(["m03"], as_of=times[-1]) == []


def test_an_event_has_its_id_alone_and_a_purchase_shares_its_with_other_members(tmp_path):
    now = datetime(2017, 1, 1, tzinfo=UTC)
    events = [
        entries_of("events", [{"event_id": "e", "member_id": member, "occurred_at": now, "kind": "view"}])[0]
        for member in ("m1", "m2")
    ]
    with Journal(tmp_path / "live.db") as journal:
        posted, _ = journal.add([*events, purchase(1, now, member="m1"), purchase(1, now, member="m2")], now)
    assert [one.conflicts for one in posted] == [(), (0,), (), ()]
    assert [one.fresh for one in posted] == [(True,), (False,), (True,), (True,)]


def test_lines_in_another_order_are_the_same_purchase():
    lines = [{"transaction_id": "t", "member_id": "m", "amount": amount} for amount in (1, 2)]
    assert entries_of("transactions", lines)[0] == entries_of("transactions", lines[::-1])[0]


def test_the_plan_is_read_as_it_was_written(shop):
    home, _, as_of, _ = shop
    plan = read_plan(home)
    assert (plan.as_of, plan.timezone, set(plan.columns)) == (as_of, "UTC", set(open_warehouse(home).tables))
    assert built(home)[-1] == plan.as_of
    assert ZoneInfo(plan.timezone)


@pytest.mark.parametrize("kind", ["sqlite", "redis"])
def test_the_online_store_has_it_whatever_it_is(shop, kind, request):
    home, _, as_of, _ = shop
    address = request.getfixturevalue("redis_server").address if kind == "redis" else "sqlite"
    store = open_store(home, Engine(online=address, online_prefix="live"))
    store.apply()
    materialize(store, as_of, now=as_of)
    before, now = store.online(["m03", "m00"], ["visits_28d"]).X[:, 0], as_of + timedelta(hours=3)
    live = Live(home, store)
    _, at = live.keep([purchase(1, now)], now=now)
    live.rewrite(at)
    after = store.online(["m03", "m00"], ["visits_28d"])
    assert after.X[:, 0].tolist() == [before[0] + 1, before[1]]
    assert after.event_timestamp == (at, as_of)
    live.close()
