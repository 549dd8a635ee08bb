"""Whatever fails behind, every member gets an answer in time, from the highest rung there is; replayed exactly."""

import threading
import time
from datetime import timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from xgboost.core import XGBoostError

from features.as_of.plan import _FILE
from features.decisions import DecisionLog, read_decisions
from features.files import write_json
from features.home import Home
from features.programme import Serving
from serving.clerk import Ask, Clerk
from serving.contract import DecisionsRequest
from serving.meters import Meters
from serving.offering import Offering
from serving.replay import replay
from serving.sources import Lookup
from serving.standby import Standbys, open_standby
from serving.world import World

MEMBERS = [f"m{n}" for n in range(200)]


class Source:
    """Members in memory, whose store can be down, hang, or know only what is old."""

    def __init__(self, members):
        self.members, self.down, self.old, self.reads = members, False, False, 0
        self.go = threading.Event()
        self.go.set()

    def online(self, member_ids, features, *, facts):
        self.reads += 1
        assert self.go.wait(timeout=10)
        if self.down:
            raise ConnectionError
        found = self.members.online(member_ids, features, facts=facts)
        if self.old:
            stale = [time and time - timedelta(days=99) for time in found.event_timestamp]
            vars(found)["event_timestamp"] = tuple(stale)
        return found


@pytest.fixture
def home(tmp_path, release_root, decider, members):
    """A home with a snapshot of m0 to m199, of whom m7 opted out, that is said to be online."""
    home = Home(tmp_path)
    home.releases.symlink_to(release_root.parent)
    names = decider.release.feature_names
    found = members.online(MEMBERS, names, facts=decider.facts)
    as_of = decider.programme.replay_from - timedelta(days=3)
    columns = dict(zip(names, found.X.T.astype(np.float64), strict=True))
    words = {"segment": found.segment, "lifecycle_stage": found.lifecycle_stage}
    consent = ["no" if name == "m7" else "yes" for name in MEMBERS]
    home.snapshot(as_of).parent.mkdir(parents=True)
    pq.write_table(
        pa.table({"member_id": MEMBERS, **columns, **words, "personalisation": consent}), home.snapshot(as_of)
    )
    plan = {"sql": "", "columns": {}, "schema": {"numbers": [], "words": []}, "timezone": "UTC", "audience": ""}
    home.live.mkdir()
    write_json(home.live / _FILE, plan | {"as_of": as_of.isoformat()})
    return home


@pytest.fixture
def source(members):
    return Source(members)


@pytest.fixture
def serve(home, decider, source):
    """Serve one request, by a release whose standby is there."""
    log = DecisionLog(home.decisions)
    standbys = Standbys(home)
    standbys.make(decider.release)
    lookup = Lookup(source, log, standbys=standbys, settings=Serving(feature_days=28))
    ids = iter(range(10**6))
    world = World(lambda: decider.programme.replay_from, lambda: str(next(ids)), np.random.default_rng(1))
    clerk = Clerk(Offering(home, decider.release, log, now=world.clock()), lookup, log, world=world, meters=Meters())

    def serve(*member_ids, seconds=60.0):
        ask = Ask(DecisionsRequest(members=member_ids), due=time.monotonic() + seconds)
        ((_, served),) = clerk.serve([ask])
        served.stored.result()
        return served.decisions

    yield serve
    lookup.close()
    log.close()


def replays(home):
    return [one.differing for one in replay(home, read_decisions(home.decisions))]


def test_when_the_store_is_down_the_last_scores_decide(serve, source, home):
    asked = [*MEMBERS[:40], "nobody"]
    fine = serve(*asked)
    source.down = True
    down = serve(*asked)
    for before, after in zip(fine, down, strict=True):
        assert after.fallback_reason == "features_unavailable"
        if before.member_id in {"m7", "nobody"}:
            continue
        assert (after.source, after.outcome, after.reasons) == ("last_score", "fallback", ())
        assert after.probabilities == before.probabilities  # the snapshot's features are the store's
        assert after.treatments == before.treatments
        assert (after.segment, after.event_timestamp) == ("loyal", before.event_timestamp - timedelta(days=1))
    assert (down[-1].source, down[-1].treatment, down[-1].churn_probability) == ("nothing", "control", None)
    assert set(replays(home)) == {()}


def test_who_opted_out_by_the_snapshot_stays_so_when_the_store_is_down(serve, source, home):
    source.down = True
    (one,) = serve("m7")
    assert (one.outcome, one.treatment, one.churn_probability, one.scores) == ("opt_out", "control", None, b"")
    assert set(replays(home)) == {()}


def test_who_was_not_scored_last_gets_the_mean_of_the_segment(serve, source, decider, home):
    source.old = True
    known, stranger = serve("m1", "m999")
    assert [one.fallback_reason for one in (known, stranger)] == ["features_too_old"] * 2
    assert [one.source for one in (known, stranger)] == ["last_score", "segment_default"]
    standby = open_standby(home, decider.release)
    willing = np.isfinite(standby.scores).all(axis=1)
    assert willing.sum() == len(MEMBERS) - 1
    assert stranger.churn_probability == pytest.approx(standby.scores[willing, 0].mean())
    assert set(replays(home)) == {()}


def test_a_model_that_fails_is_stood_in_for(serve, decider, monkeypatch, home):
    def fail(*_):
        raise XGBoostError

    fine = serve("m1", "m2")
    monkeypatch.setattr(type(decider.release), "score", fail)
    failed = serve("m1", "m2", "m999")
    monkeypatch.undo()
    assert [one.fallback_reason for one in failed] == ["model_unavailable"] * 3
    assert [one.source for one in failed] == ["last_score", "last_score", "segment_default"]
    assert [one.churn_probability for one in failed[:2]] == [one.churn_probability for one in fine]
    assert set(replays(home)) == {()}


def test_a_store_that_hangs_is_waited_for_no_longer_than_the_deadline_and_then_not_asked(serve, source, home):
    source.go.clear()
    reasons = [serve("m1", seconds=0.02)[0].fallback_reason for _ in range(20)]
    assert reasons == ["features_late"] * 3 + ["features_unavailable"] * 17
    assert source.reads == 3
    source.go.set()
    assert set(replays(home)) == {()}


def test_no_time_left_is_nobody_s_fault(serve, source):
    for _ in range(9):
        assert serve("m1", seconds=0.0)[0].fallback_reason == "features_late"
    assert source.reads == 0
    assert serve("m1")[0].fallback_reason is None


def test_a_standby_is_read_back_as_it_was_written_and_only_the_newest_is_kept(home, decider):
    first = open_standby(home, decider.release)
    again = open_standby(home, decider.release)
    np.testing.assert_array_equal(first.scores, again.scores)
    assert (np.diff(first.keys.astype(object)) > 0).all()
    assert len(list(home.live.glob("standby-*"))) == 1
