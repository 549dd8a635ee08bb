"""Hostile inputs, most of them in the process of the service: no 500, no hang, no memory, not a word repeated."""

import asyncio
import json
import logging
import time
from collections import Counter
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import features.privacy.export  # noqa: F401 (it takes seconds where no store was opened before, as a service does)
from serving.app import create_app
from serving.keys import Keyring
from tests.chaos.hostile import CALLS, MARK, Hostile, hostile
from tests.serving.run_service import open_desk

PAGE = 4096
AT_ONCE = 16
HOST = {"host": "127.0.0.1:3000"}  # of this machine, or nothing would come past the door
FLAT = 40  # megabytes more than after the first tenth
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=20), inner, max_size=6),
    max_leaves=20,
)


@asynccontextmanager
async def running(release_root, log):
    keyring = Keyring(lambda: Path(log).with_name("keys.json"))
    app = create_app(
        lambda: open_desk(release_root, log), keyring=keyring, now=lambda: datetime(2026, 1, 1, tzinfo=UTC)
    )
    async with app.router.lifespan_context(app):
        yield app


async def answer(app, request):
    """Ask the application as a server would; give the status, the body and how long it took."""
    path, _, query = request.path.partition("?")
    body, said = [{"type": "http.request", "body": request.body, "more_body": False}], []
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": request.method, "scheme": "http",
        "path": unquote(path), "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
        "headers": [(name.encode(), value.encode("latin-1")) for name, value in (HOST | request.headers).items()],
        "client": ("127.0.0.1", 9), "server": ("127.0.0.1", 3000), "app": app, "state": {},
    }  # fmt: skip

    async def receive():
        return body.pop() if body else {"type": "http.disconnect"}

    async def send(message):
        said.append(message)

    started = time.perf_counter()
    await app(scope, receive, send)
    took = time.perf_counter() - started
    return said[0]["status"], b"".join(message.get("body", b"") for message in said[1:]), took


def judged(request, status, body, took, hang):
    """Say what is wrong with an answer."""
    if status >= 500 and b"problem:live" not in body:  # there is no store that posts could be brought into
        yield f"answer of {status}"
    if took > hang:
        yield "hang"
    if status >= 400 and MARK.encode() in body:
        yield "repeats what came"
    if status >= 400 and request.method != "HEAD" and json.loads(body)["status"] != status:
        yield "no problem document"


def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE // 2**20


async def bombard(app, requests, hang):
    """Send them, some at a time; give what went wrong, the answers by status, and the memory used on the way."""
    wrong, statuses, examples, memory = Counter(), Counter(), {}, []

    async def send():
        for request in requests:
            status, body, took = await answer(app, request)
            statuses[status] += 1
            for fault in judged(request, status, body, took, hang):
                wrong[fault] += 1
                examples.setdefault(fault, (request, status, body[:300], took))
            if statuses.total() % 1_000 == 0:
                memory.append(resident())

    await asyncio.gather(*(send() for _ in range(AT_ONCE)))
    return wrong, statuses, examples, memory


@pytest.fixture
def told(caplog):
    caplog.set_level(logging.DEBUG, logger="holdfast")
    return caplog


def test_a_flood_of_hostile_requests_is_answered_well(release_root, tmp_path, effort, tell, told, hang):  # noqa: PLR0917
    rng, count = np.random.default_rng(17), effort(1_500, 1_000_000)
    source = hostile(rng)

    async def flood():
        async with running(release_root, tmp_path / "decisions.db") as app:
            return await bombard(app, (next(source) for _ in range(count)), hang)

    started = time.monotonic()
    wrong, statuses, examples, memory = asyncio.run(flood())
    rate = count / (time.monotonic() - started)
    assert not wrong, examples
    assert {200, 400, 404, 405, 415, 422} <= set(statuses)
    assert MARK not in told.text
    grown = memory[-1] - memory[len(memory) // 10]
    assert grown < FLAT
    note = f"in process, {rate:,.0f} a second, memory {grown:+d} MB; {dict(sorted(statuses.items()))}"
    tell("hostile requests: values, texts, bytes, headers", count, wrong.total(), note)


def test_bodies_that_hypothesis_makes_up(release_root, tmp_path, effort, tell, hang):
    wrong, seen = Counter(), Counter()

    with asyncio.Runner() as runner:
        context = running(release_root, tmp_path / "decisions.db")
        app = runner.run(context.__aenter__())

        @settings(
            max_examples=effort(150, 8_000), database=None, derandomize=True,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(st.sampled_from(list(CALLS)), st.data())
        def ask(path, data):
            method, valid = CALLS[path]
            body = dict(valid) | data.draw(st.dictionaries(st.sampled_from([*valid, "x"]), JSON, max_size=3))
            request = Hostile(method, path, json.dumps(body).encode())
            status, said, took = runner.run(answer(app, request))
            seen[status] += 1
            wrong.update(judged(request, status, said, took, hang))

        ask()
        runner.run(context.__aexit__(None, None, None))
    tell("hostile requests: hypothesis", seen.total(), wrong.total(), str(dict(seen)))
