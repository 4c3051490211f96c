"""Named arrays -> a running Triton -> named arrays, over gRPC or HTTP, asyncio.

With `client/control.py` the only user of tritonclient: every failure of the
wire leaves here as an error of ours. Knows no model and no contract, only names,
versions and arrays.

    Unavailable   nobody answers at the address, too late, or the model failed inside
    NotFound      no such model or version is loaded
    BadInput      Triton refused the tensors by name, type or shape
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from recommender.contract import Array
from recommender.errors import BadInput, NotFound, RecserveError, Unavailable

WIRE_TYPES = {
    np.dtype(np.int64): "INT64",
    np.dtype(np.int32): "INT32",
    np.dtype(np.float32): "FP32",
    np.dtype(np.bool_): "BOOL",
}
Headers = Sequence[tuple[str, str]]  # of a call: the trace that it belongs to
NUMPY_TYPES: dict[str, Any] = {wire: dtype for dtype, wire in WIRE_TYPES.items()}

# Triton's words where the queue policy of config.pbtxt turns a request away.
QUEUE_REFUSALS = ("Exceeds maximum queue size", "Request timeout expired")

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


class Triton(Protocol):
    """What both transports do; use and close each inside one event loop."""

    address: str

    async def infer(
        self,
        model: str,
        version: int,
        inputs: Mapping[str, Array],
        *,
        timeout_s: float | None = None,
        headers: Headers = (),
    ) -> dict[str, Array]:
        """All outputs by name, as read-only arrays. Raises Unavailable, NotFound, BadInput."""

    async def ready(self, model: str, version: int) -> bool:
        """Is exactly this version loaded? (The server's own readiness says yes too early.)

        False too for an unknown model; raises Unavailable when nobody answers.
        """

    async def live(self) -> bool:
        """Does a server answer at all? Never raises Unavailable."""

    async def close(self) -> None: ...


def connect(address: str) -> Triton:
    """A client for `grpc://host:port` (the scheme may be left out) or `triton+http://host:port`.

    Connects on first use. Raises BadInput for another scheme.
    """
    scheme, mark, rest = address.partition("://")
    if not mark or scheme == "grpc":
        return TritonGrpc(rest if mark else address)
    if scheme == "triton+http":
        return TritonHttp(rest)
    raise BadInput(
        f"address {address!r} has an unknown scheme",
        remedy="Use grpc://host:port or triton+http://host:port.",
        field="address",
        value=address,
    )


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


class TritonHttp:
    """The binary tensor extension of Triton's HTTP protocol."""

    def __init__(self, address: str) -> None:
        self.address = address

    @cached_property
    def _client(self) -> Any:
        from tritonclient.http import aio  # pulls in aiohttp and gevent: only where used

        return aio.InferenceServerClient(self.address, conn_limit=0, conn_timeout=None)

    async def infer(
        self,
        model: str,
        version: int,
        inputs: Mapping[str, Array],
        *,
        timeout_s: float | None = None,
        headers: Headers = (),
    ) -> dict[str, Array]:
        from tritonclient.http import InferInput

        tensors = []
        for name, array in inputs.items():
            tensor = InferInput(name, list(array.shape), _wire_type(name, array))
            tensors.append(tensor.set_data_from_numpy(array, binary_data=True))
        call = self._client.infer(model, tensors, str(version), headers=dict(headers))
        result = await self._call(call, timeout_s)
        return {o["name"]: result.as_numpy(o["name"]) for o in result.get_response()["outputs"]}

    async def ready(self, model: str, version: int) -> bool:
        try:
            return bool(await self._call(self._client.is_model_ready(model, str(version)), 5))
        except (NotFound, BadInput):
            return False

    async def live(self) -> bool:
        try:
            return bool(await self._call(self._client.is_server_live(), 5))
        except Unavailable:
            return False

    async def close(self) -> None:
        if "_client" in vars(self):
            await self._client.close()

    async def _call(self, call: Any, timeout_s: float | None) -> Any:
        import aiohttp
        from tritonclient.utils import InferenceServerException

        try:
            async with asyncio.timeout(timeout_s):
                return await call
        except TimeoutError as error:
            raise too_late(self.address, timeout_s) from error
        except aiohttp.ClientError as error:
            raise nobody(self.address, str(error)) from error
        except InferenceServerException as error:
            status, details = error.status(), error.message()
            if status == "404" or is_not_loaded(details):
                raise not_loaded(details) from error
            if details.endswith(QUEUE_REFUSALS):
                raise too_busy(self.address, details) from error
            raise (
                refused(details) if status == "400" else failed(self.address, details)
            ) from error


def _request(
    model: str, version: int, inputs: Mapping[str, Array]
) -> service_pb2.ModelInferRequest:
    """Straight into the protobuf: one copy of each tensor, none of tritonclient's objects."""
    request = service_pb2.ModelInferRequest(model_name=model, model_version=str(version))
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype=_wire_type(name, array), shape=array.shape)
        request.raw_input_contents.append(array.tobytes())
    return request


def _wire_type(name: str, array: Array) -> str:
    if wire := WIRE_TYPES.get(array.dtype):
        return wire
    raise BadInput(
        f"input {name} is {array.dtype}",
        remedy=f"Send one of {', '.join(map(str, WIRE_TYPES))}.",
        field=name,
    )


def too_late(address: str, timeout_s: float | None) -> Unavailable:
    return Unavailable(
        f"Triton at {address} did not answer within {timeout_s:g} s"
        if timeout_s
        else f"Triton at {address} did not answer in time",
        remedy="Allow more time, or lower the load.",
    )


class TooBusy(Unavailable):
    """Triton's queue policy turned the request away."""


def too_busy(address: str, details: str) -> TooBusy:
    return TooBusy(
        f"Triton at {address} has too much to do ({one_line(details)})",
        remedy="Lower the load, or raise max_queue_size or queue_timeout_us in triton.toml.",
        value=one_line(details),
    )


def nobody(address: str, details: str) -> Unavailable:
    return Unavailable(
        f"no Triton answers at {address} ({one_line(details)})",
        remedy="Start it with `recserve serve`, or name its address.",
    )


def refused(details: str) -> BadInput:
    return BadInput(
        f"Triton refused the request: {one_line(details)}",
        remedy="Send the tensors that the model's config.pbtxt declares.",
        value=one_line(details),
    )


def not_loaded(details: str) -> NotFound:
    return NotFound(
        f"Triton has no such model: {one_line(details)}",
        remedy="Load its release, or name one that is loaded.",
        value=one_line(details),
    )


def failed(address: str, details: str) -> Unavailable:
    return Unavailable(
        f"Triton at {address} could not answer: {one_line(details)}",
        remedy="See Triton's log.",
        value=one_line(details),
    )


def is_not_loaded(details: str) -> bool:
    """Triton says so with several codes, depending on who asks for what."""
    return "is not at ready state" in details or details.endswith("is not available")


def one_line(details: str) -> str:
    """Triton's message on one line, without the python stack and the advice it appends."""
    text = re.sub(r"\[request id: [^]]*\] ", "", details)
    for tail in ("\n\nAt:", "NOTE: "):
        text = text.partition(tail)[0]
    return " ".join(text.split()).rstrip(".;")
