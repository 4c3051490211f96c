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
from bento.acts import Acts
from bento.app import Handler, Route
from bento.decoding import decode
from bento.keys import ADMIN, EVENTS, METRICS, RECOMMEND
from bento.metrics import CONTENT_TYPE, Metrics
from bento.schemas import (
    BlockedRequest,
    EventsRequest,
    PopularRequest,
    RankRequest,
    RecommendRequest,
    SimilarRequest,
    UserRequest,
)
from bento.variants import Router
from client.api import Answer

T = TypeVar("T")


def routes(router: Router, metrics: Metrics) -> Mapping[str, Route]:
    """Everything the service answers, /livez and /readyz aside."""
    release, memory = router.default.release, router.default.memory
    docs = openapi.document(release.limits.answers)
    acts = Acts(release, memory, metrics)

    async def recommend(asked: RecommendRequest, request_id: str) -> Answer:
        answer = await router.recommend(asked, request_id)
        memory.impressions.note(answer, asked.user_id)
        return answer

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
        "/v1/recommend": _post(RecommendRequest, recommend, modelled=True),
        "/v1/similar": _post(SimilarRequest, router.similar, modelled=True),
        "/v1/rank": _post(RankRequest, router.rank, modelled=True),
        "/v1/popular": _post(PopularRequest, router.default.popular),
        "/v1/events": _post(EventsRequest, acts.events, EVENTS),
        "/v1/history": _post(UserRequest, acts.history, EVENTS),
        "/v1/forget": _post(UserRequest, acts.forget, ADMIN),
        "/v1/blocked": _post(BlockedRequest, acts.block, ADMIN),
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
    body: type[T],
    answer: Callable[[T, str], Awaitable[object]],
    scope: str = RECOMMEND,
    *,
    modelled: bool = False,
) -> Route:
    decoder, encoder = msgspec.json.Decoder(body), msgspec.json.Encoder()

    async def handle(raw: bytes, call: Call) -> bytes:
        return encoder.encode(await answer(decode(raw, decoder), call.request_id))

    handler: Handler = handle
    return Route(method="POST", handler=handler, scope=scope, modelled=modelled)
