"""Requests -> OpenTelemetry spans -> an OTLP collector, when the environment names one.

    POST /v1/recommend          one a request; a caller's traceparent is its parent
      ├ preprocess, store, ...  one a stage (`bento/stages.py`)
      └ triton
          └ ModelInfer          one a call of Triton, whose headers carry it on; links to the
                                other requests whose rows went with it

Off unless OTEL_EXPORTER_OTLP_ENDPOINT (or the one for traces) is set; every other OTEL_* variable
means what the specification says. BentoML's own tracing stays off, so nothing is told twice.
Spans carry no ids of people, and no words of errors (a refusal quotes what the caller sent):
kinds, numbers and names of ours alone.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.trace import Link, Span, SpanKind, StatusCode, Tracer
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from bento.app import App, Receive, Scope, Send
from bento.metrics import Metrics
from client.wire_types import Headers
from recommender.errors import BadInput, MachineError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
CLOSE_S = 1.0
TRACED = "/v1/"  # no scrapes, no documents
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
W3C = TraceContextTextMapPropagator()
CARRIED = ("traceparent", "tracestate")


def endpoint(environment: Mapping[str, str] = os.environ) -> str | None:
    """Where traces are to go, the whole URL; None where nobody wants them."""
    of_traces, of_all = (environment.get(name, "").strip() for name in ENDPOINTS)
    off = environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if off or environment.get("OTEL_TRACES_EXPORTER", "").strip() == "none":
        return None
    return of_traces or (f"{of_all.rstrip('/')}/v1/traces" if of_all else None)


def wanted(environment: Mapping[str, str] = os.environ) -> bool:
    """Does the environment name a collector? Raises BadInput for one that speaks no OTLP/HTTP,
    MachineError without the exporter."""
    collector = endpoint(environment)
    if collector is None:
        return False
    protocol = next(filter(None, (environment.get(p, "").strip() for p in PROTOCOLS)), PROTOCOL)
    if protocol != PROTOCOL:
        raise BadInput(
            f"traces are to be sent by OTLP {protocol!r}",
            remedy=f"Set OTEL_EXPORTER_OTLP_PROTOCOL to {PROTOCOL} (port 4318 of most collectors).",
            field="OTEL_EXPORTER_OTLP_PROTOCOL",
            value=protocol,
        )
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: F401
    except ImportError as error:
        raise MachineError(
            f"traces are to go to {collector}, and the OTLP exporter is not installed",
            remedy="Run `pip install -c constraints.txt -e '.[otel]'`, or unset the endpoint.",
        ) from error
    return True


def start() -> Tracing | None:
    """In the process that serves: it sends from a thread. Raises what `wanted` raises."""
    return Tracing(_exporting()) if wanted() else None


class Tracing:
    """Of one worker; `start` makes it."""

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer: Tracer = provider.get_tracer("recserve")

    async def close(self) -> None:
        """Sends what waits; what the collector has not taken in CLOSE_S is lost."""
        # The SDK would try for half a minute, and is not to be interrupted.
        sending = Thread(target=self._provider.shutdown, daemon=True)
        sending.start()
        await asyncio.to_thread(sending.join, CLOSE_S)

    def request(self, method: str, route: str, headers: Mapping[bytes, bytes]) -> Any:
        """Around one request; a context manager that gives its span."""
        method = method if method in METHODS else "_OTHER"
        carrier = {
            name: value.decode("latin-1")
            for name in CARRIED
            if (value := headers.get(name.encode())) is not None
        }
        return self._tracer.start_as_current_span(
            f"{method} {route}",
            context=W3C.extract(carrier),
            kind=SpanKind.SERVER,
            attributes={"http.request.method": method, "http.route": route},
            record_exception=False,
            set_status_on_exception=False,
        )

    def answered(self, variant: str, release: int, fallback: bool) -> None:
        """Of the request that is being answered."""
        trace.get_current_span().set_attributes(
            {
                "recserve.variant": variant,
                "recserve.release": release,
                "recserve.fallback": fallback,
            }
        )

    def fell_back(self, cause: str) -> None:
        trace.get_current_span().set_attribute("recserve.fallback.cause", cause)

    @contextmanager
    def stage(self, name: str) -> Iterator[Span]:
        """A child of the request's span; nothing where there is none (warm-up, shadows)."""
        if not trace.get_current_span().get_span_context().is_valid:
            yield trace.INVALID_SPAN
            return
        with self._span(name) as span:
            yield span

    # --- calls of Triton (client/join.py)

    def here(self) -> object:
        return trace.get_current_span()

    @contextmanager
    def call(self, model: str, version: int, requests: Sequence[object]) -> Iterator[Headers]:
        spans = [s for s in requests if isinstance(s, Span) and s.get_span_context().is_valid]
        if not spans:
            yield ()
            return
        # A span has one parent: one that is recorded, so that the call is recorded too.
        spans.sort(key=lambda span: not span.is_recording())
        with self._span(
            "ModelInfer",
            context=trace.set_span_in_context(spans[0]),
            kind=SpanKind.CLIENT,
            links=[Link(span.get_span_context()) for span in spans[1:]],
            attributes={
                "recserve.model": model,
                "recserve.release": version,
                "recserve.rows": len(requests),
            },
        ):
            carrier: dict[str, str] = {}
            W3C.inject(carrier)
            yield tuple(carrier.items())

    @contextmanager
    def _span(self, name: str, **more: Any) -> Iterator[Span]:
        """A span that fails with the kind of an error, and none of its words."""
        with self._tracer.start_as_current_span(
            name, record_exception=False, set_status_on_exception=False, **more
        ) as span:
            try:
                yield span
            except Exception as error:
                span.set_status(StatusCode.ERROR)
                span.set_attribute("error.type", type(error).__name__)
                raise


class Traced:
    """The application with a span around each request, where traces are wanted."""

    def __init__(self, app: App, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tracing = self._metrics.tracing
        if tracing is None or scope["type"] != "http" or not scope["path"].startswith(TRACED):
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        route = path if path in self._app.routes else "other"  # a name that anybody made up
        with tracing.request(scope["method"], route, dict(scope["headers"])) as span:

            async def told(message: Mapping[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    _tell(span, message)
                await send(message)

            await self._app(scope, receive, told)


def _tell(span: Span, message: Mapping[str, Any]) -> None:
    status: int = message["status"]
    span.set_attribute("http.response.status_code", status)
    for name, value in message["headers"]:
        if name == b"x-request-id":
            span.set_attribute("recserve.request_id", value.decode("latin-1"))
    if status >= 500:
        span.set_status(StatusCode.ERROR)


def _exporting() -> TracerProvider:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    ours = Resource.create({"service.name": "recserve"})
    provider = TracerProvider(
        resource=ours.merge(OTELResourceDetector().detect()), shutdown_on_exit=False
    )
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider
