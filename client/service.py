"""Python -> a running recserve service -> typed answers, sync and async.

    with RecserveClient("http://127.0.0.1:3000") as recserve:
        for item in recserve.recommend(user_id="196", n=5).items:
            print(item.rank, item.title)

The answer types stand here because the service encodes the same ones; the
request types mirror the body of the HTTP API, field by field. Every failure is
a RecserveError: Unavailable (nobody answers, or too late), BadInput (with the
field, its value and the remedy), NotFound (a model or route that is not there), Denied (a
key that is missing, unknown, or lacks the scope).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack

import httpx
import msgspec

from client import trust
from recommender.errors import BadInput, Denied, NotFound, RecserveError, Unavailable

URL = "http://127.0.0.1:3000"
KINDS: dict[int, type[RecserveError]] = {
    400: BadInput, 401: Denied, 403: Denied, 404: NotFound, 413: BadInput, 415: BadInput,
}  # fmt: skip
T = TypeVar("T")


class Item(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One recommended item."""

    item_id: str
    score: float
    rank: int  # from 1, counted from the best answer whatever the offset
    title: str | None = None
    categories: Sequence[str]


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to recommend() and popular()."""

    items: list[Item]
    release: int
    model: str  # the model that ranked; "popularity" for popular items
    variant: str  # "default", or the variant of releases.json whose request it was
    fallback: bool  # True: popular items, because Triton was away or too slow
    ignored: list[str]  # ids, categories and user columns the release does not know
    request_id: str


class ServedVariant(msgspec.Struct, frozen=True, kw_only=True):
    """A release that lives beside the one that serves."""

    name: str
    release: int
    model: str | None  # None: the release's first
    role: str  # "ab", "canary", "shadow"
    share: float  # percent of users; of a shadow, percent of requests copied
    state: str  # STARTING, SERVING, or STOPPED: a canary that was worse
    reason: str | None  # why it is not serving


STARTING, SERVING, STOPPED = "starting", "serving", "stopped"


class Served(msgspec.Struct, frozen=True, kw_only=True):
    """What answers at an address."""

    release: int
    family: str
    models: list[str]  # the first one answers where a request names none
    created: str | None  # ISO 8601
    variant: str
    since: float  # unix seconds: answers with this release from then on
    changed: float = 0.0  # unix seconds: neither this nor which variants there are changed since
    variants: list[ServedVariant] = []


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """What was wrong with a request."""

    field: str | None
    value: Any
    message: str
    remedy: str


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """The one shape of every error."""

    error: Fault
    request_id: str


class FilterBody(TypedDict, total=False):
    categories: Sequence[str]  # any of them
    exclude: Sequence[str]  # item ids never to return


class ContextBody(TypedDict, total=False):
    time: int  # unix seconds, default now


class RecommendBody(TypedDict, total=False):
    """The body of POST /v1/recommend; every field may be left out."""

    user_id: str
    user: Mapping[str, str | int | float | bool | None]  # columns, before those of training
    history: Sequence[str]  # item ids, oldest first, instead of the stored history
    n: int
    offset: int
    filter: FilterBody
    context: ContextBody
    allow_seen: bool
    model: str
    variant: str
    deadline_ms: int


class PopularBody(TypedDict, total=False):
    """The body of POST /v1/popular."""

    n: int
    offset: int
    filter: FilterBody


class RecserveClient:
    """A client with one pool of connections; close it, or use it as a context manager."""

    def __init__(
        self,
        url: str = URL,
        *,
        timeout_s: float = 5.0,
        key: str | None = None,  # default: RECSERVE_KEY
        ca: trust.Authority | None = None,  # default: RECSERVE_CA, else the usual ones
    ) -> None:
        self.url = url
        with _Failures(url):
            self._http = httpx.Client(
                base_url=url,
                timeout=timeout_s,
                headers=trust.headers(key),
                verify=trust.authority(ca),
            )

    def recommend(self, **body: Unpack[RecommendBody]) -> Answer:
        """Items for a user, best first."""
        return self._post("/v1/recommend", body)

    def popular(self, **body: Unpack[PopularBody]) -> Answer:
        """The most popular items of the release."""
        return self._post("/v1/popular", body)

    def release(self) -> Served:
        """The release that answers now."""
        with _Failures(self.url):
            return _decoded(self._http.get("/v1/release"), Served)

    def ready(self) -> bool:
        """Has the service loaded its catalogue and heard from Triton once?"""
        with _Failures(self.url):
            return self._http.get("/readyz").is_success

    def _post(self, path: str, body: object) -> Answer:
        with _Failures(self.url):
            return _decoded(self._http.post(path, content=msgspec.json.encode(body)), Answer)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncRecserveClient:
    """RecserveClient for asyncio."""

    def __init__(
        self,
        url: str = URL,
        *,
        timeout_s: float = 5.0,
        key: str | None = None,  # default: RECSERVE_KEY
        ca: trust.Authority | None = None,  # default: RECSERVE_CA, else the usual ones
    ) -> None:
        self.url = url
        with _Failures(url):
            self._http = httpx.AsyncClient(
                base_url=url,
                timeout=timeout_s,
                headers=trust.headers(key),
                verify=trust.authority(ca),
            )

    async def recommend(self, **body: Unpack[RecommendBody]) -> Answer:
        """Items for a user, best first."""
        return await self._post("/v1/recommend", body)

    async def popular(self, **body: Unpack[PopularBody]) -> Answer:
        """The most popular items of the release."""
        return await self._post("/v1/popular", body)

    async def release(self) -> Served:
        """The release that answers now."""
        with _Failures(self.url):
            return _decoded(await self._http.get("/v1/release"), Served)

    async def ready(self) -> bool:
        """Has the service loaded its catalogue and heard from Triton once?"""
        with _Failures(self.url):
            return (await self._http.get("/readyz")).is_success

    async def _post(self, path: str, body: object) -> Answer:
        with _Failures(self.url):
            return _decoded(await self._http.post(path, content=msgspec.json.encode(body)), Answer)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _decoded(response: httpx.Response, wanted: type[T]) -> T:
    if response.is_success:
        return msgspec.json.decode(response.content, type=wanted)
    kind = KINDS.get(response.status_code, Unavailable)
    try:
        fault = msgspec.json.decode(response.content, type=Refusal).error
    except msgspec.MsgspecError as error:
        raise Unavailable(
            f"{response.url} answered {response.status_code}, not in recserve's words",
            remedy="Check that the address is that of a recserve service.",
        ) from error
    raise kind(fault.message, remedy=fault.remedy, field=fault.field, value=fault.value)


class _Failures:
    """`with _Failures(url):` turns what httpx and msgspec raise into errors of ours."""

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
