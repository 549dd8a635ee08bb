"""Traces for a collector that speaks OpenTelemetry's protocol over HTTP, where one is named; otherwise nothing."""

import time
from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

Step = tuple[str, float, float]  # its name, from when to when, by the clock that measures

steps: Final[ContextVar[list[Step] | None]] = ContextVar("steps", default=None)  # of a request; None: nobody asks
NAMES: Final = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
SERVER_FAULT: Final = 500


class Traces:
    """Note a span per request: which call, which status, how long; never an address or anything a caller sent.

    Below it stands a span for each step of a decision; requests that were decided together share those.
    """

    def __init__(self, provider: "TracerProvider") -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider, self._tracer = provider, provider.get_tracer("holdfast")
        self._propagator = TraceContextTextMapPropagator()

    @classmethod
    def open(cls, environment: Mapping[str, str]) -> Self | None:
        """Send spans where the environment says, as OpenTelemetry names it; none where it says nothing."""
        if not any(environment.get(name) for name in NAMES):
            return None
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider(resource=Resource.create({"service.name": "holdfast"}))
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(timeout=2)))
        return cls(provider)

    def note(
        self,
        call: str,
        method: str,
        status: int,
        *,
        began: float,
        ended: float,
        request_id: str,
        parent: str,
        taken: Sequence[Step] = (),
    ) -> None:
        """Note a request that was just answered, and when by the clock that measures, as its steps were.

        `parent` is as in the header traceparent, or empty.
        """
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context

        since = time.time_ns() - round(time.perf_counter() * 1e9)
        context = self._propagator.extract({"traceparent": parent}) if parent else None
        span = self._tracer.start_span(
            f"{method} {call}",
            context=context,
            kind=SpanKind.SERVER,
            start_time=since + round(began * 1e9),
            attributes={
                "http.request.method": method,
                "http.route": call,
                "http.response.status_code": status,
                "holdfast.request_id": request_id,
            },
        )
        if status >= SERVER_FAULT:
            span.set_status(Status(StatusCode.ERROR))
        for name, started, done in taken:
            step = self._tracer.start_span(name, set_span_in_context(span), start_time=since + round(started * 1e9))
            step.end(since + round(done * 1e9))
        span.end(since + round(ended * 1e9))

    def close(self) -> None:
        """Send what waits."""
        self._provider.shutdown()
