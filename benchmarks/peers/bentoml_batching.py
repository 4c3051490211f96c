"""BentoML with the graph in process, behind its adaptive batching.

    cd benchmarks/peers && bentoml serve bentoml_batching:Peer

A batched API takes and gives lists: `OfOne` makes a list of the one body and the one answer of
the list again, so that all peers are asked and answer the same bytes.
"""

from __future__ import annotations

from typing import Any

import bentoml
import graphs
from common import Body, saved, setting, settle
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recommender.contract import RECOMMENDER_ONNX

batched = bentoml.api(
    route="/v1/recommend",
    batchable=True,
    max_batch_size=int(setting("BATCH", "64")),
    max_latency_ms=int(setting("LONGEST_MS", "1000")),
)


class OfOne:
    """ASGI middleware: {...} -> [{...}] and [{...}] -> {...}. For small bodies of one message."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/v1/recommend":
            await self.app(scope, receive, send)
            return
        kept = [pair for pair in scope["headers"] if pair[0] != b"content-length"]
        started: Message = {}

        async def receive_list() -> Message:
            message = await receive()
            if message["type"] == "http.request":
                message["body"] = b"[%b]" % message["body"]
            return message

        async def send_one(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = message
                return
            body = message.get("body", b"")
            if started["status"] == 200 and body:
                body = body[1:-1]
            if started and body:
                others = [pair for pair in started["headers"] if pair[0] != b"content-length"]
                length = (b"content-length", b"%d" % len(body))
                await send({**started, "headers": [*others, length]})
                started = {"status": 0}
            await send({**message, "body": body})

        await self.app({**scope, "headers": kept}, receive_list, send_one)


@bentoml.service(
    workers=int(setting("WORKERS", "2")),
    http={"host": "127.0.0.1"},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
    tracing={"sample_rate": 0.0, "excluded_urls": [".*"]},
)
class Peer:
    def __init__(self) -> None:
        self.saved = saved(RECOMMENDER_ONNX)
        self.run = graphs.onnx(self.saved.path)
        settle()

    def batch(self, bodies: list[Body]) -> list[dict[str, Any]]:
        asked = [self.saved.asked(body) for body in bodies]
        return self.saved.answers(asked, self.run)

    # BentoML calls a plain function in a thread, a coroutine in the event loop.
    if setting("POOL", "0") == "1":

        @batched
        def recommend(self, bodies: list[Body], /) -> list[dict[str, Any]]:
            return self.batch(bodies)
    else:

        @batched
        async def recommend(self, bodies: list[Body], /) -> list[dict[str, Any]]:
            return self.batch(bodies)


Peer.add_asgi_middleware(OfOne)
