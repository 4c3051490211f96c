"""A question -> one of the three kinds of server -> when it was answered, and how rightly.

    http://host:port          the Bento service (https:// too), every endpoint, by user id
    grpc://host:port          Triton over gRPC, the whole contract, /v1/recommend's model alone
    triton+http://host:port   the same over HTTP

Knows nothing of callers, rates or statistics.
"""

from __future__ import annotations

import ssl
import time
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import msgspec
import numpy as np

from client import tensors, trust
from client.load.mix import Mix
from client.load.questions import KEPT, Question, newest_seen
from client.load.recording import RIGHT, Fate, Outcome
from client.load.sending.checking import Expected, Known, Releases, fault
from client.load.sending.connection import Connections, Lost
from client.load.sending.places import Places
from client.triton_errors import TooBusy
from recommender.contract import PADDING, Array
from recommender.errors import BadInput, RecserveError
from recommender.features import tensors as build
from recommender.release import Release

SCHEMES = ("http", "https", "grpc", "triton+http")
BUSY = (429, 503)
ROUNDED_S = 0.01  # by which a deadline of gRPC may come early
FELL_BACK = Outcome(Fate.FALLBACK, "fallback: the model did not answer")


class Heard(NamedTuple):
    done: float  # time.perf_counter() when the answer was there, or was given up
    outcome: Outcome
    release: int = 0  # that the answer names; 0: none


class Target(Protocol):
    """Use and close it inside one event loop."""

    async def ask(self, question: Question) -> Heard:
        """Never raises a RecserveError: what went wrong is the outcome."""

    async def close(self) -> None: ...


def connect(
    address: str,
    release: Release,
    *,
    model: str,
    timeout_s: float,
    connections: int,
    mix: Mix | None = None,
    releases: Releases | None = None,
) -> Target:
    """The target at `address`, asked by `connections` at a time at most: who comes when all are
    taken waits for one. `model` is for Triton. Raises BadInput."""
    scheme, place = parts(address)
    if scheme in ("http", "https"):
        if releases is None:
            releases = Releases(release.repository)
        return Bento(f"{scheme}://{place}", releases, timeout_s=timeout_s, most=connections)
    if mix is not None and (strange := _strange(mix)):
        raise BadInput(
            f"Triton at {address} has no {strange}",
            remedy="Ask the service (http://) for a mix; of Triton, recommend with categories.",
            field="mix",
            value=strange,
        )
    address = f"{scheme}://{place}"
    return Triton(address, release, model=model, timeout_s=timeout_s, most=connections)


def parts(address: str) -> tuple[str, str]:
    """Scheme and host:port. Raises BadInput."""
    try:
        found = urlsplit(address)
        whole = found.hostname and found.port != 0 and found.path in ("", "/") and not found.query
        if whole and found.scheme in SCHEMES:
            return found.scheme, found.netloc
    except ValueError:  # a port that is none
        pass
    raise BadInput(
        f"target {address!r} is no address of a server",
        remedy=f"Write {', '.join(f'{scheme}://' for scheme in SCHEMES)} and HOST:PORT, nothing "
        "more: http://127.0.0.1:3000.",
        field="TARGET",
        value=address,
    )


def _strange(mix: Mix) -> str:
    """What of `mix` Triton cannot be asked for."""
    asked: list[str] = [name for name, weight in mix.endpoints.items() if weight > 0]
    filters = [kind for kind, share in mix.filters.items() if share > 0]
    strange = [name for name in asked if name != "recommend"]
    strange += [f"filter {kind}" for kind in filters if kind != "categories"]
    return ", ".join(strange)


class _Item(msgspec.Struct):
    item_id: str
    score: float


class _Answer(msgspec.Struct):
    """What of /v1/recommend, similar, rank and popular is judged."""

    items: list[_Item]
    release: int
    fallback: bool
    notes: list[str] = []


class _Error(msgspec.Struct):
    remedy: str
    field: str | None = None


class _Refusal(msgspec.Struct):
    error: _Error


class _Events(msgspec.Struct):
    accepted: int
    duplicates: int


class Bento:
    def __init__(self, address: str, releases: Releases, *, timeout_s: float, most: int) -> None:
        parts = urlsplit(address)
        assert parts.hostname is not None
        secure = parts.scheme == "https"
        self._releases = releases
        self._connections = Connections(
            parts.hostname,
            parts.port or (443 if secure else 80),
            tls=_tls() if secure else None,
            most=most,
            timeout_s=timeout_s,
        )
        headers = {"Host": parts.netloc, "Content-Type": "application/json", **trust.headers()}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._head = lru_cache(
            lambda path, size: (
                f"POST {path} HTTP/1.1\r\n{lines}Content-Length: {size}\r\n\r\n".encode()
            )
        )
        self._answer = msgspec.json.Decoder(_Answer)
        self._events = msgspec.json.Decoder(_Events)
        self._error = msgspec.json.Decoder(_Refusal)

    async def ask(self, question: Question) -> Heard:
        request = self._head(question.path, len(question.body)) + question.body
        try:
            done, status, body = await self._connections.ask(request)
        except Lost as lost:
            return Heard(lost.done, Outcome(Fate.FAILED, str(lost)))
        if status == 200:
            try:
                return self._judged(done, question, body)
            except msgspec.MsgspecError:
                none = f"an answer that is none of {question.path}"
                return Heard(done, Outcome(Fate.FAILED, none))
        if status in BUSY:
            return Heard(done, Outcome(Fate.REFUSED, f"HTTP {status}"))
        return Heard(done, Outcome(Fate.FAILED, f"HTTP {status}{self._why(status, body)}"))

    def _why(self, status: int, body: bytes) -> str:
        """What was wrong with the request: of few kinds, so without the value."""
        if not 400 <= status < 500:
            return ""
        try:
            error = self._error.decode(body).error
        except msgspec.MsgspecError:
            return ""
        return f" ({error.field}: {error.remedy})" if error.field else f" ({error.remedy})"

    def _judged(self, done: float, question: Question, body: bytes) -> Heard:
        if question.events:
            accepted = self._events.decode(body)
            counted = accepted.accepted + accepted.duplicates
            if counted == question.events:
                return Heard(done, RIGHT)
            wrong = f"{counted} events taken instead of {question.events}"
            return Heard(done, Outcome(Fate.WRONG, wrong))
        answer = self._answer.decode(body)
        known = self._releases.get(answer.release)
        if known is None:
            wrong = f"release {answer.release}, which the repository does not hold"
            return Heard(done, Outcome(Fate.WRONG, wrong), answer.release)
        expected = known.expected(question)
        if "only" in answer.notes:  # an allow-list that is not exact, and said to be none
            expected = expected.fewer(len(answer.items))
        items = answer.items
        wrong_in = fault([i.item_id for i in items], [i.score for i in items], expected)
        if wrong_in is not None:
            return Heard(done, Outcome(Fate.WRONG, wrong_in), answer.release)
        return Heard(done, FELL_BACK if answer.fallback else RIGHT, answer.release)

    async def close(self) -> None:
        await self._connections.close()


def _tls() -> ssl.SSLContext:
    authority = trust.authority()
    return ssl.create_default_context() if isinstance(authority, bool) else authority


class Triton:
    """gRPC has one connection, HTTP one for each request under way: `most` bounds these."""

    def __init__(
        self, address: str, release: Release, *, model: str, timeout_s: float, most: int
    ) -> None:
        self._release, self._model, self._timeout_s = release, model, timeout_s
        self._places = Places(most)
        self._known = Known(release)
        self._client = tensors.connect(address)
        self._prepared = lru_cache(KEPT)(self._prepare)

    async def ask(self, question: Question) -> Heard:
        """What waits for a place counts in the time that is allowed."""
        until = time.perf_counter() + self._timeout_s
        await self._places.take()
        try:
            return await self._answered(question, until)
        finally:
            self._places.leave()

    async def _answered(self, question: Question, until: float) -> Heard:
        inputs, expected = self._prepared(question)
        version = self._release.version
        left_s = until - time.perf_counter()
        if left_s <= 0:
            waited = f"no free place within {self._timeout_s:g} s"
            return Heard(time.perf_counter(), Outcome(Fate.FAILED, waited))
        try:
            outputs = await self._client.infer(self._model, version, inputs, timeout_s=left_s)
        except TooBusy as error:
            return Heard(time.perf_counter(), Outcome(Fate.REFUSED, error.what))
        except RecserveError as error:
            # In the words of what was allowed, not of what was left: one kind of failure.
            late = time.perf_counter() > until - ROUNDED_S
            kind = f"no answer within {self._timeout_s:g} s" if late else error.what
            return Heard(time.perf_counter(), Outcome(Fate.FAILED, kind))
        done = time.perf_counter()
        item_K, score_K = outputs["item"][0], outputs["score"][0]
        there = item_K != PADDING
        if not np.all(there[:-1] >= there[1:]):
            gap = Outcome(Fate.WRONG, "padding between the items of an answer")
            return Heard(done, gap, version)
        ids = self._known.named(item_K[there].tolist())
        wrong = fault(ids, score_K[there].tolist(), expected)
        return Heard(done, Outcome(Fate.WRONG, wrong) if wrong else RIGHT, version)

    def _prepare(self, question: Question) -> tuple[dict[str, Array], Expected]:
        """Its tensors [1, ...], and what the answer must be: all K items, and none of the newest
        seen, as many as the model's exclusions hold."""
        limits, request = self._release.limits, question.request
        seen = newest_seen(self._release, request.history)
        asked = replace(request, exclude=seen)
        excluded = frozenset(self._known.named(seen.tolist()))
        return build([asked], limits), self._known.narrowed(question, limits.answers, seen=excluded)

    async def close(self) -> None:
        await self._client.close()
