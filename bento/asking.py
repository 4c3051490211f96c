"""Questions in indexes -> what the models of one release say of them, in indexes and scores.

    a user            ─> recommender   ─> item, score [K], best first
    an item           ─> similar_items ─> item, score [K], best first
    a user and items  ─> ranker        ─> the same items, best first
    a user and items  ─> explainer     ─> what their scores are made of

Single requests join others on their way to Triton. Raises Unavailable where an answer does not
come by `until` (the loop's clock); what is shown instead is the business of `bento/answering.py`.
Knows no ids and no HTTP.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import NamedTuple

import numpy as np

from bento.breaker import Breaker
from bento.pace import Pace
from bento.postprocess import Ranked
from client.join import Joiner, Traced
from client.tensors import Triton
from recommender.contract import (
    EXPLAINER,
    PADDING,
    RANKER,
    SIMILAR_ITEMS,
    Array,
    Kind,
    inputs,
    kind_of,
    outputs,
)
from recommender.errors import NotFound, ReleaseError, Unavailable
from recommender.features import Request, tensors
from recommender.release import Release

WARM_UP_S = 10.0
PROBE_S = 1.0


class NotAsked(Unavailable):
    """Triton has not answered lately: nobody waits for it before a probe is answered."""


class Parts(NamedTuple):
    """What the scores of C items are made of."""

    signal: Array  # [C, S]
    value: Array  # [C, S]
    history_share: Array  # [C, L]
    history: Array  # [L] int64, as the explainer was given it


class Models:
    """One release's models in one Triton."""

    def __init__(
        self,
        release: Release,
        triton: Triton,
        *,
        probed: str,
        patience_s: float,
        calls: int = 2,
        traced: Traced | None = None,
        pace: Pace | None = None,
    ) -> None:
        """`probed` is the model that is asked whether Triton answers again; a request that had
        less than `patience_s` says nothing of Triton when it comes too late. At most `calls` are
        under way at once, and `pace` hears how long they take."""
        self.release, self._triton = release, triton
        self._probed, self._patience_s = probed, patience_s
        rows = release.limits.max_batch_size
        self.joiner = Joiner(triton, max_rows=rows, calls=calls, traced=traced, paced=pace)
        self.breaker = Breaker(self._probe)
        self._of = {kind_of(model): model for model in release.models}

    async def best(self, model: str, request: Request, until: float) -> Ranked:
        """The K best items by a recommender; fewer where fewer qualify."""
        asked = tensors([request], self.release.limits)
        return self._ranked(await self._infer(model, asked, until, ("item", "score")))

    async def similar(self, item: int, request: Request, until: float) -> Ranked:
        """The K items most like `item`; of `request`, exclusions and categories count.

        Raises NotFound where the release has no such model.
        """
        model = self.named(SIMILAR_ITEMS)
        asked = tensors([request], self.release.limits) | {"query_item": np.array([[item]])}
        asked = self._of_kind(asked, SIMILAR_ITEMS)
        return self._ranked(await self._infer(model, asked, until, ("item", "score")))

    async def ranked(self, request: Request, items: Array, until: float) -> Ranked:
        """All of `items` [n] int64, distinct, by the recommender's own scores, ties as it breaks
        them; more than one call takes go in several.

        Raises NotFound where the release has no ranker.
        """
        model, size = self.named(RANKER), self.release.limits.candidates
        asked = tensors([request], self.release.limits)
        calls = [
            self._candidates(model, asked, items[at : at + size], until)
            for at in range(0, len(items), size)
        ]
        scores = [found["score"][0] for found in await asyncio.gather(*calls)]
        score = np.concatenate(scores)[: len(items)] if scores else np.zeros(0, np.float32)
        order = np.lexsort((items, -score))
        return Ranked(items[order], score[order])

    async def explained(self, request: Request, items: Array, until: float) -> Parts:
        """Of `items` [n], as many as the explainer takes at most.

        Raises NotFound where the release has none.
        """
        asked = tensors([request], self.release.limits)
        found = await self._candidates(self.named(EXPLAINER), asked, items, until)
        signal, value, share = (
            found[tensor.name][0][: len(items)]
            for tensor in outputs(self.release.limits, EXPLAINER)
        )
        return Parts(signal, value, share, asked["history"][0])

    def has(self, kind: Kind) -> bool:
        return kind in self._of

    def named(self, kind: Kind) -> str:
        """The release's model of that kind. Raises NotFound where it has none."""
        if kind not in self._of:
            raise NotFound(
                f"release {self.release.version} has no {kind}",
                remedy=f"It has {', '.join(self.release.models)}; export the run again.",
            )
        return self._of[kind]

    async def warm_up(self, model: str) -> None:
        """Ask at every history length once."""
        loop = asyncio.get_running_loop()
        for length in self.release.limits.length_buckets:
            asked = tensors([Request()], self.release.limits, length=length)
            await self._asked(model, asked, loop.time() + WARM_UP_S)

    async def _probe(self) -> None:
        asked = tensors([Request()], self.release.limits)
        await self._asked(self._probed, asked, asyncio.get_running_loop().time() + PROBE_S)

    async def close(self) -> None:
        await self.breaker.close()
        await self.joiner.close()
        await self._triton.close()

    async def _candidates(
        self, model: str, asked: dict[str, Array], items: Array, until: float
    ) -> dict[str, Array]:
        kind, limits = kind_of(model), self.release.limits
        size = limits.candidates if kind == RANKER else limits.explained
        candidates = np.full((1, size), PADDING, np.int64)
        candidates[0, : len(items)] = items
        asked = self._of_kind(asked | {"candidates": candidates}, kind)
        wanted = [tensor.name for tensor in outputs(limits, kind)]
        return await self._infer(model, asked, until, wanted)

    def _of_kind(self, asked: dict[str, Array], kind: Kind) -> dict[str, Array]:
        return {tensor.name: asked[tensor.name] for tensor in inputs(self.release.limits, kind)}

    async def _infer(
        self, model: str, asked: dict[str, Array], until: float, wanted: Collection[str]
    ) -> dict[str, Array]:
        if self.breaker.open:
            raise NotAsked("Triton does not answer", remedy="See its log; it is asked again soon.")
        began = asyncio.get_running_loop().time()
        try:
            found = await self._asked(model, asked, until)
        except Unavailable:
            # Late, while others are answered: there are too many, and Triton is not away.
            now, patience = asyncio.get_running_loop().time(), self._patience_s
            silent = now - self.joiner.answered_at >= patience
            if now < until or (silent and until - began >= patience):
                self.breaker.failed()
            raise
        self.breaker.succeeded()
        if not found.keys() >= set(wanted):
            raise Unavailable(
                f"model {model} answers {sorted(found)}, not {' and '.join(wanted)}",
                remedy="Serve a model that meets the contract.",
            )
        return found

    async def _asked(self, model: str, asked: dict[str, Array], until: float) -> dict[str, Array]:
        left = max(until - asyncio.get_running_loop().time(), 0.0)
        return await self.joiner.infer(model, self.release.version, asked, timeout_s=left)

    def _ranked(self, found: dict[str, Array]) -> Ranked:
        """Raises ReleaseError for an index that the catalogue does not hold: then model and
        catalogue are not of one release."""
        item, score = found["item"][0], found["score"][0]
        here = (item != PADDING) & np.isfinite(score)
        if not here.all():
            item, score = item[here], score[here]
        if (item.view(np.uint64) > self.release.items).any():  # negative ones are huge then
            raise ReleaseError(
                f"the model answered with items beyond the catalogue's {self.release.items}",
                remedy="Serve model and catalogue of the same release.",
            )
        return Ranked(item, score)
