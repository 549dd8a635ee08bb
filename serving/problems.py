"""Errors as RFC 9457 problem documents that say what was wanted and never repeat what came; and strict JSON."""

import asyncio
import json
from collections.abc import Mapping
from functools import cache
from http import HTTPStatus
from typing import Annotated, Any, Final, NoReturn, TypeVar

from fastapi import Request, Response
from pydantic import BaseModel, Field, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from serving.shape import too_much

BODY_BYTES: Final = 256 * 1024
BODY_SECONDS: Final = 5  # that a caller may take to send one
WHOLE: Final = "holdfast.whole"  # in a request's scope: its body has come, and nobody need be waited for
MEDIA_TYPE: Final = "application/problem+json"

R = TypeVar("R", bound=BaseModel)


class FieldProblem(BaseModel):
    """Say what was wanted of one field."""

    pointer: str = Field(description="a JSON pointer into the request's body")
    detail: str


class ProblemDocument(BaseModel):
    """Describe an error, after RFC 9457."""

    type: Annotated[str, Field(examples=["urn:holdfast:problem:contract"])]
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = []


class ProblemError(Exception):
    """Answer a request with a problem document."""

    def __init__(
        self,
        status: HTTPStatus,
        kind: str,
        detail: str,
        *,
        errors: tuple[FieldProblem, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.kind, self.detail = status, kind, detail
        self.errors, self.headers = errors, dict(headers or {})

    def response(self) -> Response:
        """Give the problem document."""
        document = {
            "type": f"urn:holdfast:problem:{self.kind}",
            "title": self.status.phrase,
            "status": self.status.value,
            "detail": self.detail,
            "errors": [error.model_dump() for error in self.errors],
        }
        body = json.dumps(document).encode()
        return Response(body, status_code=self.status, media_type=MEDIA_TYPE, headers=self.headers)


def contract(detail: str, *errors: FieldProblem) -> ProblemError:
    """Refuse well-formed JSON that does not meet the contract."""
    return ProblemError(HTTPStatus.UNPROCESSABLE_ENTITY, "contract", detail, errors=errors)


def unready(detail: str) -> ProblemError:
    """Refuse while the service is not up, or no longer."""
    return ProblemError(HTTPStatus.SERVICE_UNAVAILABLE, "not-ready", detail, headers={"Retry-After": "1"})


async def answer_problem(_: Request, problem: Exception) -> Response:
    """Answer what a handler refused."""
    if not isinstance(problem, ProblemError):
        raise problem
    return problem.response()


async def answer_http(_: Request, refused: Exception) -> Response:
    """Answer what the router refused: an unknown path, another method."""
    if not isinstance(refused, HTTPException):
        raise refused
    status = HTTPStatus(refused.status_code)
    details = {
        HTTPStatus.NOT_FOUND: "there is nothing at this address; /openapi.json lists every call",
        HTTPStatus.METHOD_NOT_ALLOWED: "this address takes another method; the Allow header names it",
    }
    detail = details.get(status, status.description or status.phrase)
    kind = status.phrase.lower().replace(" ", "-")
    return ProblemError(status, kind, detail, headers=refused.headers).response()


async def read_body(request: Request, wanted: str = "application/json") -> bytes:
    """Read a request's body, up to the limit.

    Raises
    ------
    ProblemError
        408 for a body that does not come in time, 413 above the limit, 415 for another content type (which also keeps
        a web page's plain forms out), 400 if the caller went away.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != wanted:
        detail = f"the header Content-Type: {wanted} was wanted"
        raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "content-type", detail)
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > BODY_BYTES:
        _too_large()
    body = bytearray()
    try:
        async with asyncio.timeout(None if WHOLE in request.scope else BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_BYTES:
                    _too_large()
    except TimeoutError:
        detail = f"the body did not come within {BODY_SECONDS} seconds"
        raise ProblemError(HTTPStatus.REQUEST_TIMEOUT, "slow", detail, headers={"Connection": "close"}) from None
    except ClientDisconnect:
        raise ProblemError(HTTPStatus.BAD_REQUEST, "cut-off", "the body was cut off") from None
    return bytes(body)


def parse(body: bytes, model: type[R]) -> R:
    """Read a body as `model`.

    Raises
    ------
    ProblemError
        400 for what is no strict JSON (NaN, infinity and repeated keys are none) or breaks a limit of `serving.shape`,
        422 for what breaks the contract.
    """
    if limit := too_much(body):
        raise ProblemError(HTTPStatus.BAD_REQUEST, "json", f"the body is too much: {limit}")
    try:
        json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_constant, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        reason = error.args[0] if isinstance(error, _NotStrictError) else "the body is not JSON in UTF-8"
        raise ProblemError(HTTPStatus.BAD_REQUEST, "json", str(reason)) from None
    try:
        return model.model_validate_json(body)
    except ValidationError as error:
        errors = tuple(_field(item, model) for item in error.errors(include_url=False, include_input=False)[:20])
        raise contract("the body does not meet the contract; /openapi.json describes it", *errors) from None


class _NotStrictError(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise _NotStrictError("an object of the body has a key twice")
    return value


def _no_constant(_: str) -> NoReturn:
    raise _NotStrictError("the body has a NaN or an infinity; send null, or leave the field out")


def _finite(text: str) -> float:
    number = float(text)
    if number in (float("inf"), float("-inf")):
        _no_constant(text)
    return number


def _too_large() -> NoReturn:
    detail = f"a body of at most {BODY_BYTES} bytes was wanted; split the request"
    raise ProblemError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "too-large", detail, headers={"Connection": "close"})


def _field(item: Mapping[str, Any], model: type[BaseModel]) -> FieldProblem:
    """Point at a field, by names of the contract only: a key that the caller made up may be anything."""
    names = _names(model)
    pointer = "".join(f"/{part}" for part in item["loc"] if isinstance(part, int) or part in names)
    if item["type"] == "extra_forbidden":
        return FieldProblem(pointer=pointer, detail=f"an unknown field came; known are {', '.join(names)}")
    return FieldProblem(pointer=pointer, detail=item["msg"])


@cache
def _names(model: type[BaseModel]) -> tuple[str, ...]:
    """Name the fields of a body and of its parts."""
    schema = model.model_json_schema()
    parts = (schema, *schema.get("$defs", {}).values())
    return tuple(dict.fromkeys(name for part in parts for name in part["properties"]))
