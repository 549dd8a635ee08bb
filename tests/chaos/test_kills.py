"""`kill -9` at any moment and at named ones: after every restart what was promised stands, and goes on standing."""

import asyncio
import os
import signal
from collections import Counter
from contextlib import suppress

import numpy as np
import pytest

from tests.chaos.client import Client, decide
from tests.chaos.history import Diary
from tests.chaos.nursery import POINTS

CLIENTS = 4
AGAIN = 10  # answers that are asked for once more at the end
LIVES = 25  # of one home, before its budget, stock and members are used up and nothing more can go wrong


class Shopper:
    """Ask about one group of members after the other, and again whatever was left without an answer."""

    def __init__(self, house, number):
        self.diary = Diary(house.diaries / f"{number}.jsonl")
        self._number, self._next, self._pending = number, 0, False

    async def ask_until_it_dies(self, address):
        client, done = Client(address), 0
        while True:
            self._pending = True
            if await self._ask(client, self._next) is None:
                return done
            self._pending, self._next, done = False, self._next + 1, done + 1

    async def ask_again(self, address):
        """Ask for what has no answer, and for some of what was answered."""
        client = Client(address)
        for call in range(max(0, self._next - AGAIN), self._next + self._pending):
            answer = await self._ask(client, call)
            assert answer.status == 200, answer
        client.close()

    async def _ask(self, client, call):
        members = [f"m{(call * 7 + self._number * 211 + place) % 900}" for place in range(1 + call % 3)]
        campaign = {"campaign_id": "spring"} if call % 2 else {}
        return await decide(client, self.diary, f"{self._number}-{call}", members, **campaign)


async def until_killed(shoppers, address, pid, seconds):
    async def kill():
        await asyncio.sleep(seconds)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    killing = asyncio.create_task(kill())
    answered = sum(await asyncio.gather(*(shopper.ask_until_it_dies(address) for shopper in shoppers)))
    killing.cancel()
    return answered


async def all_again(shoppers, address):
    await asyncio.gather(*(shopper.ask_again(address) for shopper in shoppers))


def lives(nursery, house, orders):
    """Live and die as ordered, one life after the other in one home, then once more in peace; count the answers."""
    shoppers, answered = [Shopper(house, number) for number in range(CLIENTS)], 0
    for seconds, order in orders:
        with nursery.service(house, **order) as (pid, address):
            if address:  # it may have been killed while it opened the log
                answered += asyncio.run(until_killed(shoppers, address, pid, seconds))
    with nursery.service(house) as (_, address):
        asyncio.run(all_again(shoppers, address))
    for shopper in shoppers:
        shopper.diary.close()
    return answered


def test_kill_9_at_random_loses_nothing_and_doubles_nothing(nursery, houses, effort, tell):
    rng, found, answered = np.random.default_rng(11), Counter(), 0
    homes, each = effort((1, 8), (20, LIVES))
    for number in range(homes):
        house = houses(number)
        answered += lives(nursery, house, [(float(seconds), {}) for seconds in rng.exponential(0.04, each)])
        found += house.violations()
    assert answered > homes * each  # it lived long enough to have something to lose
    tell("kill -9 at random, then restart", homes * each, found.total(), f"{answered:,} answers; {dict(found) or ''}")


def test_kill_9_at_named_points(nursery, houses, effort, tell):
    found, answered, times = Counter(), 0, effort((2,), range(1, 26))
    for n in times:
        house = houses(n)
        answered += lives(nursery, house, [(1.0, {"point": point, "after": n}) for point in POINTS])
        found += house.violations()
    note = f"{answered:,} answers; {dict(found) or ''}"
    tell(f"kill -9 at {len(POINTS)} named points", len(POINTS) * len(times), found.total(), note)


@pytest.mark.parametrize("kind", ["kill before", "kill after"])
def test_kill_9_at_each_write_and_flush_of_the_disk(nursery, control, houses, effort, tell, kind):  # noqa: PLR0917
    found, answered, places = Counter(), 0, effort((7, 30), range(1, 151))
    for number, first in enumerate(range(0, len(places), LIVES)):
        house = houses(number)
        answered += lives(nursery, house, _struck(control, places[first : first + LIVES], kind))
        found += house.violations()
    tell(f"kill -9, {kind[5:]} the n-th write or flush", len(places), found.total(), f"{answered:,} answers")


def _struck(control, places, kind):
    for nth in places:
        control.arm(nth, kind)
        yield 2.0, {"shim": str(control.path)}
    control.arm(0, kind)
