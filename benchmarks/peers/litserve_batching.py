"""LitServe with the graph in its worker process, behind its batching.

    python benchmarks/peers/litserve_batching.py --port 8000

Its own annotations choose how it parses and answers, so they must be no strings here.
"""

import sys

import graphs
import litserve
from common import Asked, Body, encode, saved, setting, settle
from fastapi import Response
from starlette.middleware.gzip import GZipMiddleware

from recommender.contract import RECOMMENDER_ONNX


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.saved = saved(RECOMMENDER_ONNX)
        self.run = graphs.onnx(self.saved.path)
        settle()

    def decode_request(self, request: Body) -> Asked:
        return self.saved.asked(request)

    def predict(self, asked: list[Asked]) -> list:
        return self.saved.answers(asked, self.run)

    def encode_response(self, answer: dict) -> Response:
        return Response(encode(answer), media_type="application/json")


if __name__ == "__main__":
    api = Api(
        api_path="/v1/recommend",
        max_batch_size=int(setting("BATCH", "64")),
        batch_timeout=float(setting("WAIT_S", "0.001")),
    )
    server = litserve.LitServer(
        api,
        accelerator="cpu",
        workers_per_device=int(setting("WORKERS", "1")),
        fast_queue=setting("ZMQ", "1") == "1",
    )
    # The others do not compress either; over loopback it costs time and saves none.
    layers = server.app.user_middleware
    layers[:] = [layer for layer in layers if layer.cls is not GZipMiddleware]
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[sys.argv.index("--port") + 1]),
        num_api_servers=int(setting("API_SERVERS", "1")),
        log_level="warning",
        generate_client_file=False,
        access_log=False,
        loop="uvloop",
        http="httptools",
    )
