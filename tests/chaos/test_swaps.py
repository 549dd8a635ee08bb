"""Releases that are swapped under load: every request is answered, and no decision is of two releases."""

import asyncio
import shutil
from contextlib import aclosing

from features.home import Home
from tests.chaos.client import Client
from tests.chaos.test_restarts import Shop
from tests.serving.conftest import other_root as other_root  # noqa: PLC0414 (a fixture)
from tests.serving.conftest import promoted as promoted  # noqa: PLC0414 (a fixture)


async def _serving(address):
    """Say again and again which release serves."""
    client = Client(address)
    try:
        while True:
            yield (await client.ask("GET", "/v1/release")).json()["release_id"]
            await asyncio.sleep(0.02)
    finally:
        client.close()


def test_swaps_under_load(nursery, house, release_root, other_root, promoted, effort, tell):  # noqa: PLR0917
    home, swaps = Home(house.root), effort(2, 200)
    for root in (release_root, other_root):
        shutil.copytree(root, home.releases / root.name)
    promoted(home, release_root.name)

    async def swap():
        for number in range(swaps):
            wanted = (other_root, release_root)[number % 2].name
            await asyncio.get_running_loop().run_in_executor(None, promoted, home, wanted)
            async with asyncio.timeout(60), aclosing(_serving(address)) as serving:
                async for release_id in serving:
                    if release_id == wanted:
                        break

    with nursery.service(house) as (_, address):
        shop = Shop(house, [address])
        asyncio.run(shop.while_open(swap))
    found, statuses = house.violations(), shop.statuses
    found["not answered"] = statuses.total() - statuses[200]
    tell("hot swaps under load", swaps, found.total(), f"{dict(statuses)}; {dict(+found) or ''}")
