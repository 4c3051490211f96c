"""An OpenTelemetry collector as small as can be: takes OTLP over HTTP, keeps the spans."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

SERVER, CLIENT, INTERNAL = (
    trace_pb2.Span.SPAN_KIND_SERVER,
    trace_pb2.Span.SPAN_KIND_CLIENT,
    trace_pb2.Span.SPAN_KIND_INTERNAL,
)

IDS = ("traceId", "spanId", "parentSpanId")


@dataclass(frozen=True, kw_only=True)
class Told:
    """A span as it came over the wire."""

    service: str
    name: str
    kind: int
    trace: str  # hexadecimal, like the next two
    id: str
    parent: str
    links: tuple[str, ...]  # ids of spans
    attributes: dict[str, Any]
    failed: bool


class Collector:
    def __init__(self, url: str) -> None:
        self.url = url
        self.raw = b""  # everything that came, to look for what must not be in it
        self.spans: list[Told] = []

    def take(self, body: bytes, content_type: str) -> None:
        self.raw += body
        if content_type == "application/json":
            asked = json_format.ParseDict(in_base64(json.loads(body)), ExportTraceServiceRequest())
        else:
            asked = ExportTraceServiceRequest.FromString(body)
        for of in asked.resource_spans:
            service = attributes(of.resource.attributes).get("service.name", "")
            self.spans += [told(service, span) for scope in of.scope_spans for span in scope.spans]

    def named(self, name: str, *, trace: str | None = None) -> list[Told]:
        return [s for s in self.spans if s.name == name and trace in (None, s.trace)]

    def wait(self, enough: Callable[[], object], what: str, seconds: float = 60) -> None:
        until = time.monotonic() + seconds
        while not enough():
            assert time.monotonic() < until, f"no {what} among {[s.name for s in self.spans]}"
            time.sleep(0.05)


def in_base64(value: Any) -> Any:
    """OTLP's JSON (Triton speaks it) writes ids in hexadecimal, protobuf's reads base64."""
    if isinstance(value, list):
        return [in_base64(v) for v in value]
    if not isinstance(value, dict):
        return value
    return {
        key: base64.b64encode(bytes.fromhex(v)).decode() if key in IDS else in_base64(v)
        for key, v in value.items()
    }


def attributes(pairs: Any) -> dict[str, Any]:
    return {p.key: getattr(p.value, p.value.WhichOneof("value")) for p in pairs}


def told(service: str, span: trace_pb2.Span) -> Told:
    return Told(
        service=service,
        name=span.name,
        kind=span.kind,
        trace=span.trace_id.hex(),
        id=span.span_id.hex(),
        parent=span.parent_span_id.hex(),
        links=tuple(link.span_id.hex() for link in span.links),
        attributes=attributes(span.attributes),
        failed=span.status.code == trace_pb2.Status.STATUS_CODE_ERROR,
    )


@contextmanager
def collecting() -> Iterator[Collector]:
    """On a free port of 127.0.0.1, in a thread."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            right = self.path == "/v1/traces"
            if right:
                collector.take(body, self.headers["content-type"])
            self.send_response(200 if right else 404)
            self.send_header("content-type", "application/x-protobuf")
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    collector = Collector(f"http://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
