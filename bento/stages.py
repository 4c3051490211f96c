"""How long each stage of an answer takes, and how often it fails; its span where traces are wanted.

    with metrics.stage(STORE):
        person = await store.person(...)

Latency (`recserve_stage_seconds`), traffic (its count) and errors of a stage; what is saturated
stands in `bento/metrics.py`. Knows nothing of what a stage does.
"""

from __future__ import annotations

from asyncio import CancelledError
from contextlib import AbstractContextManager
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING

from bento.prometheus import CollectorRegistry, Counter, Histogram

if TYPE_CHECKING:
    from bento.tracing import Tracing

PREPROCESS, STORE, TRITON, POSTPROCESS = "preprocess", "store", "triton", "postprocess"
STAGES = (PREPROCESS, STORE, TRITON, POSTPROCESS)
# From what preprocessing costs (tens of microseconds) to the longest deadline.
BUCKETS = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5),
)


class Stages:
    """`stages(name)` times one passage; `tracing` is None while nobody wants traces."""

    tracing: Tracing | None = None

    def __init__(self, registry: CollectorRegistry) -> None:
        seconds = Histogram(
            "recserve_stage_seconds", "Time of one passage through a stage.",
            ["stage"], buckets=BUCKETS, registry=registry,
        )  # fmt: skip
        errors = Counter(
            "recserve_stage_errors", "Passages that an error ended, lateness among them.",
            ["stage"], registry=registry,
        )  # fmt: skip
        # Looking labels up costs more than counting.
        self._of = {name: (seconds.labels(name), errors.labels(name)) for name in STAGES}

    def __call__(self, name: str) -> AbstractContextManager[None]:
        seconds, errors = self._of[name]
        return _Passage(seconds, errors, None if self.tracing is None else self.tracing.stage(name))


class _Passage:
    __slots__ = ("_began", "_errors", "_seconds", "_span")

    def __init__(
        self, seconds: Histogram, errors: Counter, span: AbstractContextManager[object] | None
    ) -> None:
        self._seconds, self._errors, self._span = seconds, errors, span

    def __enter__(self) -> None:
        if self._span is not None:
            self._span.__enter__()
        self._began = perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._seconds.observe(perf_counter() - self._began)
        if kind is not None and not issubclass(kind, CancelledError):  # a caller that has gone
            self._errors.inc()
        if self._span is not None:
            self._span.__exit__(kind, error, trace)
