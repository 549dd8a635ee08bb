"""A desk that decides from one home, and releases that may decide beside it."""

import asyncio
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import numpy as np
import pytest

from features.decisions import DecisionLog
from features.live import Live
from features.programme import Serving
from features.shadow import ShadowFile
from serving.app import create_app
from serving.desk import Desk
from serving.keys import Keyring
from serving.offering import Offering
from serving.world import World
from training.artifacts import open_release
from training.releases.shadow import begin_shadow

NOW = datetime(2017, 12, 1, 12, tzinfo=UTC)


class Callers:
    """Ask a desk, one request after the other or all at once."""

    def __init__(self, app, desk):
        self.desk = desk
        self.client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1")

    def ask(self, *bodies):
        async def all_of_them():
            return [await self.client.post("/v1/decisions", json=body) for body in bodies]

        return asyncio.run(all_of_them())

    def ask_together(self, *bodies):
        async def all_of_them():
            return await asyncio.gather(*(self.client.post("/v1/decisions", json=body) for body in bodies))

        return asyncio.run(all_of_them())

    def get(self, path):
        return asyncio.run(self.client.get(path)).json()


@pytest.fixture
def asked(home, members, release_root):
    """Serve the champion from a home in this process."""

    @contextmanager
    def asked(shadow=None):
        world = World(lambda: NOW, iter(map(str, range(100_000))).__next__, np.random.default_rng(1))
        log = DecisionLog(home.decisions)
        offering = Offering(home, open_release(home.releases, release_root.name), log, now=NOW)
        live, settings = Live(home, members), Serving(deadline_ms=10_000)
        desk = Desk(offering, members, log, live=live, world=world, settings=settings, shadow=shadow)
        app = create_app(lambda: desk, keyring=Keyring(lambda: home.keys), now=world.clock)
        app.state.desk = desk
        try:
            yield Callers(app, desk)
        finally:
            desk.close()

    return asked


@pytest.fixture
def begin(home):
    """Let a release be the shadow."""
    return lambda release_id: begin_shadow(home, release_id, who="test", now=NOW)


@pytest.fixture
def rows_of(home):
    """Read what a release would have decided."""

    def rows_of(release_id):
        with ShadowFile(home.shadow) as file:
            return file.of_shadow(release_id)

    return rows_of
