"""What people on call watch, as Prometheus metrics; no label ever holds an id of a member."""

from collections.abc import Callable, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from features.decisions import Decision

FAST = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.04, 0.06, 0.1, 0.25, 0.5, 1.0, 2.5)
AGES = tuple(hours * 3600.0 for hours in (1, 6, 12, 24, 48, 24 * 7, 24 * 14, 24 * 28))


class Meters:
    """Count and time what one service does."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter("holdfast_requests", "Requests answered", ["call", "status"], registry=self.registry)
        self._seconds = Histogram(
            "holdfast_request_seconds", "Time to answer", ["call"], buckets=FAST, registry=self.registry
        )
        self._steps = Histogram(
            "holdfast_step_seconds", "Time of one step of a decision", ["step"], buckets=FAST, registry=self.registry
        )
        self._decisions = Counter(
            "holdfast_decisions",
            "Decisions logged",
            ["outcome", "fallback_reason", "treatment"],
            registry=self.registry,
        )
        self._outcomes = Counter("holdfast_outcomes", "Outcomes received", ["duplicate"], registry=self.registry)
        self._rows = Counter("holdfast_live_rows", "Rows taken live", ["table", "status"], registry=self.registry)
        self._replays = Counter("holdfast_replays", "Answers given again for the same key", registry=self.registry)
        self._age = Histogram(
            "holdfast_feature_age_seconds", "Age of the features decided on", buckets=AGES, registry=self.registry
        )
        self._release = Gauge("holdfast_release", "The release that serves", ["release_id"], registry=self.registry)
        self._backlog = Gauge("holdfast_log_backlog", "Entries that wait for the disk", registry=self.registry)
        self._owed = Gauge(
            "holdfast_live_backlog", "Requests with live rows that wait, and members owed", registry=self.registry
        )

    def answered(self, call: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(call, status).inc()
        self._seconds.labels(call).observe(seconds)

    def took(self, step: str, seconds: float) -> None:
        """Time a step."""
        self._steps.labels(step).observe(seconds)

    def decided(self, decisions: Sequence[Decision]) -> None:
        """Count decisions once they are stored."""
        for decision in decisions:
            self._decisions.labels(decision.outcome, decision.fallback_reason or "", decision.treatment).inc()
            if decision.event_timestamp is not None:
                self._age.observe((decision.decided_at - decision.event_timestamp).total_seconds())

    def replayed(self) -> None:
        """Count an answer that was given again."""
        self._replays.inc()

    def received(self, *, duplicate: bool) -> None:
        """Count an outcome."""
        self._outcomes.labels(str(duplicate).lower()).inc()

    def took_rows(self, table: str, statuses: Sequence[str]) -> None:
        """Count rows that were taken."""
        for status in statuses:
            self._rows.labels(table, status).inc()

    def serve(self, release_id: str, *, log: Callable[[], int], live: Callable[[], int]) -> None:
        """Name the release that serves, and where to read the backlogs."""
        self._release.labels(release_id).set(1)
        self._backlog.set_function(log)
        self._owed.set_function(live)

    def text(self) -> bytes:
        """Write every metric in Prometheus' text format."""
        return bytes(generate_latest(self.registry))
