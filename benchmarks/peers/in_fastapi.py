"""FastAPI with the graph in process, one call a request; the graph is its caller's.

app = serving(RECOMMENDER_ONNX, graphs.onnx)
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from common import Body, Run, encode, saved, setting, settle
from fastapi import FastAPI, Response


def serving(model: str, graph: Callable[[Path], Run]) -> FastAPI:
    release = saved(model)
    run, app = graph(release.path), FastAPI()

    def answered(body: Body) -> Response:
        asked = release.asked(body)
        item_1K, score_1K = run(release.tensors([asked]))
        answer = release.answer(asked, item_1K[0], score_1K[0])
        return Response(encode(answer), media_type="application/json")

    async def recommend(body: Body) -> Response:
        return answered(body)

    # FastAPI calls a plain function in a thread of its pool, a coroutine in the event loop.
    app.post("/v1/recommend")(answered if setting("POOL", "0") == "1" else recommend)
    settle()
    return app
