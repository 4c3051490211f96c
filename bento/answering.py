"""A checked request -> its answer: ask the model, or fall back to popular items.

    request -> preprocess -> Triton (joined with others) -> postprocess -> answer
                                 └ away, late or refused -> popular items, fallback: true

A well-formed request always gets an answer inside its deadline. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field

from bento import metrics as measured
from bento import postprocess, preprocess
from bento.metrics import Metrics
from bento.schemas import PopularRequest, RecommendRequest, window
from bento.settings import Settings
from bento.stages import POSTPROCESS, PREPROCESS, TRITON
from client.join import Joiner
from client.service import Answer, Item
from client.tensors import Triton
from recommender.contract import Array
from recommender.errors import NotFound, RecserveError, Unavailable
from recommender.features import Request, tensors
from recommender.release import Release
from recommender.variants import DEFAULT

log = logging.getLogger("bentoml.recserve")

POPULARITY = "popularity"  # the model's name in answers that no model gave
MARGIN_S = 0.02  # of a deadline, at most a fifth, left for the answer itself
WARM_UP_S = 10.0
PROBE_PAUSE_S = 0.2


@dataclass(kw_only=True, eq=False)
class Answering:
    """One release, one connection to Triton."""

    settings: Settings
    release: Release
    triton: Triton
    metrics: Metrics
    variant: str = DEFAULT  # under which name it answers
    ready: bool = False  # Triton answered for this release once; stays true when it goes away
    missing: str | None = None  # why it is not ready, once Triton was asked
    _falling_back: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._default_model = self._known(self.settings.model or self.release.models[0])
        self._joiner = Joiner(
            self.triton,
            max_rows=self.release.limits.max_batch_size,
            traced=self.metrics.tracing,
        )
        self.metrics.joiners.add(self._joiner)

    async def recommend(self, asked: RecommendRequest, request_id: str) -> Answer:
        """Raises BadInput for a part beyond K, NotFound for a model the release lacks."""
        began = asyncio.get_running_loop().time()
        part = window(asked, self.release.limits.answers)
        model = self._default_model if asked.model is None else self._known(asked.model)
        with self.metrics.stage(PREPROCESS):
            question = preprocess.question(asked, self.release, now=int(time.time()))
            inputs = tensors([question.request], self.release.limits)
        deadline = (asked.deadline_ms or self.settings.deadline_ms) / 1000
        until = began + deadline - min(MARGIN_S, deadline / 5)
        fallback = False
        if question.selection.impossible:
            items: list[Item] = []
        else:
            try:
                items = await self._ranked(model, question, inputs, part, until)
                self._recovered()
            except RecserveError as error:
                self._lost(error, late=asyncio.get_running_loop().time() >= until - 0.005)
                items, fallback = self._popular(question.selection, part), True
        return self._answer(
            items, question.selection, request_id, POPULARITY if fallback else model, fallback
        )

    async def popular(self, asked: PopularRequest, request_id: str) -> Answer:
        part = window(asked, self.release.limits.answers)
        selection = preprocess.select(asked.filter, self.release.catalogue)
        items = self._popular(selection, part)
        return self._answer(items, selection, request_id, POPULARITY, False)

    async def become_ready(self) -> None:
        """Asks Triton until it has answered at every history length once, then returns."""
        while not self.ready:
            try:
                for length in self.release.limits.length_buckets:
                    inputs = tensors([Request()], self.release.limits, length=length)
                    await self._infer(self._default_model, inputs, timeout_s=WARM_UP_S)
            except RecserveError as error:
                self.missing = str(error)
                log.debug("not ready: %s", error)
                await asyncio.sleep(PROBE_PAUSE_S)
            else:
                self.ready, self.missing = True, None
                log.info("release %d answers at %s", self.release.version, self.triton.address)

    async def close(self) -> None:
        await self._joiner.close()
        await self.triton.close()

    async def _ranked(
        self,
        model: str,
        question: preprocess.Question,
        inputs: dict[str, Array],
        part: slice,
        until: float,
    ) -> list[Item]:
        left = until - asyncio.get_running_loop().time()
        with self.metrics.stage(TRITON):
            outputs = await self._infer(model, inputs, timeout_s=max(left, 0.0))
        if len(question.overflow):
            self.metrics.overflow.inc(len(question.overflow))
        item, score = outputs["item"][0], outputs["score"][0]
        with self.metrics.stage(POSTPROCESS):
            ranked = postprocess.ranked(item, score, question.overflow, part.stop)
            return postprocess.items(ranked, part, self.release.catalogue)

    async def _infer(
        self, model: str, inputs: dict[str, Array], *, timeout_s: float
    ) -> dict[str, Array]:
        outputs = await self._joiner.infer(model, self.release.version, inputs, timeout_s=timeout_s)
        if not outputs.keys() >= {"item", "score"}:
            raise Unavailable(
                f"model {model} answers {sorted(outputs)}, not item and score",
                remedy="Serve a model that meets the contract.",
            )
        return outputs

    def _popular(self, selection: preprocess.Selection, part: slice) -> list[Item]:
        catalogue = self.release.catalogue
        indexes = catalogue.popular(
            part.stop, exclude=selection.exclude.tolist(), categories=selection.categories
        )
        return postprocess.items(postprocess.popular(catalogue, indexes), part, catalogue)

    def _answer(
        self,
        items: list[Item],
        selection: preprocess.Selection,
        request_id: str,
        model: str,
        fallback: bool,
    ) -> Answer:
        return Answer(
            items=items,
            release=self.release.version,
            model=model,
            variant=self.variant,
            fallback=fallback,
            ignored=list(selection.ignored),
            request_id=request_id,
        )

    def _known(self, model: str) -> str:
        if model not in self.release.recommenders:
            raise NotFound(
                f"release {self.release.version} has no recommender {model!r}",
                remedy=f"It has {', '.join(self.release.recommenders)}.",
                field="model",
                value=model,
            )
        return model

    def _lost(self, error: RecserveError, *, late: bool) -> None:
        cause = measured.UNAVAILABLE if isinstance(error, Unavailable) else measured.REFUSED
        self.metrics.fell_back(measured.LATE if late else cause)
        if not self._falling_back:  # once, not for every request of an outage
            log.warning("answering with popular items: %s", error)
        self._falling_back = True

    def _recovered(self) -> None:
        if self._falling_back:
            log.info("the model answers again")
        self._falling_back = False
