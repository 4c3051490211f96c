"""Traces over the wire: a real service and a real tritonserver, and who receives what they tell."""

from __future__ import annotations

import asyncio
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import psutil
import pytest
import toy
from bento_process import CLOCK, Service, answers, bentoml_serve, wait_until, write_release
from otlp_receiver import CLIENT, INTERNAL, SERVER, Collector, Told, collecting
from ports import free_ports
from tritonclient.grpc import service_pb2, service_pb2_grpc

from bento.tracing import endpoint, start, wanted
from client.tensors import connect
from recommender.contract import Array
from recommender.errors import BadInput, MachineError
from recommender.release import read_release
from serving import tritonserver
from serving.tritonserver import Ports

MODEL = "recommender_onnx"
EXPORTER = "opentelemetry.exporter.otlp.proto.http.trace_exporter"
QUICK = {"OTEL_BSP_SCHEDULE_DELAY": "100"}  # ms until spans leave


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tmp = tmp_path_factory.mktemp("traced")
    toy.write_onnx(tmp / "model.onnx")
    toy.add_model(tmp / "repository", MODEL, "onnxruntime", tmp / "model.onnx")
    write_release(tmp / "repository", toy.LIMITS, items=toy.ITEMS - 1, models=(MODEL,))
    return tmp / "repository"


@pytest.fixture(scope="module")
def triton(collector: Collector, repository: Path) -> Iterator[Ports]:
    """As `recserve serve` starts it where the environment names a collector."""
    ports, log = Ports(*free_ports(3)), repository.parent / "triton.log"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        process = tritonserver.launch(repository, ports, log=log)
    try:
        tritonserver.load_release(read_release(repository), ports, process=process, log=log)
        yield ports
    finally:
        tritonserver.stop(process)


@pytest.fixture(scope="module")
def service(
    triton: Ports, repository: Path, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    variables = {
        "RECSERVE_REPOSITORY": str(repository),
        "RECSERVE_TRITON": f"triton+http://127.0.0.1:{triton.http}",  # over gRPC it loses some
        "RECSERVE_DEADLINE_MS": "2000",  # a loaded test machine is no outage
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
        **QUICK,
    }
    with bentoml_serve(tmp_path_factory.mktemp("bento"), variables) as running:
        wait_until(lambda: answers(running.http, "/readyz"))
        yield running


def asked(service: Service, path: str = "/v1/recommend", **body: object) -> tuple[str, str]:
    """Trace and span of a caller that asks."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    service.http.post(path, json=body, headers={"traceparent": f"00-{trace}-{span}-01"})
    return trace, span


def one(collector: Collector, name: str, trace: str) -> Told:
    collector.wait(lambda: collector.named(name, trace=trace), name)
    (span,) = collector.named(name, trace=trace)
    return span


def test_a_request_its_stages_the_call_and_triton_are_one_trace(
    service: Service, collector: Collector
) -> None:
    trace, caller = asked(service, user_id="reader", context={"time": CLOCK})
    inside = one(collector, "InferRequest", trace)  # Triton's name for it
    request = one(collector, "POST /v1/recommend", trace)
    assert (request.kind, request.service, request.parent) == (SERVER, "recserve", caller)
    assert not request.failed
    stages = {name: one(collector, name, trace) for name in ("preprocess", "triton", "postprocess")}
    assert {(stage.parent, stage.kind) for stage in stages.values()} == {(request.id, INTERNAL)}
    call = one(collector, "ModelInfer", trace)
    assert (call.kind, call.parent, call.links) == (CLIENT, stages["triton"].id, ())
    assert (inside.service, inside.parent) == ("triton", call.id)
    attributes = dict(request.attributes)
    assert attributes.pop("recserve.request_id")
    assert attributes == {
        "http.request.method": "POST",
        "http.route": "/v1/recommend",
        "http.response.status_code": 200,
        "recserve.variant": "default",
        "recserve.release": 1,
        "recserve.fallback": False,
    }
    assert call.attributes == {"recserve.model": MODEL, "recserve.release": 1, "recserve.rows": 1}


def test_a_request_without_a_trace_begins_one(service: Service, collector: Collector) -> None:
    service.http.post("/v1/popular", json={}, headers={"x-request-id": "begins"})

    def found() -> list[Told]:
        spans = collector.named("POST /v1/popular")
        return [s for s in spans if s.attributes["recserve.request_id"] == "begins"]

    collector.wait(found, "POST /v1/popular")
    assert [span.parent for span in found()] == [""]


def test_a_joined_call_names_every_request_that_shares_it(
    service: Service, collector: Collector
) -> None:
    async def burst(traces: list[str]) -> None:
        async with httpx.AsyncClient(base_url=service.url, trust_env=False, timeout=20) as http:
            headers = ({"traceparent": f"00-{trace}-{'b' * 16}-01"} for trace in traces)
            await asyncio.gather(
                *(http.post("/v1/recommend", json={"n": 3}, headers=head) for head in headers)
            )

    for _ in range(20):  # until some have joined: the first two calls of a burst leave alone
        traces = [secrets.token_hex(16) for _ in range(40)]
        asyncio.run(burst(traces))
        stages = {one(collector, "triton", trace).id for trace in traces}

        def calls(of: set[str] = stages) -> list[Told]:
            return [c for c in collector.named("ModelInfer") if c.parent in of]

        collector.wait(
            lambda of=stages: sum(c.attributes["recserve.rows"] for c in calls(of)) == len(of),
            "call of every row",
        )
        told = [span for call in calls() for span in (call.parent, *call.links)]
        assert sorted(told) == sorted(stages)  # each once
        assert all(len(call.links) + 1 == call.attributes["recserve.rows"] for call in calls())
        if any(call.links for call in calls()):
            return
    pytest.fail("no two of 800 requests joined")


def test_a_fallback_is_told_with_its_cause(service: Service, collector: Collector) -> None:
    trace, _ = asked(service, n=3, deadline_ms=1)
    request, stage = one(collector, "POST /v1/recommend", trace), one(collector, "triton", trace)
    assert request.attributes["recserve.fallback"] is True
    assert request.attributes["recserve.fallback.cause"] == "deadline"
    assert not request.failed  # it was answered
    assert stage.failed and stage.attributes["error.type"] == "Unavailable"


def test_no_id_and_no_word_of_a_caller_leaves_in_a_trace(
    service: Service, collector: Collector
) -> None:
    secret = "somebody-at-home"
    traces = [
        asked(service, user_id=secret, history=[secret, "i1"], filter={"exclude": [secret]})[0],
        asked(service, variant=secret, user_id=secret)[0],  # refused, quoting it
        asked(service, path=f"/v1/{secret}", user_id=secret)[0],
    ]
    names = ("POST /v1/recommend", "POST /v1/recommend", "POST other")
    spans = [one(collector, name, trace) for name, trace in zip(names, traces, strict=True)]
    statuses = [span.attributes["http.response.status_code"] for span in spans]
    assert statuses == [200, 404, 404]
    assert secret.encode() not in collector.raw and b"reader" not in collector.raw


def test_scrapes_and_documents_are_not_traced(service: Service, collector: Collector) -> None:
    service.http.get("/metrics")
    service.http.get("/docs.json")
    one(collector, "POST /v1/recommend", asked(service)[0])  # by now they would be there
    assert not [s for s in collector.spans if s.kind == SERVER and "/v1/" not in s.name
                and s.service == "recserve" and s.name != "POST other"]  # fmt: skip


@pytest.mark.parametrize("scheme", ["grpc", "triton+http"])
def test_triton_takes_the_trace_from_either_transport(
    scheme: str, triton: Ports, collector: Collector
) -> None:
    arrays: dict[str, Array] = {
        "history": np.array([[0, 0, 0, 1]]),
        "history_time": np.array([[0, 0, 0, 1]]),
        "history_weight": np.ones((1, 4), np.float32),
        "request_time": np.array([[2]]),
        "user_features": np.zeros((1, 2), np.int64),
        "exclude": np.zeros((1, 8), np.int64),
        "category_filter": np.zeros((1, 1), np.int64),
    }
    callers = {secrets.token_hex(16): secrets.token_hex(8) for _ in range(20)}
    # Triton's gRPC begins a trace of its own for some calls (docs/observability.md).
    port, least = (triton.grpc, 10) if scheme == "grpc" else (triton.http, 20)

    async def ask() -> None:
        client = connect(f"{scheme}://127.0.0.1:{port}")
        for trace, span in callers.items():
            headers = (("traceparent", f"00-{trace}-{span}-01"),)
            await client.infer(MODEL, 1, arrays, timeout_s=20, headers=headers)
        await client.close()

    def told() -> list[Told]:
        return [s for trace in callers for s in collector.named("InferRequest", trace=trace)]

    asyncio.run(ask())
    collector.wait(lambda: len(told()) >= least, f"{least} of InferRequest")
    assert len({span.trace for span in told()}) == len(told())
    assert all(span.parent == callers[span.trace] for span in told())


def test_every_call_over_grpc_carries_its_trace() -> None:
    """Whatever Triton makes of it: asked of a gRPC server that only listens."""
    sent = [f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01" for _ in range(50)]
    heard: list[object] = []

    class Listener(service_pb2_grpc.GRPCInferenceServiceServicer):
        async def ModelInfer(self, request: Any, context: Any) -> Any:
            heard.append(dict(context.invocation_metadata())["traceparent"])
            return service_pb2.ModelInferResponse(model_name=request.model_name, model_version="1")

    async def ask() -> None:
        server = grpc.aio.server()
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Listener(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        for trace in sent:
            client = connect(f"grpc://127.0.0.1:{port}")
            given = {"history": np.array([[1]])}
            await client.infer(MODEL, 1, given, timeout_s=20, headers=(("traceparent", trace),))
            await client.close()
        await server.stop(None)

    asyncio.run(ask())
    assert heard == sent


def test_a_collector_that_is_away_costs_no_answer_and_does_not_hold_up_the_end(
    repository: Path, triton: Ports, tmp_path: Path
) -> None:
    (nobody,) = free_ports(1)
    variables = {
        "RECSERVE_REPOSITORY": str(repository),
        "RECSERVE_TRITON": f"grpc://127.0.0.1:{triton.grpc}",
        "RECSERVE_DEADLINE_MS": "2000",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{nobody}/v1/traces",
        **QUICK,
    }
    with bentoml_serve(tmp_path, variables) as running:
        wait_until(lambda: answers(running.http, "/readyz"))
        assert not any(running.recommend(n=3)["fallback"] for _ in range(20))
        time.sleep(1)  # it is trying to send
        port = running.url.rpartition(":")[2]
        (parent,) = (p for p in psutil.Process().children() if port in p.cmdline())
        family = [parent, *parent.children(recursive=True)]
        parent.send_signal(signal.SIGINT)
        _, alive = psutil.wait_procs(family, timeout=8)  # the SDK alone would try for 30 s
        assert not alive


def test_traces_are_off_unless_a_collector_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    assert start() is None
    named = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}
    assert wanted(named) and endpoint(named) == "http://collector:4318/v1/traces"
    traces = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://there/t"}
    assert endpoint(named | traces) == "http://there/t"
    assert not wanted(named | {"OTEL_SDK_DISABLED": "true"})
    assert not wanted(named | {"OTEL_TRACES_EXPORTER": "none"})


def test_what_cannot_be_exported_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"}
    with pytest.raises(BadInput, match="'grpc'") as refused:
        wanted(named | {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert "http/protobuf" in refused.value.remedy
    monkeypatch.setitem(sys.modules, EXPORTER, None)  # as where the extra is not installed
    with pytest.raises(MachineError, match="not installed") as lacking:
        wanted(named)
    assert ".[otel]" in lacking.value.remedy
