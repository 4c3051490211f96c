"""Named arrays -> Triton -> named arrays over gRPC. It and control.py alone use tritonclient."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from client.triton_errors import (
    QUEUE_REFUSALS,
    failed,
    is_not_loaded,
    nobody,
    not_loaded,
    refused,
    too_busy,
    too_late,
)
from client.wire_types import NUMPY_TYPES, Headers, wire_type
from recommender.contract import Array
from recommender.errors import BadInput, NotFound, RecserveError, Unavailable

CHANNEL_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A name that resolves to several servers (a headless Service) uses them all.
    ("grpc.lb_policy_name", "round_robin"),
    # When a connection ends, the name is asked again; by default not more often than every 30 s.
    ("grpc.dns_min_time_between_resolutions_ms", 2000),
    # Back within a second of a restart; the defaults wait up to two minutes. The minimum is also
    # how long one attempt may take: a busy server greets late.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 1000),
    # One connection per client: channels to one address would share theirs otherwise.
    ("grpc.use_local_subchannel_pool", 1),
]


class TritonGrpc:
    def __init__(self, address: str) -> None:
        self.address = address

    @cached_property
    def _channel(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.address, options=CHANNEL_OPTIONS)

    @cached_property
    def stub(self) -> Any:
        return service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def infer(
        self,
        model: str,
        version: int,
        inputs: Mapping[str, Array],
        *,
        timeout_s: float | None = None,
        headers: Headers = (),
    ) -> dict[str, Array]:
        request = _request(model, version, inputs)
        response = await self.call("ModelInfer", request, timeout_s=timeout_s, headers=headers)
        return {
            tensor.name: np.frombuffer(raw, NUMPY_TYPES[tensor.datatype]).reshape(tensor.shape)
            for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True)
        }

    async def ready(self, model: str, version: int) -> bool:
        request = service_pb2.ModelReadyRequest(name=model, version=str(version))
        try:
            return bool((await self.call("ModelReady", request, timeout_s=5)).ready)
        except (NotFound, BadInput):
            return False

    async def live(self) -> bool:
        try:
            response = await self.call("ServerLive", service_pb2.ServerLiveRequest(), timeout_s=5)
        except Unavailable:
            return False
        return bool(response.live)

    async def close(self) -> None:
        if "_channel" in vars(self):
            await self._channel.close()

    async def call(
        self,
        method: str,
        request: Any,
        *,
        timeout_s: float | None,
        headers: Headers = (),
    ) -> Any:
        """One call of Triton's gRPC service, its failure translated."""
        try:
            called = getattr(self.stub, method)(request, timeout=timeout_s, metadata=headers)
            return await called
        except grpc.aio.AioRpcError as error:
            raise self.failure(error, timeout_s) from error

    def failure(self, error: grpc.aio.AioRpcError, timeout_s: float | None) -> RecserveError:
        code, details = error.code(), error.details() or ""
        if code is grpc.StatusCode.DEADLINE_EXCEEDED:
            return too_late(self.address, timeout_s)
        if code is grpc.StatusCode.NOT_FOUND or is_not_loaded(details):
            return not_loaded(details)
        if code is grpc.StatusCode.INVALID_ARGUMENT:
            return refused(details)
        if details.endswith(QUEUE_REFUSALS):
            return too_busy(self.address, details)
        if code is grpc.StatusCode.UNAVAILABLE:
            return nobody(self.address, details)
        return failed(self.address, details)


def _request(
    model: str, version: int, inputs: Mapping[str, Array]
) -> service_pb2.ModelInferRequest:
    """Straight into the protobuf: one copy of each tensor, none of tritonclient's objects."""
    request = service_pb2.ModelInferRequest(model_name=model, model_version=str(version))
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=wire_type(name, array), shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request
