"""The check finds what it is there for: a rounding on the way online, a look into the future, a second definition."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import redis
from typer.testing import CliRunner

from features import store
from features.as_of import computing, known, parity, plan
from features.as_of.canary import scrambled
from features.as_of.computing import among_these
from features.as_of.expression import of_members
from features.as_of.known import moment
from features.engine import Engine
from features.home import Home
from features.programme import Programme
from features.snapshots import build, built
from features.stores.packed import Batch
from features.warehouse import open_warehouse, quietly
from holdfast import app

ROOT = Path(__file__).parents[3]
CHILD = """
import json, sys
from dataclasses import asdict
from pathlib import Path
import numpy as np
from features.home import Home
from features.as_of.parity import check
found = check(Home(Path(sys.argv[1])), points=500, rng=np.random.default_rng(1), progress=lambda *_: None)
print(json.dumps([asdict(one) for one in found], default=str))
"""


def brought(company, root, *, zone="UTC"):
    """Give a home with snapshots on both sides of a clock change."""
    home = Home(root)
    home.settings.write_text(f'timezone = "{zone}"\nmargin_rate = 0.3\n')
    programme = Programme(timezone=zone)
    company.ingest(company.everything(np.random.default_rng(11), days=120), home=home, programme=programme)
    build(home, progress=lambda *_: None)
    store.open_store(home).apply()
    return home


@pytest.fixture(scope="module")
def home(company, tmp_path_factory):
    return brought(company, tmp_path_factory.mktemp("utc"))


def check(home, points=500, seed=3):
    return parity.check(home, points=points, rng=np.random.default_rng(seed), progress=lambda *_: None)


def test_all_is_the_same_to_the_bit_and_nothing_stays_behind(home):
    before = sorted(home.root.iterdir())
    online, live, future = check(home)
    assert [one.differing for one in (online, live, future)] == [0, 0, 0]
    assert (online.features, live.features, future.features) == (111, 106, 107)
    assert min(one.points for one in (online, live, future)) >= 30
    assert set(home.root.iterdir()) - {home.history} == set(before) - {home.history}


def test_redis_gives_the_same_and_keeps_what_it_serves(home, redis_server):
    engine = Engine(online=redis_server.address, online_prefix="parity")
    standing = store.open_store(home, engine)
    standing.apply()
    standing.materialize(built(home)[-1])
    home.settings.write_text(f'[engine]\nonline = "{redis_server.address}"\nonline_prefix = "parity"\n')
    try:
        found = parity.offline_online(home, points=300, rng=np.random.default_rng(3), progress=lambda *_: None)
    finally:
        home.settings.write_text('timezone = "UTC"\n')
    assert (found.points, found.differing) == (min(300, found.points), 0)
    with redis.Redis.from_url(redis_server.address) as asked:
        assert not list(asked.scan_iter("parity-check:member_features:*"))
    assert standing.vectors(["m00"]).event_timestamp == (built(home)[-1],)


@pytest.fixture(scope="module")
def new_york(company, tmp_path_factory):
    return brought(company, tmp_path_factory.mktemp("new-york"), zone="America/New_York")


@pytest.mark.parametrize("process", ["Asia/Kathmandu", "America/New_York"])
def test_it_is_the_same_in_a_process_of_another_time_zone(new_york, process):
    dates = built(new_york)
    assert {date.hour for date in dates} == {4, 5}  # snapshots on both sides of the clock change
    environment = os.environ | {"TZ": process, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, new_york.root],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(ran.stdout)
    assert [one["differing"] for one in found] == [0, 0, 0], found
    assert all(one["points"] for one in found)


def test_points_are_drawn_once_each_from_all_snapshots(home):
    rng = np.random.default_rng(0)
    everything = parity.draw(home, 10**6, rng)
    assert not everything.duplicated().any()
    assert set(everything["as_of"]) == set(built(home))
    some = parity.draw(home, 40, rng)
    assert (len(some), some.duplicated().any()) == (40, False)
    assert len(some.merge(everything)) == 40


def test_a_rounding_on_the_way_online_is_found_and_named(home, monkeypatch):
    def rounded(**fields):
        return Batch(**fields | {"numbers": fields["numbers"].astype(np.float32).astype(np.float64)})

    monkeypatch.setattr(store, "Batch", rounded)
    found, *_ = check(home)
    assert found.differing > 0
    first = found.first[0]
    assert len(found.first) == parity.NAMED
    wanted, got = float(first.wanted), float(first.found)
    assert wanted != got == float(np.float32(wanted))
    assert first.feature in parity.sheet((found,)).notes[0]


@pytest.fixture
def compiled_anew():
    """Let no query of before stand for what a test changes, nor its own for what follows."""
    for compiled in (computing._compiled, plan._compiled):
        compiled.cache_clear()
    yield
    for compiled in (computing._compiled, plan._compiled):
        compiled.cache_clear()


@pytest.mark.usefixtures("compiled_anew")
def test_a_look_into_the_future_is_found_although_both_ways_take_it(company, tmp_path, monkeypatch):
    def leaking(table, time, at):
        return table.filter(table[time] < at.time)  # whatever becomes known later

    monkeypatch.setattr(known, "_known", leaking)
    online, live, future = check(brought(company, tmp_path))
    assert (online.differing, live.differing) == (0, 0)
    assert future.differing > 0


def test_a_second_definition_on_the_live_way_is_found(home, monkeypatch):
    true = parity.make_plan

    def other(*args, **kwargs):
        made = true(*args, **kwargs)
        return replace(made, sql=made.sql.replace("<= 28", "< 28"))

    monkeypatch.setattr(parity, "make_plan", other)
    found = parity.live_definition(home, rng=np.random.default_rng(2), progress=lambda *_: None)
    assert found.differing > 0
    assert all("28d" in one.feature or "pace" in one.feature for one in found.first)


def test_the_verb_says_what_it_found_by_its_exit_code(home, monkeypatch):
    asked = ["features", "check", "--home", str(home.root), "--points", "60"]
    fine = CliRunner().invoke(app, asked)
    assert (fine.exit_code, "offline = online" in fine.output) == (0, True)
    wrong = parity.Difference("m07", datetime(2017, 3, 1, tzinfo=UTC), "spend_28d", "1.0", "2.0")
    monkeypatch.setattr(parity, "check", lambda *_, **__: (parity.Compared("live = definition", 9, 3, 1, (wrong,)),))
    found = CliRunner().invoke(app, asked)
    assert found.exit_code == 1
    assert "m07 at 2017-03-01 00:00 UTC, spend_28d: 1.0 and 2.0" in " ".join(found.output.split())
    (told,) = json.loads(CliRunner().invoke(app, [*asked, "--json"]).output)
    assert (told["differing"], told["first"][0]["feature"]) == (1, "spend_28d")


@pytest.mark.parametrize("seed", range(3))
def test_another_future_differs_in_every_table_and_no_feature_sees_it(home, seed):
    rng = np.random.default_rng(seed)
    warehouse, as_of, programme = open_warehouse(home), built(home)[seed], Programme()
    with quietly():
        other = scrambled(warehouse, as_of, programme=programme, rng=rng)
        same = {name: warehouse.expression(name) for name in other}
        for name, table in other.items():
            assert table.count().execute() != same[name].count().execute()
        at = moment(as_of, programme)
        members = [of_members(tables, at=at, programme=programme).order_by("member_id") for tables in (same, other)]
        now, then = (among_these(one, at=at, programme=programme).to_pandas() for one in members)
    assert now.equals(then)


def test_missing_is_as_missing_and_zero_is_not_minus_zero():
    frame = pd.DataFrame(
        {"member_id": ["a", "b"], "as_of": pd.Timestamp("2017-01-01"), "x": [0.0, np.nan], "w": [None, "x"]}
    )
    same = parity.Compared("").at(frame, frame.assign(w=[np.nan, "x"]))
    assert (same.points, same.features, same.differing) == (2, 2, 0)
    assert parity.Compared("").at(frame, frame.assign(x=[-0.0, np.nan])).differing == 1
    assert parity.Compared("").at(frame, frame.iloc[:1]).differing == 1  # 'b' is not found: its word is missing
