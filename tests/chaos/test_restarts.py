"""Services that take turns, are told to stop, or are killed while others go on: nothing lost, nothing doubled."""

import asyncio
import os
import signal
from collections import Counter

from tests.chaos.client import Client, decide
from tests.chaos.history import Diary

CLIENTS = 4


class Shop:
    """Ask without end at whatever address is the right one now; what fails is asked again under the same key."""

    def __init__(self, house, addresses):
        self.addresses, self.stopped, self.statuses = addresses, False, Counter()
        self._house = house

    async def ask(self, number):
        diary, call = Diary(self._house.diaries / f"{number}.jsonl"), 0
        while not self.stopped:
            client = Client(self.addresses[(number + call) % len(self.addresses)])
            members = [f"m{(call * 3 + number * 211 + place) % 3000}" for place in range(1 + call % 3)]
            campaign = {"campaign_id": "spring"} if call % 2 else {}
            answer = await decide(client, diary, f"{number}-{call}", members, **campaign)
            client.close()
            self.statuses[answer.status if answer else "no answer"] += 1
            call += answer is not None and answer.status == 200
            if call % 20 == 0:
                await asyncio.sleep(0)
        diary.close()

    async def while_open(self, work):
        """Ask while something is done to the services."""
        asking = [asyncio.create_task(self.ask(number)) for number in range(CLIENTS)]
        try:
            await work()
        finally:
            self.stopped = True
            await asyncio.gather(*asking)
            await asyncio.sleep(0.01)  # the loop closes what was closed


async def _gone(pid):
    """Wait for a process to end, as far as its children's parent sees: it is no more than a zombie."""
    while True:
        try:
            with open(f"/proc/{pid}/stat") as file:  # noqa: ASYNC230, PTH123 (a file of the kernel)
                if file.read().rsplit(")", 1)[1].split()[0] == "Z":
                    return
        except FileNotFoundError:
            return
        await asyncio.sleep(0.005)


def test_rolling_restarts_under_load(nursery, house, effort, tell):
    """The next one starts beside the one that serves, takes over, and the old one is told to stop."""
    rounds, addresses = effort(3, 50), []
    shop = Shop(house, addresses)

    async def roll():
        for _ in range(rounds):
            successor = nursery.service(house)
            pid, address = await _begun(successor)
            addresses.append(address)
            await asyncio.sleep(0.1)
            del addresses[0]
            await asyncio.sleep(0.05)  # for those who are on their way to the old one
            old, born = services[-1]
            services.append((successor, pid))
            os.kill(born, signal.SIGTERM)
            await asyncio.wait_for(_gone(born), 20)
            await _ended(old)

    async def all_day():
        first = nursery.service(house)
        pid, address = await _begun(first)
        services.append((first, pid))
        addresses.append(address)
        await shop.while_open(roll)
        await _ended(services[-1][0])

    services = []
    asyncio.run(all_day())
    found, statuses = house.violations(), shop.statuses
    found["not answered"] = statuses.total() - statuses[200]
    tell("rolling restarts under load", rounds, found.total(), f"{dict(statuses)}; {dict(+found) or ''}")


async def _begun(service):
    return await asyncio.get_running_loop().run_in_executor(None, service.__enter__)


async def _ended(service):
    await asyncio.get_running_loop().run_in_executor(None, service.__exit__, None, None, None)


def test_the_keeper_of_the_log_is_killed_and_the_others_go_on(nursery, house, effort, tell):
    """Two services, one log: kill -9 of the one that keeps it, again and again; the other keeps it from then on."""
    rounds, addresses = effort(4, 60), []
    shop = Shop(house, addresses)

    async def kill_keepers():
        for _ in range(rounds):
            visitor = nursery.service(house)
            pid, address = await _begun(visitor)
            addresses.append(address)
            await asyncio.sleep(0.15)
            keeper, born = services[-1]
            services.append((visitor, pid))
            os.kill(born, signal.SIGKILL)
            del addresses[0]
            await _ended(keeper)
            await asyncio.sleep(0.1)

    async def all_day():
        first = nursery.service(house)
        pid, address = await _begun(first)
        services.append((first, pid))
        addresses.append(address)
        await shop.while_open(kill_keepers)
        await _ended(services[-1][0])

    services = []
    asyncio.run(all_day())
    found, statuses = house.violations(), shop.statuses
    found["500"] = statuses[500]
    tell("kill -9 of the log's keeper beside another", rounds, found.total(), f"{dict(statuses)}; {dict(+found) or ''}")


def test_sigterm_under_load_ends_well(nursery, house, effort, tell):
    times, wrong, statuses = effort(2, 30), Counter(), Counter()
    for number in range(times):
        with nursery.service(house) as (pid, address):
            shop = Shop(house, [address])

            async def stop(pid=pid, shop=shop):
                await asyncio.sleep(0.15)
                os.kill(pid, signal.SIGTERM)
                await asyncio.wait_for(_gone(pid), 20)
                shop.stopped = True

            shop.ask = _until_refused(shop, number)
            asyncio.run(shop.while_open(stop))
            statuses += shop.statuses
    wrong += house.violations()
    wrong["complaints"] = len(house.errors.read_text().splitlines())
    tell("SIGTERM under load", times, wrong.total(), f"{dict(statuses)}; {dict(+wrong) or ''}")


def _until_refused(shop, life):
    async def ask(number):
        client, diary = Client(shop.addresses[0]), Diary(shop._house.diaries / f"{life}-{number}.jsonl")
        call = 0
        while not shop.stopped:
            answer = await decide(client, diary, f"{life}-{number}-{call}", [f"m{(life * 50 + call) % 900}"])
            if answer is None:
                break
            shop.statuses[answer.status] += 1
            call += 1
        client.close()
        diary.close()

    return ask


def test_64_race_for_one_key(nursery, house, effort, tell):
    """Over two services on one log: one decides, all others get its bytes or are told to come back."""
    rounds, found, statuses = effort(3, 60), Counter(), Counter()

    async def race(addresses, number):
        diaries = [Diary(house.diaries / f"{number}-{place}.jsonl") for place in range(64)]
        clients = [Client(addresses[place % len(addresses)]) for place in range(64)]
        members = [f"m{number * 10 + place}" for place in range(10)]
        calls = (
            decide(client, diary, f"race{number}", members, campaign_id="spring")
            for client, diary in zip(clients, diaries, strict=True)
        )
        answers = await asyncio.gather(*calls)
        for one in (*clients, *diaries):
            one.close()
        return Counter(answer.status if answer else "no answer" for answer in answers)

    with nursery.service(house) as (_, first), nursery.service(house) as (_, second):
        for number in range(rounds):
            said = asyncio.run(race([first, second], number))
            found["nobody decided"] += said[200] == 0
            statuses += said
    found += house.violations()
    found["other answers"] = statuses.total() - statuses[200] - statuses[409]
    tell("64-way races for one key over two services", rounds, found.total(), f"{dict(statuses)}; {dict(+found) or ''}")
