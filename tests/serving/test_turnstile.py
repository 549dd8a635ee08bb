"""Who comes when there is no room is told so at once, on a connection that stays of use; nobody else notices."""

import asyncio
import json
from functools import partial
from types import SimpleNamespace

import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from serving import protocol
from serving.desk import Desk
from serving.gate import Gate, busy
from serving.meters import Meters
from serving.protocol import Protocol
from serving.turnstile import Turnstile

HEAD = b"POST /v1/decisions HTTP/1.1\r\nHost: localhost\r\nX-Request-Id: 0123456789abcdef\r\nContent-Length: %d\r\n\r\n"
GET = b"GET /v1/decisions HTTP/1.1\r\nHost: localhost\r\n\r\n"


async def echo(scope, receive, send):
    """Say how much came."""
    size, more = 0, True
    while more:
        message = await receive()
        size, more = size + len(message["body"]), message["more_body"]
    body = json.dumps([scope["method"], size]).encode()
    head = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]}
    await send(head)
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def full(monkeypatch):
    """An application whose gate has no room, and which seems to have a desk."""
    monkeypatch.setattr(protocol, "PAUSE_SECONDS", 0.01)
    app, gate = FastAPI(), Gate(1)
    gate.enter()
    desk = object.__new__(Desk)
    vars(desk).update(gate=gate, meters=Meters())
    app.state.desk, app.state.closing = desk, False
    return SimpleNamespace(app=app, gate=gate, desk=desk)


def talk(full, conversation):
    """Serve, and hold a conversation over one connection."""

    async def held():
        config = uvicorn.Config(echo, http=partial(Protocol, turn_away=Turnstile(full.app)), log_config=None)
        config.load()
        state, loop = ServerState(), asyncio.get_running_loop()
        server = await loop.create_server(lambda: config.http_protocol_class(config, state, {}), "127.0.0.1", 0)
        async with server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            async with asyncio.timeout(20):
                await conversation(reader, writer)
            writer.close()
            await writer.wait_closed()

    asyncio.run(held())


async def answer(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    status, *lines = head.strip().split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines)
    return int(status.split()[1]), headers, json.loads(await reader.readexactly(int(headers["content-length"])))


def test_it_is_told_before_its_body_came_and_its_connection_goes_on(full):
    async def conversation(reader, writer):
        writer.write(HEAD % 40_000)
        status, headers, body = await answer(reader)
        assert (status, headers["retry-after"], headers["x-request-id"]) == (429, "1", "0123456789abcdef")
        assert body == json.loads(busy().response().body)
        writer.write(b"x" * 40_000 + HEAD % 5 + b"again")  # more than a head may have
        assert (await answer(reader))[0] == 429
        full.gate.leave()
        writer.write(HEAD % 3 + b"yes")
        status, headers, body = await answer(reader)
        assert (status, body) == (200, ["POST", 3])

    # Feast makes the library keep its counts in files, by process: a test before this one may have counted too
    refused = full.desk.meters._requests("/v1/decisions", 429)._value
    before = refused.get()
    talk(full, conversation)
    assert refused.get() - before == 2


def test_other_calls_go_in(full):
    async def conversation(reader, writer):
        writer.write(GET)
        assert (await answer(reader))[2] == ["GET", 0]
        writer.write((HEAD % 0).replace(b"/v1/decisions", b"/v1/outcomes"))
        assert (await answer(reader))[2] == ["POST", 0]
        full.app.state.closing = True  # what ends connections says so itself
        writer.write(HEAD % 0)
        assert (await answer(reader))[0] == 200

    talk(full, conversation)


def test_one_that_wants_no_more_is_let_go_of(full):
    async def conversation(reader, writer):
        writer.write((HEAD % 0).replace(b"Host", b"Connection: close\r\nHost"))
        assert (await answer(reader))[0] == 429
        assert await reader.read() == b""

    talk(full, conversation)


def test_a_body_that_never_comes_is_not_waited_for(full, monkeypatch):
    monkeypatch.setattr(protocol, "BODY_SECONDS", 0.01)

    async def conversation(reader, writer):
        writer.write(HEAD % 5)
        assert (await answer(reader))[0] == 429
        assert await reader.read() == b""

    talk(full, conversation)


def test_the_prepared_answer_is_what_the_gate_says(full):
    said = Turnstile(full.app)(b"POST", b"/v1/scores", [])
    head, _, body = said.partition(b"\r\n\r\n")
    response = busy().response()
    assert body == response.body
    assert head.startswith(b"HTTP/1.1 429 Too Many Requests\r\n")
    for name, value in response.raw_headers:
        assert name + b": " + value in head
