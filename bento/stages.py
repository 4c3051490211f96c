"""How long each stage of an answer takes, and how often it fails; its span where traces are wanted.

    with metrics.stage(STORE):
        person = await store.person(...)

Latency (`recserve_stage_seconds`), traffic (its count), errors and saturation (how many are in
it) of a stage; what waits before it stands in `bento/metrics.py`. Knows nothing of what a stage
does.
"""

from __future__ import annotations

from asyncio import CancelledError
from contextlib import AbstractContextManager
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import TYPE_CHECKING

from bento.prometheus import CollectorRegistry, Counter, Gauge, Histogram

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
        under_way = Gauge(
            "recserve_stage_under_way", "Requests that are in a stage, or wait in it.",
            ["stage"], registry=registry,
        )  # fmt: skip
        # Looking labels up costs more than counting.
        self._of = {name: _Stage(seconds.labels(name), errors.labels(name)) for name in STAGES}
        for name, stage in self._of.items():
            under_way.labels(name).set_function(partial(getattr, stage, "under_way"))

    def __call__(self, name: str) -> AbstractContextManager[None]:
        return _Passage(self._of[name], None if self.tracing is None else self.tracing.stage(name))


class _Stage:
    __slots__ = ("errors", "seconds", "under_way")

    def __init__(self, seconds: Histogram, errors: Counter) -> None:
        self.seconds, self.errors, self.under_way = seconds, errors, 0


class _Passage:
    __slots__ = ("_began", "_span", "_stage")

    def __init__(self, stage: _Stage, span: AbstractContextManager[object] | None) -> None:
        self._stage, self._span = stage, span

    def __enter__(self) -> None:
        if self._span is not None:
            self._span.__enter__()
        self._stage.under_way += 1
        self._began = perf_counter()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stage.under_way -= 1
        self._stage.seconds.observe(perf_counter() - self._began)
        if kind is not None and not issubclass(kind, CancelledError):  # a caller that has gone
            self._stage.errors.inc()
        if self._span is not None:
            self._span.__exit__(kind, error, trace)
