"""What httpx raises, or the service refuses -> errors of ours, each with its remedy."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import TypeVar

import httpx
import msgspec

from client.api import Refusal
from recommender.errors import BadInput, Denied, NotFound, RecserveError, Unavailable

KINDS: Mapping[int, type[RecserveError]] = {
    **dict.fromkeys((400, 405, 413, 415), BadInput),
    **dict.fromkeys((401, 403), Denied),
    404: NotFound,
}
T = TypeVar("T")


def decoded(outcome: httpx.Response | httpx.TransportError, wanted: type[T]) -> T:
    """What the service answered; raises what it refused, or what came instead of an answer."""
    if isinstance(outcome, httpx.TransportError):
        raise outcome
    if outcome.is_success:
        return msgspec.json.decode(outcome.content, type=wanted)
    kind = KINDS.get(outcome.status_code, Unavailable)
    try:
        fault = msgspec.json.decode(outcome.content, type=Refusal).error
    except msgspec.MsgspecError as error:
        raise Unavailable(
            f"{outcome.url} answered {outcome.status_code}, not in recserve's words",
            remedy="Check that the address is that of a recserve service.",
        ) from error
    raise kind(fault.message, remedy=fault.remedy, field=fault.field, value=fault.value)


class Failures:
    """`with Failures(url):` turns what httpx and msgspec raise into errors of ours."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __enter__(self) -> None: ...

    def __exit__(
        self,
        _: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if failure := self._failure(error):
            raise failure from error

    def _failure(self, error: BaseException | None) -> RecserveError | None:
        if isinstance(error, httpx.TimeoutException):
            return Unavailable(
                f"recserve at {self.url} did not answer in time",
                remedy="Allow more time with timeout_s, or lower the load.",
            )
        if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
            return BadInput(
                f"{self.url!r} is no address of a service",
                remedy="Name it as http://host:port.",
                field="url",
                value=self.url,
            )
        if isinstance(error, httpx.HTTPError):
            return Unavailable(
                f"no recserve answers at {self.url}",
                remedy="Start it with `recserve serve`, or name its address.",
                value=str(error),
            )
        if isinstance(error, msgspec.MsgspecError):
            return Unavailable(
                f"{self.url} answered what recserve does not: {error}",
                remedy="Check that the address is that of a recserve service.",
            )
        return None
