"""What the service counts, for Prometheus. Knows no request and no model.

The four golden signals, of the service and of each stage:

    latency      recserve_request_seconds{route}, recserve_stage_seconds{stage}
    traffic      recserve_requests_total{route, status}, the count of the stage's seconds
    errors       status 5xx, recserve_fallback_total{cause}, recserve_stage_errors_total{stage}
    saturation   recserve_inflight_requests of recserve_inflight_bound, recserve_waiting_rows,
                 recserve_stage_under_way{stage}; all of Python runs on one core

docs/observability.md has every metric with its meaning.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from time import perf_counter
from typing import TYPE_CHECKING, Protocol
from weakref import WeakSet

from bento.drift import Drift
from bento.prometheus import (
    CONTENT_TYPE,
    SECONDS,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from bento.stages import Stages

if TYPE_CHECKING:
    from bento.tracing import Tracing

__all__ = ["BREAKER", "CONTENT_TYPE", "LATE", "OVERLOAD", "RATE", "REFUSED",
           "UNAVAILABLE", "EventMetrics", "Metrics", "VariantMetrics"]  # fmt: skip

# Why an answer holds popular items.
LATE, UNAVAILABLE, REFUSED = "deadline", "unavailable", "refused"
BREAKER = "breaker"
FALLBACK_CAUSES = (LATE, UNAVAILABLE, REFUSED, BREAKER)
# Why a request was turned away (429).
RATE, OVERLOAD = "rate", "overload"

LABELS = ("variant", "release")
TENTHS = tuple(tenth / 10 for tenth in range(11))
LAGS = (1.0, 5.0, 30.0, 60.0, 300.0, 3600.0, 86_400.0, 604_800.0)


class Queue(Protocol):
    """A joiner of requests (`client/join.py`)."""

    @property
    def waiting(self) -> int: ...
    @property
    def under_way(self) -> int: ...


class Switch(Protocol):
    """A circuit breaker (`bento/breaker.py`)."""

    @property
    def open(self) -> bool: ...


class Metrics:
    """One registry of its own, so that two services in one process do not meet."""

    tracing: Tracing | None = None  # what is measured is traced too, where it is set by `trace`

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "recserve_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self._seconds = Histogram(
            "recserve_request_seconds", "Time from the whole request to its answer.",
            ["route"], buckets=SECONDS, registry=registry,
        )  # fmt: skip
        self.fallbacks = Counter(
            "recserve_fallback", "Answers with popular items because Triton gave none.",
            ["cause"], registry=registry,
        )  # fmt: skip
        self._refusals = Counter(
            "recserve_refused", "Requests turned away before any work was done for them.",
            ["reason"], registry=registry,
        )  # fmt: skip
        self.overflow = Counter(
            "recserve_exclude_overflow",
            "Exclusions beyond what the model takes, dropped from its answers afterwards.",
            registry=registry,
        )
        self.impressions_dropped = Counter(
            "recserve_impressions_dropped",
            "Answers that the log of impressions lacks: too many waited for the store.",
            registry=registry,
        )
        self.release = Gauge(
            "recserve_release", "Number of the release that serves.", registry=registry
        )
        self.stage = Stages(registry)
        self.events = EventMetrics(registry)
        self.variants = VariantMetrics(registry)
        self.drift = Drift(registry)
        self._saturation(registry)
        for cause in FALLBACK_CAUSES:
            self.fallbacks.labels(cause)  # present from the start: rate() needs a zero
        self._refused = dict[str, Counter]()
        for reason in (RATE, OVERLOAD):
            self._refused[reason] = self._refusals.labels(reason)
        # Looking labels up costs more than counting.
        self._requests_of = lru_cache(256)(self._requests.labels)
        self._seconds_of = lru_cache(256)(self._seconds.labels)

    def _saturation(self, registry: CollectorRegistry) -> None:
        """How full it is, and what it waits for; what can be asked is asked when scraped."""
        self._inflight = Gauge(
            "recserve_inflight_requests", "Requests being answered.", registry=registry
        )
        self.bound = Gauge(
            "recserve_inflight_bound",
            "Beyond so many, requests for a model are turned away.",
            registry=registry,
        )
        self.joiners: WeakSet[Queue] = WeakSet()
        self.breakers: WeakSet[Switch] = WeakSet()
        self.store_away = Gauge(
            "recserve_store_away", "1 while the store does not answer.", registry=registry
        )

        def asked(name: str, what: str, value: Callable[[], float]) -> None:
            Gauge(f"recserve_{name}", what, registry=registry).set_function(value)

        asked("waiting_rows", "Requests that wait for a call of Triton to leave in.",
              lambda: sum(joiner.waiting for joiner in self.joiners))  # fmt: skip
        asked("triton_calls", "Calls of Triton under way; RECSERVE_TRITON_CALLS a joiner at most.",
              lambda: sum(joiner.under_way for joiner in self.joiners))  # fmt: skip
        asked("breaker_open", "Open circuit breakers: Triton is not asked for now.",
              lambda: sum(breaker.open for breaker in self.breakers))  # fmt: skip

    def trace(self, tracing: Tracing | None) -> None:
        self.tracing = self.stage.tracing = self.variants.tracing = tracing

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        self._inflight.inc()
        try:
            yield
        finally:
            self._inflight.dec()

    def answered(self, route: str, status: int, began: float) -> None:
        """Count one answer; `began` is `perf_counter()` when the request was there. Whoever is
        turned away had no answer that took time: many of them would look like a quick service."""
        self._requests_of(route, status).inc()
        if status != 429:
            self._seconds_of(route).observe(perf_counter() - began)

    def fell_back(self, cause: str) -> None:
        """An answer with popular items, for one of FALLBACK_CAUSES."""
        self.fallbacks.labels(cause).inc()
        if self.tracing is not None:
            self.tracing.fell_back(cause)

    def refused(self, reason: str) -> None:
        """A request turned away, for RATE or OVERLOAD."""
        self._refused[reason].inc()

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)


class EventMetrics:
    """Of /v1/events: what became of the events, and how old they were."""

    def __init__(self, registry: CollectorRegistry) -> None:
        events = Counter(
            "recserve_events", "Events received, by what became of them.",
            ["outcome"], registry=registry,
        )  # fmt: skip
        self._kept = [events.labels(name) for name in ("accepted", "duplicate", "forgotten")]
        self._refused = events.labels("refused")
        self._lag = Histogram(
            "recserve_event_lag_seconds", "Time from an event to its arrival here.",
            buckets=LAGS, registry=registry,
        )  # fmt: skip

    @contextmanager
    def taking(self, count: int) -> Iterator[None]:
        """`count` events that are refused, all of them, if the block fails."""
        try:
            yield
        except Exception:
            self._refused.inc(count)
            raise

    def taken(self, counted: tuple[int, int, int], lags: Iterable[float]) -> None:
        """Accepted, duplicates, forgotten; and of each event the seconds it was under way."""
        for outcome, count in zip(self._kept, counted, strict=True):
            outcome.inc(count)
        for lag in lags:
            self._lag.observe(lag)


class VariantMetrics:
    """Of /v1/recommend, by variant (`default` among them) and release; and what shadows did."""

    tracing: Tracing | None = None

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, what: str) -> Counter:
            return Counter(f"recserve_{name}", what, LABELS, registry=registry)

        def histogram(name: str, what: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"recserve_{name}", what, LABELS, buckets=buckets, registry=registry)

        self.requests = counter("variant_requests", "Requests answered.")
        self.fallbacks = counter("variant_fallbacks", "Of these, by popular items.")
        self.seconds = histogram("variant_seconds", "Time to the answer.", SECONDS)
        self.stops = counter("canary_stops", "Canaries stopped because they were worse.")
        self.copies = counter("shadow_requests", "Requests copied to a shadow, and answered.")
        self.failures = counter("shadow_failures", "Of these, by popular items or not at all.")
        self.dropped = counter("shadow_dropped", "Not copied: too many copies under way.")
        self.copy_seconds = histogram("shadow_seconds", "Time to the shadow's answer.", SECONDS)
        self.overlap = histogram(
            "shadow_overlap", "Items of the given answer that the shadow gave too, as a part.",
            TENTHS,
        )  # fmt: skip
        self._requests_of = lru_cache(64)(self.requests.labels)
        self._seconds_of = lru_cache(64)(self.seconds.labels)

    def answered(self, variant: str, release: int, fallback: bool, seconds: float) -> None:
        self._requests_of(variant, release).inc()
        self._seconds_of(variant, release).observe(seconds)
        if fallback:
            self.fallbacks.labels(variant, release).inc()
        if self.tracing is not None:
            self.tracing.answered(variant, release, fallback)
