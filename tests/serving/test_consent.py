"""An opt-out counts from when it is on the disk: no feature is read after, whatever races it."""

import os
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from features.decisions import DecisionLog, Preference, SharedLog
from features.log.standing import nobody_contacted
from serving.barrier import Barrier
from serving.sources import Lookup

RACES = int(os.environ.get("HOLDFAST_OPT_OUTS", "2000"))  # 100,000 in the long form


class Noted:
    """A feature source that notes, before and after each read, for whom; each list says in what order."""

    def __init__(self, members, events):
        self._members, self._events = members, events

    def online(self, member_ids, features, *, facts):
        found = self._members.online(member_ids, features, facts=facts)
        self._events.append(("read", tuple(member_ids)))
        return found


class Away:
    def opted_out(self, member_ids):
        raise ConnectionError(f"nobody answers about {member_ids}")


@pytest.fixture
def log(tmp_path):
    with DecisionLog(tmp_path / "decisions.db") as log:
        yield log


def look_up(lookup, decider, *member_ids):
    standing, now = nobody_contacted(len(member_ids), len(decider.release.offer_ids)), decider.programme.replay_from
    return lookup.file(decider, member_ids, standing, now=now, seconds=60.0)


def test_no_feature_is_read_after_an_opt_out_is_on_the_disk(decider, members, log):
    now, events = decider.programme.replay_from, []
    lookup = Lookup(Noted(members, events), log)

    def race(number):
        member_id, together = f"m{number}", threading.Barrier(2)

        def opt_out():
            together.wait()
            with lookup.withdrawing(member_id):
                log.prefer(Preference(member_id, personalisation=False), now=now).result()
                events.append(("stored", member_id))

        def decide():
            together.wait()
            for _ in range(3):
                look_up(lookup, decider, member_id)
            return look_up(lookup, decider, member_id).members.opted_out[0]

        with ThreadPoolExecutor(2) as pool:
            deciding, storing = pool.submit(decide), pool.submit(opt_out)
            storing.result()
            deciding.result()
        assert look_up(lookup, decider, member_id).members.opted_out[0]

    for number in range(RACES):
        race(number)
    stored_at = {name: place for place, (kind, name) in enumerate(events) if kind == "stored"}
    late = [names for place, (kind, names) in enumerate(events) if kind == "read" and place > stored_at[names[0]]]
    assert len(stored_at) == RACES
    assert late == []


class Held:
    """A source that reads when it is let go."""

    def __init__(self, members, events):
        self._noted, self.asked, self.go = Noted(members, events), threading.Event(), threading.Event()

    def online(self, member_ids, features, *, facts):
        self.asked.set()
        self.go.wait(10)
        return self._noted.online(member_ids, features, facts=facts)


def test_an_opt_out_waits_for_what_another_worker_had_begun(decider, members, tmp_path):
    now, events, path = decider.programme.replay_from, [], tmp_path / "decisions.db"
    held = Held(members, events)
    with SharedLog(path) as first, SharedLog(path) as second, ThreadPoolExecutor(2) as pool:
        mine = Lookup(Noted(members, events), first, barrier=Barrier(tmp_path / "lock"))
        other = Lookup(held, second, barrier=Barrier(tmp_path / "lock"))

        def opt_out():
            with mine.withdrawing("m1"):
                first.prefer(Preference("m1", personalisation=False), now=now).result()
                stored.set()
            events.append("answered")

        stored = threading.Event()
        looking = pool.submit(look_up, other, decider, "m1")
        held.asked.wait(10)
        withdrawing = pool.submit(opt_out)
        assert stored.wait(10)
        assert events == []
        held.go.set()
        looking.result()
        withdrawing.result()
        assert look_up(other, decider, "m1").members.opted_out.all()
        mine.close()
        other.close()
    assert events == [("read", ("m1",)), "answered"]


def test_of_several_only_who_opted_out_is_not_read_and_each_stays_in_place(decider, members, log):
    events = []
    lookup = Lookup(Noted(members, events), log)
    everybody = look_up(lookup, decider, "m1", "m2", "m3")
    log.prefer(Preference("m2", personalisation=False), now=decider.programme.replay_from).result()
    file = look_up(lookup, decider, "m1", "m2", "m3")
    assert events[-1] == ("read", ("m1", "m3"))
    assert file.members.opted_out.tolist() == [False, True, False]
    assert np.isnan(file.members.X[1]).all()
    np.testing.assert_array_equal(file.members.X[[0, 2]], everybody.members.X[[0, 2]])
    assert file.segment == ("loyal", None, "loyal")
    assert file.reasons[::2] == everybody.reasons[::2]


def test_who_can_not_be_asked_about_is_taken_to_have_opted_out(decider, members):
    events = []
    file = look_up(Lookup(Noted(members, events), Away()), decider, "m1", "m2")
    assert file.members.opted_out.all()
    assert events == []


def test_a_preference_outlives_the_process_and_may_be_taken_back(log, tmp_path, decider):
    now = decider.programme.replay_from
    assert log.prefer(Preference("m1", personalisation=False), now=now).result()
    assert not log.prefer(Preference("m1", personalisation=False), now=now).result()  # it stood already
    log.close()
    with SharedLog(tmp_path / "decisions.db") as keeper, SharedLog(tmp_path / "decisions.db") as visitor:
        assert visitor.opted_out(["m1", "m2"]) == [True, False]
        assert visitor.prefer(Preference("m1", personalisation=True), now=now).result()
        assert keeper.opted_out(["m1"]) == [False]


def test_over_http_the_next_decision_heeds_it(service):
    wanted = service.put("/v1/members/m%C3%BC/preferences", json={"personalisation": False})
    assert (wanted.status_code, wanted.json()) == (200, {"personalisation": False})
    assert service.put("/v1/members/m%C3%BC/preferences", json={"personalisation": False}).content == wanted.content
    decided = service.post("/v1/decisions", json={"members": ["mü", "m1"]}).json()["decisions"]
    assert (decided[0]["outcome"], decided[0]["treatment"], decided[0]["propensity"]) == ("opt_out", "control", 1.0)
    assert decided[0]["churn_probability"] is None
    assert decided[0]["segment"] is None
    assert decided[1]["outcome"] != "opt_out"
    assert service.put("/v1/members/m%C3%BC/preferences", json={"personalisation": True}).status_code == 200
    assert service.post("/v1/decisions", json={"members": ["mü"]}).json()["decisions"][0]["outcome"] != "opt_out"


@pytest.mark.parametrize(
    "body", [b'{"personalisation": "no"}', b"{}", b'{"personalisation": false, "more": 1}', b'{"personalisation": 0}']
)
def test_a_preference_is_read_strictly(service, body):
    refused = service.put("/v1/members/m1/preferences", content=body, headers={"Content-Type": "application/json"})
    assert refused.status_code == 422
    assert refused.headers["content-type"] == "application/problem+json"


def test_killed_right_after_the_answer_the_opt_out_stands(start, tmp_path):
    log = tmp_path / "decisions.db"
    with start(log) as (process, address), httpx.Client(base_url=address, timeout=10) as client:
        assert client.put("/v1/members/m7/preferences", json={"personalisation": False}).status_code == 200
        process.kill()
        process.wait()
    with DecisionLog(log) as again:
        assert again.opted_out(["m7"]) == [True]
