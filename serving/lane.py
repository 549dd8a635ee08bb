"""The lane of the calls that campaign systems wait for: past the router, into the service only while there is room.

FastAPI takes three times as long for such a call as the call itself does on the event loop; it still describes them,
and answers everything else.
"""

from typing import Final

from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.desk import Desk
from serving.problems import ProblemError

CALLS: Final = frozenset({"/v1/decisions", "/v1/scores"})


class Lane:
    """Lead a hot call to its handler; the innermost layer, so that all others hold for it too."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._routes: dict[str, APIRoute] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a hot call, or pass the request on."""
        desk = scope["app"].state.desk if scope.get("path") in CALLS and scope["method"] == "POST" else None
        if not isinstance(desk, Desk):
            await self._app(scope, receive, send)
            return
        route = scope["route"] = self._route(scope)
        try:
            desk.gate.enter()
        except ProblemError as busy:
            await busy.response()(scope, receive, send)
            return
        try:
            response = await route.endpoint(Request(scope, desk.gate.outside(receive)))
        except ProblemError as problem:
            response = problem.response()
        finally:
            desk.gate.leave()
        await response(scope, receive, send)

    def _route(self, scope: Scope) -> APIRoute:
        if not self._routes:
            self._routes = {route.path: route for route in scope["app"].routes if isinstance(route, APIRoute)}
        return self._routes[scope["path"]]
