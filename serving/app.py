"""The HTTP calls, version 1, as a FastAPI application; what they do is in `serving.desk`."""

import gc
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from http import HTTPStatus
from typing import Any, Final, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from features.schema import ID_LENGTH
from serving.answers import dump
from serving.contract import (
    BegunAnswer,
    DecisionRecord,
    DecisionsAnswer,
    DecisionsRequest,
    ErasureAnswer,
    EventsRequest,
    OutcomeAnswer,
    OutcomeRequest,
    PreferencesAnswer,
    PreferencesRequest,
    ReadyAnswer,
    ReleaseAnswer,
    RowsAnswer,
    ScoresAnswer,
    ScoresRequest,
    StateAnswer,
    TransactionsRequest,
)
from serving.desk import Desk, Reply
from serving.door import CLIENT, REFUSALS, Door
from serving.explanation import language_of
from serving.guard import Guard
from serving.keys import Keyring
from serving.lane import Lane
from serving.layers import Application
from serving.pages.routes import add_pages
from serving.problems import (
    MEDIA_TYPE,
    ProblemDocument,
    ProblemError,
    answer_http,
    answer_problem,
    contract,
    parse,
    read_body,
    unready,
)
from serving.traces import Traces

JSON_LINES: Final = "application/x-ndjson"
KEY_HEADER: Final = "Idempotency-Key"
KEY_LENGTH: Final = 255
BETWEEN: Final = "\x1f"  # a client's name and its key: each client has keys of its own
KEY_TEXT: Final = (
    "Names this request. The same key and body give the same bytes again, with `Idempotency-Replayed: true`; "
    "with another body 422; while the first is still being answered 409. Optional, and recommended wherever a request "
    "may be repeated: without it, every call takes new decisions."
)

DEADLINE_HEADER: Final = "Request-Deadline-Ms"
DEADLINES: Final = range(10, 10_001)
DEADLINE_TEXT: Final = (
    "Milliseconds in which an answer is wanted; without it, those of holdfast.toml. What can't be read in time is "
    "stood in for, and `fallback_reason` and `source` say so; an answer is never left out."
)
KEY: Final = {
    "name": KEY_HEADER,
    "description": KEY_TEXT,
    "schema": {"type": "string", "minLength": 1, "maxLength": KEY_LENGTH},
}
DEADLINE: Final = {
    "name": DEADLINE_HEADER,
    "description": DEADLINE_TEXT,
    "schema": {"type": "integer", "minimum": DEADLINES[0], "maximum": DEADLINES[-1]},
}


def create_app(
    open_desk: Callable[[], Desk],
    *,
    keyring: Keyring,
    now: Callable[[], datetime],
    per_second: int | None = None,
    traces: Traces | None = None,
) -> FastAPI:
    """Make the application.

    Parameters
    ----------
    open_desk : called once, when it starts
    now : the time by which keys end, which is never a past programme's own
    per_second : how often a client may ask whose key does not say; none: as often as it likes
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        desk = app.state.desk = open_desk()
        desk.warm()
        gc.collect()
        gc.freeze()  # what lives as long as the service need not be looked through at every collection
        gc.set_threshold(700, 10, 10)  # Python's own: what a request leaves goes in small parts, without a pause
        try:
            yield
        finally:
            app.state.desk = None
            desk.close()
            if traces:
                traces.close()
            gc.unfreeze()  # or extension modules report all of it as leaked when the process ends

    def layers(routes: ASGIApp) -> ASGIApp:
        return Guard(Door(Lane(routes), keyring=keyring, now=now, per_second=per_second), traces=traces)

    app = Application(
        layers=layers,
        title="Holdfast",
        version="1",
        description="Which member is about to leave, and which offer, if any, is worth sending.",
        lifespan=lifespan,
        docs_url=None,  # its page would load scripts from the internet
        redoc_url=None,
        redirect_slashes=False,  # it would send the caller where the Host header says
        exception_handlers={ProblemError: answer_problem, HTTPException: answer_http},
        generate_unique_id_function=lambda route: route.name,  # what generated clients call their functions
    )
    app.state.desk, app.state.closing = None, False
    _add_calls(app)
    _add_member_calls(app)
    _add_probes(app)
    add_pages(app, _desk, now)
    return app


def _add_calls(app: FastAPI) -> None:
    @app.post(
        "/v1/decisions",
        **_described(
            DecisionsAnswer, (400, 408, 409, 413, 415, 422, 429, 503), DecisionsRequest, headers=(KEY, DEADLINE)
        ),
    )
    async def decisions(request: Request) -> Response:
        """Decide for members, log each decision with its propensity, then answer."""
        body = await read_body(request)
        desired = parse(body, DecisionsRequest)
        desk, key = _desk(request), _key(request)
        return _answer(await desk.decide(desired, body, idempotency_key=key, deadline_ms=_deadline(request)))

    @app.post(
        "/v1/scores",
        **_described(ScoresAnswer, (400, 408, 413, 415, 422, 429, 503), ScoresRequest, headers=(DEADLINE,)),
    )
    async def scores(request: Request) -> Response:
        """Give the same numbers; nothing is decided, nothing logged."""
        desired = parse(await read_body(request), ScoresRequest)
        return _answer(await _desk(request).score(desired, deadline_ms=_deadline(request)))

    @app.post(
        "/v1/outcomes", **_described(OutcomeAnswer, (400, 408, 409, 413, 415, 422, 503), OutcomeRequest, status=202)
    )
    async def outcomes(request: Request) -> Response:
        """Take what followed: late, early, twice and in any order, the result is the same."""
        outcome = parse(await read_body(request), OutcomeRequest)
        duplicate = await _desk(request).record(outcome)
        return _json(dump({"outcome_id": outcome.outcome_id, "duplicate": duplicate}), HTTPStatus.ACCEPTED)

    @app.post("/v1/transactions", **_described(RowsAnswer, (400, 408, 409, 413, 415, 422, 503), TransactionsRequest))
    async def transactions(request: Request) -> Response:
        """Take purchases as they happen: all rows or none; answered once the next decision sees them."""
        return _answer(await _desk(request).take("transactions", parse(await read_body(request), TransactionsRequest)))

    @app.post("/v1/events", **_described(RowsAnswer, (400, 408, 409, 413, 415, 422, 503), EventsRequest))
    async def events(request: Request) -> Response:
        """Take what else members do, as it happens: all rows or none; answered once the next decision sees them."""
        return _answer(await _desk(request).take("events", parse(await read_body(request), EventsRequest)))

    @app.get("/v1/decisions/{decision_id}", **_described(DecisionRecord, (404, 503)))
    async def decision(request: Request, decision_id: str, language: Literal["en", "zh"] | None = None) -> Response:
        """Show a decision with its explanation, in the language that is asked for, or that Accept-Language names."""
        tongue = language_of(language, request.headers.get("accept-language", ""))
        return _answer(await _desk(request).look_up(decision_id, tongue))

    @app.get("/v1/release", **_described(ReleaseAnswer, (503,)))
    async def release(request: Request) -> Response:
        """Say what is being served."""
        return _answer(_desk(request).release())


def _add_member_calls(app: FastAPI) -> None:
    @app.put(
        "/v1/members/{member_id}/preferences",
        **_described(PreferencesAnswer, (400, 408, 413, 415, 422, 503), PreferencesRequest),
    )
    async def preferences(request: Request, member_id: str) -> Response:
        """Note what a member wants; it counts from the very next decision, and repeating it changes nothing."""
        desired = parse(await read_body(request), PreferencesRequest)
        return _answer(await _desk(request).prefer(_member(member_id), desired))

    @app.get(
        "/v1/members/{member_id}/export",
        response_class=StreamingResponse,
        responses={
            200: {"content": {JSON_LINES: {}}, "description": "a JSON object a line; `held_in` says where"},
            **_refusals((422, 503)),
        },
    )
    async def export(request: Request, member_id: str) -> Response:
        """Give everything that is held about a member, as JSON lines; nothing about a stranger."""
        return StreamingResponse(_desk(request).members.export(_member(member_id)), media_type=JSON_LINES)

    @app.delete("/v1/members/{member_id}", **_described(ErasureAnswer, (422, 503), later=BegunAnswer))
    async def erase(request: Request, member_id: str) -> Response:
        """Erase a member everywhere: 200 with a receipt once nothing is left, 202 with its number if that takes longer.

        After either, nothing of the member is read or taken in any more, and what was begun is gone on with until it is
        done. Members asked for while others are erased go together, and share a receipt. Repeating it does no harm.
        """
        return _erasure(*await _desk(request).members.erase(_member(member_id)))

    @app.get("/v1/erasures/{receipt_id}", **_described(ErasureAnswer, (404, 503), later=BegunAnswer))
    async def receipt(request: Request, receipt_id: str) -> Response:
        """Give the receipt of an erasure; 202 while it goes on."""
        return _erasure(*await _desk(request).members.receipt(receipt_id))


def _add_probes(app: FastAPI) -> None:
    @app.get("/livez", **_described(StateAnswer, ()))
    async def livez() -> Response:
        """Say that the process lives."""
        return _json(dump({"status": "alive"}))

    @app.get("/readyz", **_described(ReadyAnswer, (503,)))
    async def readyz(request: Request) -> Response:
        """Say whether requests are taken, and what is wrong; degraded: all are answered, some by a fallback."""
        desk = _desk(request)
        if request.app.state.closing:
            raise unready("the service is stopping")
        health, refused = await desk.look(), desk.refused
        told = {"refused_release": refused.release_id} if refused else {}
        status = HTTPStatus.OK if health.ready else HTTPStatus.SERVICE_UNAVAILABLE
        return _json(dump({"status": health.status, "checks": health.checks, **told}), status)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}, **_refusals((503,))})
    async def metrics(request: Request) -> Response:
        """Give the metrics in Prometheus' text format."""
        return Response(_desk(request).meters.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _desk(request: Request) -> Desk:
    desk = request.app.state.desk
    if not isinstance(desk, Desk):
        raise unready("the service is starting or stopping")
    return desk


def _key(request: Request) -> str | None:
    key = request.headers.get(KEY_HEADER)
    if key is not None and not (0 < len(key) <= KEY_LENGTH and key.isascii() and key.isprintable()):
        detail = f"an {KEY_HEADER} of 1 to {KEY_LENGTH} printable ASCII characters was wanted"
        raise ProblemError(HTTPStatus.BAD_REQUEST, "idempotency-key", detail)
    client = request.scope.get(CLIENT)
    return f"{client}{BETWEEN}{key}" if client and key else key


def _member(member_id: str) -> str:
    if not 0 < len(member_id) <= ID_LENGTH:
        raise contract(f"a member's id of 1 to {ID_LENGTH} characters was wanted in the address")
    return member_id


def _deadline(request: Request) -> int | None:
    text = request.headers.get(DEADLINE_HEADER)
    if text is None:
        return None
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) not in DEADLINES:
        detail = f"a {DEADLINE_HEADER} from {DEADLINES[0]} to {DEADLINES[-1]} was wanted"
        raise ProblemError(HTTPStatus.BAD_REQUEST, "deadline", detail)
    return int(text)


def _answer(reply: Reply) -> Response:
    response = _json(reply.body)
    if reply.replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def _json(body: bytes, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(body, status_code=status, media_type="application/json")


def _erasure(status: HTTPStatus, body: bytes) -> Response:
    response = _json(body, status)
    if status == HTTPStatus.ACCEPTED:
        response.headers["Retry-After"] = "1"
    return response


def _described(
    answer: type[BaseModel],
    problems: tuple[int, ...],
    body: type[BaseModel] | None = None,
    *,
    headers: tuple[dict[str, Any], ...] = (),
    status: int = 200,
    later: type[BaseModel] | None = None,
) -> dict[str, Any]:
    """Describe a call for the OpenAPI document: the handlers read and write the bytes themselves.

    Parameters
    ----------
    later : the answer of 202, where what was asked for may take longer than a caller is kept
    """
    extra: dict[str, Any] = {}
    if body is not None:
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": _whole(body)}}}
    if headers:
        extra["parameters"] = [{"in": "header", **header} for header in headers]
    return {
        "response_model": answer,
        "status_code": status,
        "responses": _refusals(problems) | ({202: {"model": later, "description": "Accepted"}} if later else {}),
        "openapi_extra": extra,
    }


def _refusals(problems: tuple[int, ...]) -> dict[int | str, dict[str, Any]]:
    """Describe how a call is refused: by itself, and by the door before it."""
    document = {"content": {MEDIA_TYPE: {}}, "model": ProblemDocument}
    return {code: {**document, "description": HTTPStatus(code).phrase} for code in sorted({*problems, *REFUSALS})}


def _whole(body: type[BaseModel]) -> dict[str, Any]:
    """Give a body's JSON schema with the models of its parts in their places, where every reader finds them."""
    schema = body.model_json_schema()
    parts = schema.pop("$defs", {})
    text = json.dumps(schema)
    for name, part in parts.items():
        text = text.replace(json.dumps({"$ref": f"#/$defs/{name}"}), json.dumps(part))
    whole: dict[str, Any] = json.loads(text)
    return whole
