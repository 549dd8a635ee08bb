"""The addresses of pages: the overview, the full reports beside it, and the look-up of one decision.

An id is sent in a form's body, so that it is in no address, no log of addresses and no browser's history.
"""

import re
from collections.abc import Callable
from datetime import datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool

from features.schema import ID_LENGTH
from serving.explanation import Language, language_of
from serving.pages.front import REPORT, front_page
from serving.pages.look_up import nothing_found, shown
from serving.pages.rendering import headers
from serving.problems import ProblemError, read_body

if TYPE_CHECKING:
    from serving.desk import Desk

FORM: Final = "application/x-www-form-urlencoded"
# The drift library's pages draw with scripts of their own: they run in a box that knows nobody and reaches nothing.
BOX: Final = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; frame-ancestors 'none'"
)


def add_pages(app: FastAPI, desk_of: "Callable[[Request], Desk]", now: Callable[[], datetime]) -> None:
    """Add the pages to the application.

    Parameters
    ----------
    desk_of : gives the desk, or refuses while there is none
    now : the time by the wall, by which a page is so old
    """

    @app.get("/", include_in_schema=False)
    async def overview(request: Request) -> Response:
        """Show the overview as it was written last."""
        home, language = desk_of(request).home, _language(request)
        return _page(await run_in_threadpool(front_page, home, language, now=now()))

    @app.post("/look-up", include_in_schema=False)
    async def look_up(request: Request) -> Response:
        """Show one decision, and why it was taken."""
        desk, language = desk_of(request), _language(request)
        form = parse_qs((await read_body(request, FORM)).decode("utf-8", "replace"))
        name = form.get("id", [""])[0].strip()
        if not 0 < len(name) <= ID_LENGTH:
            return _page(nothing_found("look_up.unwanted", language), HTTPStatus.UNPROCESSABLE_ENTITY)
        found = await desk.explained(name, language)
        if found is None:
            return _page(nothing_found("look_up.none", language), HTTPStatus.NOT_FOUND)
        return _page(shown(found, desk.decider.programme, language))

    @app.get("/look-up", include_in_schema=False)
    async def form(request: Request) -> Response:
        """Show the empty form, for whoever loads the address anew."""
        return _page(nothing_found(None, _language(request)))

    @app.get("/reports/{name}", include_in_schema=False)
    async def report(request: Request, name: str) -> Response:
        """Show a full report."""
        path = desk_of(request).home.reports / name
        if not re.fullmatch(REPORT, name) or not path.exists():
            raise ProblemError(HTTPStatus.NOT_FOUND, "not-found", "there is no such report; holdfast monitor drift")
        body = await run_in_threadpool(path.read_bytes)
        return Response(
            body, media_type="text/html; charset=utf-8", headers=headers(b"") | {"Content-Security-Policy": BOX}
        )


def _page(body: bytes, status: HTTPStatus = HTTPStatus.OK) -> Response:
    return Response(body, status_code=status, media_type="text/html; charset=utf-8", headers=headers(body))


def _language(request: Request) -> Language:
    return language_of(request.query_params.get("language"), request.headers.get("accept-language", ""))
