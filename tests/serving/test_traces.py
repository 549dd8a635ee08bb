"""What leaves the process beside answers: traces, metrics and log lines; of whom it is about nothing does."""

import base64
import json
import signal
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from itertools import product

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from serving.traces import NAMES, Traces

MARK = "m-secret-4711"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.fixture
def collector():
    """A collector on this machine that keeps what it is sent."""
    bodies = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        server.bodies = bodies
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_without_a_collector_there_is_nothing():
    assert Traces.open({}) is None
    assert Traces.open(dict.fromkeys(NAMES, "")) is None


def everywhere(client):
    """Put the mark wherever a caller can put something."""
    bodies = [
        {"members": [MARK], "context": {MARK: MARK}},
        {"members": [MARK, "down"]},
        {"members": MARK},
        {MARK: MARK},
        {"outcome_id": MARK, "decision_id": MARK, "kind": "visit", "occurred_at": "2017-12-02T10:00:00Z"},
        {"rows": [{"member_id": MARK, "transaction_id": MARK, "occurred_at": "2017-12-01T10:00:00Z", "amount": 1}]},
        {"personalisation": False},
    ]
    headers = dict.fromkeys(("X-Request-Id", "Idempotency-Key", "Authorization", "traceparent", MARK), MARK)
    paths = ("decisions", "scores", "outcomes", "transactions", "events", MARK, f"members/{MARK}/preferences")
    for path, body in product(paths, bodies):
        for method in ("POST", "PUT"):
            client.request(method, f"/v1/{path}?{MARK}={MARK}", json=body, headers=headers)
    client.get(f"/v1/decisions/{MARK}", headers=headers)
    client.request(f"X{MARK}", "/livez")
    client.post("/v1/scores", content=MARK.encode(), headers={"Content-Type": "application/json"})
    client.post("/v1/scores", content=MARK.encode(), headers={"Content-Type": MARK})


def test_neither_log_nor_metric_nor_trace_says_whom_a_request_was_about(start, collector, tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    with start(tmp_path / "decisions.db") as (process, address), httpx.Client(base_url=address, timeout=10) as client:
        client.post(
            "/v1/decisions", json={"members": ["m1"]}, headers={"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        )
        everywhere(client)
        metrics = client.get("/metrics").content
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
        lines, rest = process.stderr.read(), process.stdout.read()
    said = b"".join([metrics, lines.encode(), rest.encode(), *collector.bodies])
    for form in (
        MARK.encode(),
        MARK.encode().hex().encode(),
        base64.b64encode(MARK.encode()),
        MARK.encode("utf-16-le"),
    ):
        assert form not in said
    assert "features_unavailable: ConnectionError" in {json.loads(line)["message"] for line in lines.splitlines()}
    assert all(
        {"time", "level", "request_id"} - json.loads(line).keys() <= {"request_id"} for line in lines.splitlines()
    )
    spans = [
        span
        for body in collector.bodies
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    of_first = {span.name: span for span in spans if span.trace_id.hex() == TRACE}
    child = of_first.pop("POST /v1/decisions")
    assert child.parent_span_id.hex() == "00f067aa0ba902b7"
    steps = [of_first.pop(name) for name in ("features", "models", "policy", "log")]
    assert not of_first
    assert {step.parent_span_id for step in steps} == {child.span_id}
    times = [time for step in steps for time in (step.start_time_unix_nano, step.end_time_unix_nano)]
    assert times == sorted(times)
    assert child.start_time_unix_nano < times[0]
    assert times[-1] < child.end_time_unix_nano
    assert {one.key for span in spans for one in span.attributes} == {
        "http.request.method", "http.route", "http.response.status_code", "holdfast.request_id",
    }  # fmt: skip


def test_a_collector_that_is_gone_changes_nothing(start, tmp_path, monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with start(tmp_path / "decisions.db") as (process, address), httpx.Client(base_url=address, timeout=10) as client:
        assert client.post("/v1/decisions", json={"members": ["m1"]}).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
