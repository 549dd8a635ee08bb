"""What people on call watch, as Prometheus metrics; no label ever holds an id of a member."""

import os
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from features.decisions import Decision, Log

FOLDER: Final = "PROMETHEUS_MULTIPROC_DIR"  # where the library puts the metrics of several processes together
WORKERS: Final = "holdfast-metrics-"
LOOK_SECONDS: Final = 1.0  # between two looks at what a worker itself takes
FAST = (0.001, 0.0025, 0.005, 0.01, 0.015, 0.025, 0.04, 0.06, 0.1, 0.25, 0.5, 1.0, 2.5)
AGES = tuple(hours * 3600.0 for hours in (1, 6, 12, 24, 48, 24 * 7, 24 * 14, 24 * 28))


class Meters:
    """Count and time what one service does; where it has several workers, each tells for all of them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._workers = WORKERS in os.environ.get(FOLDER, "")  # Feast sets it as well, to a folder of its own
        self._watched: tuple[tuple[Gauge, Callable[[], float]], ...] = ()
        self._own: tuple[tuple[Gauge, str], ...] = ()
        if self._workers:  # the library's names are of one process
            told = {"resident_memory_bytes": "Memory", "cpu_seconds_total": "Processor time", "open_fds": "Open files"}
            names = ((name, f"holdfast_worker_{name.removesuffix('_total')}", text) for name, text in told.items())
            self._own = tuple((self._gauge(own, f"{text} of a worker"), f"process_{name}") for name, own, text in names)
            self._process, self._looked = CollectorRegistry(), -LOOK_SECONDS
            ProcessCollector(registry=self._process)
        else:
            ProcessCollector(registry=self.registry)
        requests = Counter("holdfast_requests", "Requests answered", ["call", "status"], registry=self.registry)
        seconds = Histogram(
            "holdfast_request_seconds", "Time to answer", ["call"], buckets=FAST, registry=self.registry
        )
        steps = Histogram(
            "holdfast_step_seconds", "Time of one step of a decision", ["step"], buckets=FAST, registry=self.registry
        )
        decisions = Counter(
            "holdfast_decisions",
            "Decisions logged",
            ["outcome", "fallback_reason", "treatment"],
            registry=self.registry,
        )
        # each request counts these, and to look for a label's words takes the library three times as long as to count
        self._requests, self._seconds = cache(requests.labels), cache(seconds.labels)
        self._steps, self._decisions = cache(steps.labels), cache(decisions.labels)
        self._fallbacks = Counter(
            "holdfast_fallbacks", "Decisions without the models", ["reason", "source"], registry=self.registry
        )
        self._outcomes = Counter("holdfast_outcomes", "Outcomes received", ["duplicate"], registry=self.registry)
        self._rows = Counter("holdfast_live_rows", "Rows taken live", ["table", "status"], registry=self.registry)
        self._replays = Counter("holdfast_replays", "Answers given again for the same key", registry=self.registry)
        self._age = Histogram(
            "holdfast_feature_age_seconds", "Age of the features decided on", buckets=AGES, registry=self.registry
        )
        self._release = self._gauge("holdfast_release", "The release that serves", ["release_id"])
        self._refused = self._gauge("holdfast_release_refused", "A champion that does not serve", ["release_id"])
        self._swaps = Counter("holdfast_release_swaps", "Releases taken up while serving", registry=self.registry)
        self._shadow = self._gauge("holdfast_shadow", "The release that decides beside it", ["release_id"])
        self._shadowed = Counter(
            "holdfast_shadow_decisions", "Decisions that the shadow took too", ["result"], registry=self.registry
        )
        self._unheard = self._gauge("holdfast_objects_away", "1 while promotions of other homes are not heard of")
        self._behind = self._gauge("holdfast_shadow_behind", "Decisions that wait for the shadow")
        self._lost = Counter("holdfast_shadow_lost", "Times that its process ended or hung", registry=self.registry)
        self._shadow_id: str | None = None
        self._named: tuple[str | None, str | None] = (None, None)
        self._backlog = self._gauge("holdfast_log_backlog", "Entries that wait for the disk")
        self._undrained = self._gauge("holdfast_drain_backlog", "Changes of the log that its Postgres lacks")
        self._owed = self._gauge("holdfast_live_backlog", "Requests with live rows that wait, and members owed")
        self._apart = self._gauge("holdfast_apart", "1 while what other instances commit is not known")
        self._doubled = self._gauge("holdfast_doubled_keys", "Keys that were answered here and by another instance")
        self._ahead = self._gauge("holdfast_clock_ahead_seconds", "How far Postgres' clock is before this machine's")

    def answered(self, call: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests(call, status).inc()
        if self._workers:  # another worker may be asked for this one's
            self._look()
        self._seconds(call).observe(seconds)

    def took(self, step: str, seconds: float) -> None:
        """Time a step."""
        self._steps(step).observe(seconds)

    def decided(self, decisions: Sequence[Decision]) -> None:
        """Count decisions once they are stored."""
        for decision in decisions:
            self._decisions(decision.outcome, decision.fallback_reason or "", decision.treatment).inc()
            if decision.fallback_reason:
                self._fallbacks.labels(decision.fallback_reason, decision.source).inc()
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

    def release(self, serving: str, refused: str | None) -> None:
        """Name the release that serves, and the champion that does not, if that is another."""
        before, self._named = self._named, (serving, refused)
        if before[0] not in {None, serving}:
            self._swaps.inc()
        for gauge, last, now in zip((self._release, self._refused), before, self._named, strict=True):
            if last is not None:
                gauge.labels(last).set(0)
            if now is not None:
                gauge.labels(now).set(1)

    def heard(self, *, well: bool) -> None:
        """Say whether object storage tells what other homes promote."""
        self._unheard.set(0 if well else 1)

    def shadow(self, release_id: str | None) -> None:
        """Name the shadow, if there is one."""
        before, self._shadow_id = self._shadow_id, release_id
        for name, value in ((before, 0), (release_id, 1)):
            if name is not None:
                self._shadow.labels(name).set(value)

    def shadowed(self, result: str, decisions: int) -> None:
        """Count decisions of the shadow: the same, another, dropped for lack of time, or failed."""
        self._shadowed.labels(result).inc(decisions)

    def shadow_behind(self, decisions: int) -> None:
        """Say how many decisions the shadow has yet to look at."""
        self._behind.set(decisions)

    def shadow_lost(self) -> None:
        """Count that the shadow's process has to be begun again."""
        self._lost.inc()

    def watch(self, *, log: Callable[[], int], drain: Callable[[], int], live: Callable[[], int]) -> None:
        """Say where to read the backlogs."""
        self._watched = ((self._backlog, log), (self._undrained, drain), (self._owed, live))

    def watch_agreement(self, log: Log) -> None:
        """Say where to read how it stands with other instances; where there are none, nothing is amiss."""
        told = ((self._doubled, "doubled"), (self._ahead, "ahead"))
        self._watched += ((self._apart, log.apart), *((gauge, partial(_told, log, name)) for gauge, name in told))

    def text(self) -> bytes:
        """Write every metric in Prometheus' text format."""
        self._look()
        registry = CollectorRegistry() if self._workers else self.registry
        if self._workers:
            registry.register(_OfAll())
        return bytes(generate_latest(registry))

    def _gauge(self, name: str, text: str, labels: Sequence[str] = ()) -> Gauge:
        """Make a gauge, of which every worker has its own value."""
        return Gauge(name, text, labels, registry=self.registry, multiprocess_mode="liveall")

    def _look(self) -> None:
        for gauge, value in self._watched:
            gauge.set(value())
        if self._own and time.monotonic() - self._looked > LOOK_SECONDS:
            self._looked = time.monotonic()
            for gauge, name in self._own:
                gauge.set(self._process.get_sample_value(name) or 0)


def _told(log: Log, name: str) -> float:
    return float(getattr(log.agreement, name, 0))


class _OfAll(Collector):
    """Add up the metrics of all workers; libraries put some of their own among them."""

    def collect(self) -> Iterator[Metric]:
        every = MultiProcessCollector(None).collect()  # type: ignore[no-untyped-call]
        return (metric for metric in every if metric.name.startswith("holdfast_"))
