"""Two services with homes of their own that decide as one: raced, killed, and cut off from their Postgres.

Callers turn to either service, and with the same key to the other one where they get no answer. At the end both homes
hold the same decisions, and the callers' own record is held against them.
"""

import asyncio
import os
import signal
import time
from contextlib import ExitStack, suppress

import numpy as np
import pytest

from features.decisions import read_decisions
from tests.chaos.client import Client, decide
from tests.chaos.conftest import LIMITS, SETTINGS, House
from tests.chaos.history import Diary, read_diaries, violations

CALLERS = 8
CAMPAIGN = "spring"


class Pair:
    """Two homes that share a key and a Postgres, and where their services are."""

    def __init__(self, template, root, address):
        self.houses = [House(template, root / name) for name in ("one", "other")]
        self.diaries, self.addresses = root / "diaries", ["", ""]
        self.diaries.mkdir()
        engine = f'[engine]\ndecisions = "{address}"\nagree = true\ndecisions_timeout_ms = 5000\n'
        for house in self.houses:
            (house.root / "holdfast.toml").unlink()
            (house.root / "holdfast.toml").write_text(SETTINGS + engine)
            (house.root / "privacy.key").write_bytes(bytes(32))

    def rows(self):
        """Give the decisions, once both have all."""
        until = time.monotonic() + 60
        while True:
            one, other = ({row["decision_id"]: row for row in read_decisions(house.log)} for house in self.houses)
            if one.keys() == other.keys():
                return list(one.values())
            assert time.monotonic() < until, (
                f"{len(one)} and {len(other)} decisions, of which {len(one | other)} differ"
            )

    def violations(self):
        return violations(read_diaries(self.diaries), self.rows(), LIMITS)


class Caller:
    """Ask about one group of members after the other."""

    def __init__(self, pair, number):
        self._pair, self._number, self._next = pair, number, 0
        self.diary = Diary(pair.diaries / f"{number}.jsonl")
        self._clients = {}
        self.times, self.refused = [], 0

    async def call(self, *, stays=False):
        """Make the next call, of either service in turn, or of the same one always."""
        number, self._next = self._next, self._next + 1
        members = [f"m{(number * 7 + self._number * 31 + place) % 400}" for place in range(1 + number % 3)]
        campaign = {"campaign_id": CAMPAIGN} if number % 2 else {}
        await self.until_answered(f"{self._number}-{number}", members, campaign, stays=stays)

    async def until_answered(self, key, members, fields, *, stays):
        """Ask until there is an answer: if one service gives none, the other, unless it is to stay with the first."""
        for turn in range(500):
            place = (self._number + (0 if stays else self._next + turn)) % 2
            started = time.perf_counter()
            answer = await self._ask(place, key, members, fields)
            if answer is not None and answer.status != 409:
                self.times.append(time.perf_counter() - started)
                self.refused += answer.status != 200
                return answer
            await asyncio.sleep(0.05)
        raise AssertionError("nobody answers")

    async def _ask(self, place, key, members, fields):
        address = self._pair.addresses[place]
        if not address:
            return None
        client = self._clients.setdefault(address, Client(address))
        return await decide(client, self.diary, key, members, **fields)

    def leave(self):
        for client in self._clients.values():
            client.close()
        self._clients.clear()


@pytest.fixture
def pair(template, tmp_path, postgres_server):
    yield Pair(template, tmp_path, postgres_server.address)
    postgres_server.run("DROP SCHEMA IF EXISTS holdfast_ledger CASCADE")


@pytest.fixture
def served(nursery, pair):
    """Both services, by place: what starts one gives its pid."""
    with ExitStack() as stack:

        def start(place):
            pid, pair.addresses[place] = stack.enter_context(nursery.service(pair.houses[place]))
            return pid

        yield start


def told(tell, what, count, pair, callers):
    """Note what was found, with how long answers took."""
    for caller in callers:
        caller.diary.close()
    found = pair.violations()
    times = np.concatenate([caller.times for caller in callers])
    found["refused"] = sum(caller.refused for caller in callers)
    note = f"{len(times):,} answers, p99 {1000 * np.quantile(times, 0.99):.0f} ms"
    tell(what, count, found.total(), f"{note}; {dict(+found)}" if found.total() else note)


def together(callers, *works):
    """Do everything at once, then let go of the connections, which belong to this loop."""

    async def all_of_it():
        try:
            return await asyncio.gather(*works)
        finally:
            for caller in callers:
                caller.leave()

    return asyncio.run(all_of_it())


async def some_calls(caller, calls, **how):
    for _ in range(calls):
        await caller.call(**how)


def test_sixty_four_callers_of_two_services_race_for_each_key(served, pair, effort, tell):
    keys, callers = effort(2, 200), [Caller(pair, number) for number in range(64)]
    for place in (0, 1):
        served(place)
    for key in range(keys):
        members, how = [f"m{key}", f"m{key + 400}"], {"campaign_id": CAMPAIGN}
        answers = together(callers, *(one.until_answered(f"race-{key}", members, how, stays=True) for one in callers))
        assert len({(answer.status, answer.body) for answer in answers}) == 1
    told(tell, "64-way races for one key at two instances", keys, pair, callers)


def test_kill_9_of_either_service_loses_nothing_and_doubles_nothing(served, pair, effort, tell):
    lives, rng = effort(2, 60), np.random.default_rng(12)
    callers = [Caller(pair, number) for number in range(CALLERS)]
    pids = [served(place) for place in (0, 1)]

    async def kill(place):
        await asyncio.sleep(float(rng.uniform(0.02, 0.3)))
        pair.addresses[place] = ""
        with suppress(ProcessLookupError):
            os.kill(pids[place], signal.SIGKILL)

    for number in range(lives):
        together(callers, kill(number % 2), *(some_calls(caller, 12) for caller in callers))
        pids[number % 2] = served(number % 2)
    told(tell, "kill -9 of one of two instances", lives, pair, callers)


def test_postgres_stopped_under_load_leaves_everybody_answered_and_no_limit_broken(
    served, pair, postgres_server, effort, tell
):
    outages, callers = effort(1, 12), [Caller(pair, number) for number in range(CALLERS)]
    for place in (0, 1):
        served(place)

    async def outage():
        await asyncio.sleep(0.1)
        await asyncio.to_thread(postgres_server.stop)
        await asyncio.sleep(effort(0.3, 3.0))
        await asyncio.to_thread(postgres_server.start)

    for _ in range(outages):
        together(callers, outage(), *(some_calls(caller, effort(30, 200), stays=True) for caller in callers))
        together(callers, *(some_calls(caller, 5, stays=True) for caller in callers))
    told(tell, "Postgres stopped under two instances", outages, pair, callers)
