"""The layers around the routes: every call passes the guard and the door, and a hot one nothing else.

FastAPI and Starlette put layers of their own around an application's; each wraps what is sent and costs a call that the
guard makes needless: it answers what nobody foresaw, and the door and the handlers limit what is read.
"""

from collections.abc import Callable
from typing import Any, Final

from fastapi import FastAPI
from fastapi.telemetry import TelemetryConfig
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp

NO_TELEMETRY: Final = TelemetryConfig(tracing=False, metrics=False, logs=False)


class Application(FastAPI):
    """Stand behind layers of one's own.

    Parameters
    ----------
    layers : wraps what leads to the routes
    """

    def __init__(self, *, layers: Callable[[ASGIApp], ASGIApp], **settings: Any) -> None:  # noqa: ANN401 (FastAPI's)
        self._layers = layers
        super().__init__(telemetry=NO_TELEMETRY, **settings)

    def build_middleware_stack(self) -> ASGIApp:
        """Keep, of the layers that come by themselves, those from the handlers of refusals on."""
        stack: Any = super().build_middleware_stack()
        while not isinstance(stack, ExceptionMiddleware):
            stack = stack.app
        return self._layers(stack)
