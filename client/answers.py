"""Many users' questions -> a running server -> item indexes and scores, in their order.

    grpc://host:port          Triton over gRPC, the whole contract, in batches of one length
    triton+http://host:port   the same over HTTP
    http://host:port          the Bento service, by user id: it reads the release's own histories

For whoever judges answers and not speed: nobody is given up early, and an answer
that no model gave is none. Knows no metric.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from client import tensors
from client.api import Answer
from client.service import AsyncRecserveClient
from recommender.contract import Array, Limits
from recommender.errors import BadInput, ReleaseError, Unavailable
from recommender.features import Request
from recommender.features import tensors as build
from recommender.release import Release

SCHEMES = "http://, https://, grpc:// or triton+http://"
CALLS = 4  # under way at a time
ATTEMPTS = 3  # at an answer of the model: a server that has just started may be late
TIMEOUT_S = 60.0

Progress = Callable[[int, int], None]  # answered, of how many


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    user_id: str  # of a user of the release: all that Bento is told, the time aside
    request: Request  # what Triton is asked


def answers(
    address: str,
    release: Release,
    asked: Sequence[Question],
    *,
    deadline_ms: int,
    progress: Progress,
) -> tuple[Array, Array]:
    """`item` [Q, K] int64 and `score` [Q, K] float32, padded with index 0 and score -inf.

    `deadline_ms` is what Bento is allowed for an answer. Raises BadInput for an address
    that is none, ReleaseError where another release answers, Unavailable where none does.
    """
    scheme, _, place = address.partition("://")
    place = place.rstrip("/")
    item = np.zeros((len(asked), release.limits.answers), np.int64)
    score = np.full(item.shape, -np.inf, np.float32)
    if place and scheme in ("grpc", "triton+http"):
        work = _through_triton(f"{scheme}://{place}", release, asked, item, score, progress)
    elif place and scheme in ("http", "https"):
        url = f"{scheme}://{place}"
        work = _through_bento(url, release, asked, item, score, deadline_ms, progress)
    else:
        raise BadInput(
            f"{address!r} is no address of a server",
            remedy=f"Begin it with {SCHEMES}, for example http://127.0.0.1:3000.",
            field="through",
            value=address,
        )
    asyncio.run(work)
    return item, score


async def _through_triton(
    address: str,
    release: Release,
    asked: Sequence[Question],
    item: Array,
    score: Array,
    progress: Progress,
) -> None:
    triton, model = tensors.connect(address), release.models[0]

    async def ask(rows: Array) -> None:
        inputs = build([asked[row].request for row in rows], release.limits)
        outputs = await triton.infer(model, release.version, inputs, timeout_s=TIMEOUT_S)
        item[rows], score[rows] = outputs["item"], outputs["score"]

    try:
        if not await triton.ready(model, release.version):
            raise _other_release(address, release, "does not have it loaded")
        await _at_a_time(ask, _batches(asked, release.limits), len(asked), progress)
    finally:
        await triton.close()


async def _through_bento(
    url: str,
    release: Release,
    asked: Sequence[Question],
    item: Array,
    score: Array,
    deadline_ms: int,
    progress: Progress,
) -> None:
    async with AsyncRecserveClient(url, timeout_s=TIMEOUT_S) as bento:

        async def ask(rows: Array) -> None:
            (row,) = rows
            answer = await _answer(bento, asked[row], release, deadline_ms)
            known = release.catalogue.indexes(one.item_id for one in answer.items)
            item[row, : len(known)] = known
            score[row, : len(known)] = [one.score or 0.0 for one in answer.items]

        rows = (np.array([row]) for row in range(len(asked)))
        await _at_a_time(ask, rows, len(asked), progress)


async def _answer(
    bento: AsyncRecserveClient, question: Question, release: Release, deadline_ms: int
) -> Answer:
    """The whole answer, by the model and the release that are meant."""
    time = min(max(question.request.request_time, 0), release.clock)  # as the graph reads it
    for _ in range(ATTEMPTS):
        answer = await bento.recommend(
            user_id=question.user_id,
            n=release.limits.answers,
            context={"time": time},
            model=release.models[0],
            deadline_ms=deadline_ms,
        )
        if answer.release != release.version:
            raise _other_release(bento.url, release, f"serves release {answer.release}")
        if not answer.fallback:
            return answer
    raise Unavailable(
        f"{bento.url} answered user {question.user_id!r} with popular items {ATTEMPTS} times: "
        "Triton is away or slow",
        remedy="See the service's log, or lower its load.",
    )


def _batches(asked: Sequence[Question], limits: Limits) -> Iterator[Array]:
    """Rows [n] of `asked`, in batches of similar history lengths."""
    order = np.argsort([len(q.request.history) for q in asked], kind="stable")
    for at in range(0, len(order), limits.max_batch_size):
        yield order[at : at + limits.max_batch_size]


async def _at_a_time(
    ask: Callable[[Array], Awaitable[None]], work: Iterator[Array], total: int, progress: Progress
) -> None:
    """Every part of `work`, CALLS at a time. The first failure ends the others."""
    done = 0

    async def worker() -> None:
        nonlocal done
        for rows in work:
            await ask(rows)
            done += len(rows)
            progress(done, total)

    workers = [asyncio.create_task(worker()) for _ in range(CALLS)]
    try:
        await asyncio.gather(*workers)
    finally:
        for one in workers:
            one.cancel()
        await asyncio.gather(*workers, return_exceptions=True)


def _other_release(address: str, release: Release, seen: str) -> ReleaseError:
    return ReleaseError(
        f"the run is release {release.version} of {release.repository}, and {address} {seen}",
        remedy=f"Run `recserve releases promote {release.version} --repository "
        f"{release.repository}`, start `recserve serve` again, and ask that server.",
    )
