"""FastAPI with the graph in process: TorchScript, one call a request.

uvicorn --app-dir benchmarks/peers fastapi_torchscript:app --workers 2
"""

from __future__ import annotations

import graphs
from common import Body, encode, saved, setting, settle
from fastapi import FastAPI, Response

from recommender.contract import RECOMMENDER_TORCHSCRIPT

SAVED = saved(RECOMMENDER_TORCHSCRIPT)
RUN = graphs.torchscript(SAVED.path)
app = FastAPI()


def answered(body: Body) -> Response:
    asked = SAVED.asked(body)
    item_1K, score_1K = RUN(SAVED.tensors([asked]))
    answer = SAVED.answer(asked, item_1K[0], score_1K[0])
    return Response(encode(answer), media_type="application/json")


async def recommend(body: Body) -> Response:
    return answered(body)


# FastAPI calls a plain function in a thread of its pool, a coroutine in the event loop.
app.post("/v1/recommend")(answered if setting("POOL", "0") == "1" else recommend)
settle()
