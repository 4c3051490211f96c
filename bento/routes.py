"""Which path is answered by what: every route of the service in one table.

    bytes of a body ─> a checked struct (schemas) ─> the Router's answer ─> bytes

`bento/app.py` does the HTTP around it. Knows no release and no Triton.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import msgspec

from bento import openapi, web
from bento.access import Call
from bento.app import Handler, Route
from bento.keys import METRICS, RECOMMEND
from bento.metrics import CONTENT_TYPE, Metrics
from bento.schemas import (
    PopularRequest,
    RankRequest,
    RecommendRequest,
    SimilarRequest,
    decode,
)
from bento.variants import Router

T = TypeVar("T")


def routes(router: Router, metrics: Metrics) -> Mapping[str, Route]:
    """Everything the service answers, /livez and /readyz aside."""
    docs = openapi.document(router.default.release.limits.answers)
    all_categories = msgspec.json.encode(router.categories())

    async def describe(_: bytes, __: Call) -> bytes:
        return docs

    async def tell(_: bytes, __: Call) -> bytes:
        return msgspec.json.encode(router.served())

    async def list_categories(_: bytes, __: Call) -> bytes:
        return all_categories

    async def measure(_: bytes, __: Call) -> bytes:
        return metrics.text()

    return {
        "/v1/recommend": _post(RecommendRequest, router.recommend),
        "/v1/similar": _post(SimilarRequest, router.similar),
        "/v1/rank": _post(RankRequest, router.rank),
        "/v1/popular": _post(PopularRequest, router.default.popular),
        "/v1/release": Route(method="GET, POST", handler=tell),
        "/v1/categories": Route(method="GET", handler=list_categories, scope=RECOMMEND),
        "/docs.json": Route(method="GET", handler=describe),
        "/metrics": Route(
            method="GET",
            handler=measure,
            content_type=CONTENT_TYPE.encode(),
            scope=METRICS if router.default.settings.private_metrics else None,
        ),
        **web.routes(),
    }


def _post(
    body: type[T], answer: Callable[[T, str], Awaitable[object]], scope: str = RECOMMEND
) -> Route:
    decoder, encoder = msgspec.json.Decoder(body), msgspec.json.Encoder()

    async def handle(raw: bytes, call: Call) -> bytes:
        return encoder.encode(await answer(decode(raw, decoder), call.request_id))

    handler: Handler = handle
    return Route(method="POST", handler=handler, scope=scope)
