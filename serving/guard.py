"""The guard: every answer is counted, timed and named, and what nobody foresaw is answered without what came.

A request's id is its caller's own where that looks like one, so that nothing else can be brought into a log under it.
"""

import itertools
import logging
import os
import re
import time
import traceback
from collections.abc import Iterable
from contextvars import ContextVar
from http import HTTPStatus
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving.problems import ProblemError
from serving.traces import Step, Traces, steps

REQUEST_ID: Final = b"x-request-id"
TRACE: Final = b"traceparent"
ID: Final = re.compile(rb"[0-9a-fA-F][0-9a-fA-F-]{7,63}")  # hexadecimal digits, a UUID: nobody's name
PARENT: Final = re.compile(rb"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")

request_id: Final[ContextVar[str]] = ContextVar("request_id", default="")
logger: Final = logging.getLogger("holdfast")
# from a start that no other process has: to ask the system for chance each time lets go of the interpreter
_numbers: Final = itertools.count(int.from_bytes(os.urandom(7)) << 4)


class Guard:
    """Stand around every call."""

    def __init__(self, app: ASGIApp, *, traces: Traces | None = None) -> None:
        self._app, self._traces = app, traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0
        name, parent = name_of(scope["headers"])
        state, token = scope["app"].state, request_id.set(name.decode())
        taken: list[Step] = []
        if self._traces:
            steps.set(taken)

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = [(REQUEST_ID, name), (b"connection", b"close")][: 1 + state.closing]
                message = {**message, "headers": [*message["headers"], *own]}
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            logger.error("%s at %s:%d", type(error).__name__, place.filename, place.lineno)  # noqa: TRY400 (a traceback holds ids)
            if status:  # too late for another answer: the connection is cut
                raise
            await _unforeseen().response()(scope, receive, watch)
        finally:
            request_id.reset(token)
        ended, call = time.perf_counter(), getattr(scope.get("route"), "path", "unknown")
        if desk := state.desk:
            desk.meters.answered(call, status, ended - started)
        if self._traces:
            told = {"request_id": name.decode(), "parent": parent}
            self._traces.note(call, scope["method"], status, began=started, ended=ended, taken=taken, **told)


def name_of(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, str]:
    """Give a request's id and, where it is part of a trace, whose child it is."""
    own, parent = None, None
    for name, value in headers:
        if name == REQUEST_ID and ID.fullmatch(value):
            own = value
        elif name == TRACE:
            parent = PARENT.fullmatch(value)
    made = parent[1] if parent else b"%016x" % next(_numbers)
    return own or made, parent[0].decode() if parent else ""


def _unforeseen() -> ProblemError:
    return ProblemError(HTTPStatus.INTERNAL_SERVER_ERROR, "unforeseen", "something went wrong here; repeat the request")
