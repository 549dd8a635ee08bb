"""A body that does not come is waited for once, and no longer than said."""

import asyncio

import pytest
from starlette.requests import Request

from serving import problems
from serving.problems import ProblemError, read_body

SCOPE = {"type": "http", "headers": [(b"content-type", b"application/json")]}


async def nothing():
    return await asyncio.Future()


def test_a_body_that_does_not_come_is_given_up_once(monkeypatch):
    assert problems.BODY_SECONDS == 5
    monkeypatch.setattr(problems, "BODY_SECONDS", 0.01)
    with pytest.raises(ProblemError, match="the body did not come within") as refused:
        asyncio.run(read_body(Request(SCOPE, nothing)))
    assert (refused.value.status, refused.value.headers["Connection"]) == (408, "close")


def test_a_body_that_comes_in_pieces_is_put_together():
    pieces = iter([(b'{"a"', True), (b": 1}", False)])

    async def receive():
        body, more = next(pieces)
        return {"type": "http.request", "body": body, "more_body": more}

    assert asyncio.run(read_body(Request(SCOPE, receive))) == b'{"a": 1}'
