"""Named arrays -> a running Triton -> named arrays, over gRPC or HTTP, asyncio.

Every failure of the wire leaves here as an error of ours (triton_errors.py). Knows no model and
no contract, only names, versions and arrays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from client.over_grpc import TritonGrpc
from client.over_http import TritonHttp
from client.wire_types import Headers
from recommender.contract import Array
from recommender.errors import BadInput


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
