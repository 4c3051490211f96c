"""What the service counts, for Prometheus. Knows no request and no model."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from time import perf_counter

# BentoML switches prometheus-client to files shared by all its workers, in a
# folder that a second server on the machine wipes. Its own metrics are off and
# the service has one worker: plain numbers in memory are right, and cheaper.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, of no use to a rate

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5)


class Metrics:
    """One registry of its own, so that two services in one process do not meet."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "recserve_requests",
            "Requests answered.",
            ["route", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "recserve_request_seconds",
            "Time from the whole request to its answer.",
            ["route"],
            buckets=SECONDS,
            registry=self._registry,
        )
        self.fallbacks = Counter(
            "recserve_fallback",
            "Answers with popular items because Triton gave none.",
            ["cause"],
            registry=self._registry,
        )
        self.overflow = Counter(
            "recserve_exclude_overflow",
            "Exclusions beyond what the model takes, dropped from its answers afterwards.",
            registry=self._registry,
        )
        self.release = Gauge(
            "recserve_release", "Number of the release that serves.", registry=self._registry
        )
        self._inflight = Gauge(
            "recserve_inflight_requests", "Requests being answered.", registry=self._registry
        )
        self.variants = VariantMetrics(self._registry)
        for cause in FALLBACK_CAUSES:
            self.fallbacks.labels(cause)  # present from the start: rate() needs a zero
        # Looking labels up costs more than counting.
        self._requests_of = lru_cache(256)(self._requests.labels)
        self._seconds_of = lru_cache(256)(self._seconds.labels)

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        self._inflight.inc()
        try:
            yield
        finally:
            self._inflight.dec()

    def answered(self, route: str, status: int, began: float) -> None:
        """Count one answer; `began` is `perf_counter()` when the request was there."""
        self._requests_of(route, status).inc()
        self._seconds_of(route).observe(perf_counter() - began)

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)


class VariantMetrics:
    """Of /v1/recommend, by variant (`default` among them) and release; and what shadows did."""

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


LABELS = ("variant", "release")
TENTHS = tuple(tenth / 10 for tenth in range(11))
LATE, UNAVAILABLE, REFUSED = "deadline", "unavailable", "refused"
FALLBACK_CAUSES = (LATE, UNAVAILABLE, REFUSED)
