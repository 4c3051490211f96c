"""A question -> one of the three kinds of server -> an answer.

    http://host:port          the Bento service, POST /v1/recommend, by user id
    grpc://host:port          Triton over gRPC, the whole contract
    triton+http://host:port   Triton over HTTP, the whole contract

Knows nothing of workers, rates or statistics.
"""

from __future__ import annotations

import json
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp
import numpy as np

from client import tensors, trust
from client.load.questions import Answer, Question
from recommender.contract import PADDING, Array
from recommender.errors import BadInput, RecserveError, Unavailable
from recommender.features import tensors as build
from recommender.release import Release

SCHEMES = "http://, https://, grpc:// or triton+http://"


class Target(Protocol):
    """Use and close it inside one event loop."""

    wanted: int  # items asked for with each question
    excludes: int  # of the items a user has seen, how many are sure to be kept out

    async def ask(self, question: Question) -> Answer:
        """Raises RecserveError, whose `what` is the kind of failure."""

    async def close(self) -> None: ...


def connect(address: str, release: Release, *, n: int, model: str, timeout_s: float) -> Target:
    """The target at `address`; `n` is for Bento, `model` for Triton. Raises BadInput."""
    scheme, place = _parts(address)
    if place and scheme in ("http", "https"):
        return Bento(f"{scheme}://{place}", release, n=n, timeout_s=timeout_s)
    if place and scheme in ("grpc", "triton+http"):
        return Triton(f"{scheme}://{place}", release, model=model, timeout_s=timeout_s)
    raise BadInput(
        f"target {address!r} is no address of a server",
        remedy=f"Begin it with {SCHEMES}, for example http://127.0.0.1:3000.",
        field="TARGET",
        value=address,
    )


def _parts(address: str) -> tuple[str, str]:
    """Scheme and host:port; the latter empty where it cannot be read."""
    try:
        parts = urlsplit(address)
        return parts.scheme, parts.netloc if parts.hostname and parts.port != 0 else ""
    except ValueError:  # a port that is none
        return "", ""


class Bento:
    def __init__(self, address: str, release: Release, *, n: int, timeout_s: float) -> None:
        self.wanted = n
        self.excludes = len(release.catalogue)  # all of them: Bento drops what the model cannot
        self._index = release.catalogue.index
        self._timeout_s = timeout_s
        # aiohttp: with 32 callers httpx takes 3.6 ms of CPU a request, and would measure itself.
        self._client = aiohttp.ClientSession(
            address,
            connector=aiohttp.TCPConnector(limit=0, ssl=trust.authority()),  # one a caller
            headers=trust.headers(),
            timeout=aiohttp.ClientTimeout(total=timeout_s),
        )

    async def ask(self, question: Question) -> Answer:
        body = {"user_id": question.user_id, "n": self.wanted}
        try:
            async with self._client.post("/v1/recommend", json=body) as response:
                status, answer = response.status, await response.read()
        except TimeoutError as error:
            raise _failed(f"no answer within {self._timeout_s:g} s") from error
        except aiohttp.ClientError as error:
            raise _failed(f"no connection ({type(error).__name__})") from error
        if status != 200:
            raise _failed(f"HTTP {status}")
        return self._read(answer)

    def _read(self, answer: bytes) -> Answer:
        try:
            body = json.loads(answer)
            fallback = body["fallback"]
            items = [self._index(item["item_id"]) for item in body["items"]]
            scores = [float(item["score"]) for item in body["items"]]
        except (ValueError, LookupError, TypeError) as error:
            raise _failed("an answer that is none of /v1/recommend") from error
        if fallback:  # well-formed, but no model computed it: not what is measured here
            raise _failed("fallback: the model did not answer")
        return Answer(items=items, scores=scores)

    async def close(self) -> None:
        await self._client.close()


class Triton:
    def __init__(self, address: str, release: Release, *, model: str, timeout_s: float) -> None:
        self.wanted = release.limits.answers
        self.excludes = release.limits.exclude
        self._release, self._model, self._timeout_s = release, model, timeout_s
        self._client = tensors.connect(address)
        self._built: dict[str, dict[str, Array]] = {}  # user id -> tensors [1, ...]

    async def ask(self, question: Question) -> Answer:
        inputs = self._built.get(question.user_id)
        if inputs is None:
            inputs = build([question.request], self._release.limits)
            self._built[question.user_id] = inputs
        outputs = await self._client.infer(
            self._model, self._release.version, inputs, timeout_s=self._timeout_s
        )
        item_K, score_K = outputs["item"][0], outputs["score"][0]
        there = item_K != PADDING
        if not np.all(there[:-1] >= there[1:]):
            raise _failed("padding between the items of an answer")
        return Answer(items=item_K[there].tolist(), scores=score_K[there].tolist())

    async def close(self) -> None:
        await self._client.close()


def _failed(kind: str) -> RecserveError:
    return Unavailable(kind, remedy="See the server's log, or lower the load.")
