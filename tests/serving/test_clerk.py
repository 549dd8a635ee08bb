"""Whether requests are decided together or one after the other, nobody can tell from what is decided."""

from dataclasses import replace
from itertools import count

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.decisions import DecisionLog, read_decisions
from features.home import Home
from serving.clerk import Ask, Clerk
from serving.contract import DecisionsRequest, ScoresRequest
from serving.decide import Decider
from serving.meters import Meters
from serving.offering import Offering
from serving.sources import Lookup
from serving.world import World

IDS = [*(f"m{n}" for n in range(12)), "m3no", "nobody", "infinite"]
asks = st.lists(
    st.builds(
        lambda ids, campaign_id, offers, scores: (
            ScoresRequest(members=tuple(ids), offers=offers)
            if scores
            else DecisionsRequest(
                members=tuple(ids), campaign_id=campaign_id, offers=offers, context={"till": len(ids)}
            )
        ),
        st.lists(st.sampled_from(IDS), min_size=1, max_size=4, unique=True),
        st.sampled_from([None, "spring", "summer"]),
        st.sampled_from([None, ("A",), ("B", "OLD")]),
        st.sampled_from([True, False, False, False]),
    ),
    min_size=1,
    max_size=12,
)


def unstocked(constrained):
    """The same limits but for stock, so that only campaigns with a budget are decided one by one."""
    catalogue = constrained.catalogue
    offers = tuple(replace(offer, stock=None) for offer in catalogue.offers)
    return Decider(constrained.release, replace(catalogue, offers=offers))


@pytest.fixture(scope="module")
def deciders(decider, constrained):
    return {"free": decider, "budget": unstocked(constrained), "stock": constrained}


@pytest.fixture(scope="module")
def serve(deciders, members, tmp_path_factory):
    """Serve requests by a decider, in groups that are given, and read what the log then holds."""
    folders = count()

    def serve(name, groups, seed):
        home = Home(tmp_path_factory.mktemp(f"log{next(folders)}"))
        ids, decider = count(), deciders[name]
        world = World(lambda: decider.programme.replay_from, lambda: f"{next(ids):06}", np.random.default_rng(seed))
        with DecisionLog(home.decisions) as log:
            offering = Offering(home, decider.release, log, now=world.clock())
            offering.succeed(replace(offering.read(decider.release, world.clock()), decider=decider))
            offering.follow(world.clock())
            clerk = Clerk(offering, Lookup(members, log), log, world=world, meters=Meters())
            served = {ask: one for group in groups for ask, one in clerk.serve(group)}
            stored = {ask: one.stored.result() for ask, one in served.items() if getattr(one, "stored", None)}
        return served, stored, read_decisions(home.decisions)

    return serve


def told(served, ask):
    """What an answer says but for the ids of its decisions."""
    return [replace(one, decision_id="") for one in served[ask].decisions] or served[ask].text


@pytest.mark.parametrize("name", ["free", "budget", "stock"])
@given(requests=asks, seed=st.integers(0, 2**32 - 1))
@settings(max_examples=25)
def test_together_requests_get_what_they_get_one_after_the_other(serve, name, requests, seed):
    waiting = [Ask(request) for request in requests]
    together, _, logged = serve(name, [waiting], seed)
    alone, _, _ = serve(name, [[ask] for ask in waiting], seed)
    for ask in waiting:
        assert told(together, ask) == told(alone, ask)
    assert {row["decision_id"] for row in logged} == {one.decision_id for a in waiting for one in together[a].decisions}


def test_what_may_run_out_is_never_overspent_by_a_group(serve, deciders):
    spring, summer = (
        [Ask(DecisionsRequest(members=(f"m{n}", f"x{n}"), campaign_id=name)) for n in range(400)]
        for name in ("spring", "summer")
    )
    for name, waiting in (("budget", spring), ("stock", spring), ("stock", summer)):
        _, _, rows = serve(name, [waiting], 1)
        sent = [row for row in rows if row["treatment"] != "control"]
        costs = [row["cost"][row["treatments"].index(row["treatment"]) - 1] for row in sent]
        assert sum(costs) <= deciders[name].campaign("spring").budget or waiting is summer
        assert sum(row["treatment"] == "A" for row in sent) <= 40 or name == "budget"
    assert sum(row["treatment"] == "A" for row in sent) == 40  # summer has money enough


def test_one_key_twice_in_a_group_is_decided_once(serve):
    request = DecisionsRequest(members=("m1", "m2"))
    first, second = (Ask(request, "digest", "key") for _ in range(2))
    served, stored, rows = serve("free", [[first, second]], 1)
    assert stored[first] == stored[second] == served[first].answer
    assert [row["decision_id"] for row in rows] == [one.decision_id for one in served[first].decisions]


def test_an_error_is_that_of_its_request_alone(serve, monkeypatch):
    reading = Lookup.file

    def fail(self, decider, member_ids, standing, **when):
        if "m7" in member_ids:
            raise ZeroDivisionError
        return reading(self, decider, member_ids, standing, **when)

    monkeypatch.setattr(Lookup, "file", fail)
    waiting = [Ask(DecisionsRequest(members=(f"m{n}",))) for n in range(9)]
    served, stored, rows = serve("free", [waiting], 1)
    assert isinstance(served.pop(waiting[7]), ZeroDivisionError)
    assert len(served) == len(stored) == len(rows) == 8
