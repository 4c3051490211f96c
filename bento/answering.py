"""A checked request -> its answer: ask a model, or fall back to popular items.

    request -> preprocess -> Triton (joined with others) -> postprocess -> answer
                                 └ away, late or refused -> popular items, fallback: true

A well-formed request always gets an answer inside its deadline; what it lacks of what was
asked for stands in its `notes`. Knows no HTTP.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field

import numpy as np
from msgspec.structs import replace

from bento import metrics as measured
from bento import postprocess, preprocess
from bento.asking import Models
from bento.explaining import reasons, wording
from bento.metrics import Metrics
from bento.postprocess import Ranked
from bento.preprocess import Question, Selection
from bento.schemas import (
    PopularRequest,
    RankRequest,
    RecommendRequest,
    SimilarRequest,
    window,
)
from bento.settings import Settings
from client.api import Answer, Item, Reason
from client.tensors import Triton
from recommender.contract import RANKER, SIMILAR_ITEMS, Array
from recommender.errors import NotFound, RecserveError, Unavailable
from recommender.features import Request
from recommender.release import Release
from recommender.variants import DEFAULT

log = logging.getLogger("bentoml.recserve")

POPULARITY = "popularity"  # the model's name in answers that no model gave
MARGIN_S = 0.02  # of a deadline, at most a fifth, left for the answer itself
PROBE_PAUSE_S = 0.2

# Words of Answer.notes.
EXPLANATIONS = "explanations"  # not every item has the reason that was asked for
ONLY = "only"  # the allow-list was applied to the model's best: listed items may be missing


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
        self._models = Models(self.release, self.triton)
        self._wording = wording(self.release)

    async def recommend(self, asked: RecommendRequest, request_id: str) -> Answer:
        """Raises BadInput for a part beyond K, NotFound for a model the release lacks."""
        until = self._until(asked.deadline_ms)
        part = window(asked, self.release.limits.answers)
        model = self._default_model if asked.model is None else self._known(asked.model)
        question = preprocess.question(asked, self.release, now=int(time.time()))
        selection, wishes, notes = question.selection, question.wishes, list[str]()
        if selection.only is not None and self._models.has(RANKER):
            model = self._models.named(RANKER)
        work = self._best(model, question, until, notes)
        found = await self._or_none(work, until, some=not selection.impossible)
        fallback = found is None
        if found is None:
            # As many as of a model: wishes read all of them, whatever part is asked for.
            model, found = POPULARITY, self._popular(selection, self.release.limits.answers)
        arranged = postprocess.arranged(found, wishes, self.release.catalogue, part.stop)
        items = self._items(arranged.where(part), part.start, wishes.pinned)
        if asked.explain:
            items = await self._explained(items, question.request, fallback, until, notes)
        return self._answer(items, selection.ignored, request_id, model, fallback, notes)

    async def similar(self, asked: SimilarRequest, request_id: str) -> Answer:
        """Raises BadInput for a part beyond K, NotFound for an item the release lacks."""
        until = self._until(asked.deadline_ms)
        part = window(asked, self.release.limits.answers)
        item = self.release.catalogue.index(asked.item_id)
        if not item:
            raise NotFound(
                f"release {self.release.version} has no item {asked.item_id!r}",
                remedy=f"Name one of its {self.release.items} items.",
                field="item_id",
                value=asked.item_id,
            )
        model = self._models.named(SIMILAR_ITEMS)
        selection = preprocess.select(asked.filter, self.release.catalogue)
        question = preprocess.narrowed(selection, Request(), self.release)
        notes = list[str]()
        work = self._similar(item, question, until, notes)
        found = await self._or_none(work, until, some=not selection.impossible)
        fallback = found is None
        if found is None:
            model, itself = POPULARITY, np.array([item])
            found = self._popular(selection.without(itself), part.stop)
        items = self._items(found.where(part), part.start)
        return self._answer(items, selection.ignored, request_id, model, fallback, notes)

    async def rank(self, asked: RankRequest, request_id: str) -> Answer:
        """All candidates that the release knows. Raises NotFound where it has no ranker."""
        until = self._until(asked.deadline_ms)
        model = self._models.named(RANKER)
        request, candidates, ignored = preprocess.candidates(
            asked, self.release, now=int(time.time())
        )
        work = self._models.ranked(request, candidates, until)
        found = await self._or_none(work, until, some=len(candidates) > 0)
        fallback = found is None
        if found is None:
            catalogue = self.release.catalogue
            order = np.lexsort((candidates, -catalogue.popularity[candidates - 1]))
            model, found = POPULARITY, postprocess.popular(catalogue, candidates[order])
        return self._answer(self._items(found, 0), ignored, request_id, model, fallback, [])

    async def popular(self, asked: PopularRequest, request_id: str) -> Answer:
        part = window(asked, self.release.limits.answers)
        selection = preprocess.select(asked.filter, self.release.catalogue)
        if asked.text is not None:  # a million titles take a while
            holding = await asyncio.to_thread(self.release.catalogue.holding, asked.text)
            selection = selection.among(holding)
        found = self._popular(selection, part.stop)
        items = self._items(found.where(part), part.start)
        return self._answer(items, selection.ignored, request_id, POPULARITY, False, [])

    async def become_ready(self) -> None:
        """Asks Triton until it has answered at every history length once, then returns."""
        while not self.ready:
            try:
                await self._models.warm_up(self._default_model)
            except RecserveError as error:
                self.missing = str(error)
                log.debug("not ready: %s", error)
                await asyncio.sleep(PROBE_PAUSE_S)
            else:
                self.ready, self.missing = True, None
                log.info("release %d answers at %s", self.release.version, self.triton.address)

    async def close(self) -> None:
        await self._models.close()

    # --- what the models say

    async def _or_none(
        self, work: Coroutine[None, None, Ranked], until: float, *, some: bool
    ) -> Ranked | None:
        """None where no model answers in time. Without `some` item to expect, none is asked."""
        if not some:
            work.close()
            return Ranked(postprocess.NO_ITEMS, np.zeros(0, np.float32))
        try:
            found = await work
        except RecserveError as error:
            self._lost(error, late=asyncio.get_running_loop().time() >= until - 0.005)
            return None
        self._recovered()
        return found

    async def _best(self, model: str, question: Question, until: float, notes: list[str]) -> Ranked:
        """K items at most. An allow-list is what the ranker puts in order, where there is one."""
        only, request, limits = question.selection.only, question.request, self.release.limits
        if only is not None and self._models.has(RANKER):
            found = await self._models.ranked(request, only, until)
            return found.where(slice(limits.answers))
        return await self._narrowed(lambda r: self._models.best(model, r, until), question, notes)

    async def _similar(
        self, item: int, question: Question, until: float, notes: list[str]
    ) -> Ranked:
        return await self._narrowed(lambda r: self._models.similar(item, r, until), question, notes)

    async def _narrowed(
        self, ask: Callable[[Request], Awaitable[Ranked]], question: Question, notes: list[str]
    ) -> Ranked:
        """The answer of a model that takes exclusions: an allow-list is the exclusion of all
        others where they fit into the request, and chosen from the model's best where not."""
        only, request = question.selection.only, question.request
        if only is not None:
            alone = preprocess.nothing_but(only, request, self.release.limits, self.release.items)
            if alone is not None:
                return await ask(alone)
        found = await ask(request)
        if len(question.overflow):
            self.metrics.overflow.inc(len(question.overflow))
            found = postprocess.without(found, question.overflow)
        if only is not None:
            found = found.where(np.isin(found.item, only))
            notes.append(ONLY)
        return found

    async def _explained(
        self,
        items: list[Item],
        request: Request,
        fallback: bool,
        until: float,
        notes: list[str],
    ) -> list[Item]:
        """With reasons, where the explainer answers in time; popular and pinned items have none:
        they are not shown for their score."""
        wanted = [item for item in items if not item.pinned]
        some = [] if fallback else wanted[: self.release.limits.explained]
        given: dict[str, Reason] = {}
        if some and self._wording is not None:
            indexes = self.release.catalogue.indexes(item.item_id for item in some)
            try:
                parts = await self._models.explained(request, indexes, until)
            except RecserveError as error:
                log.debug("no reasons: %s", error)
            else:
                found = reasons(parts, self._wording)
                given = {item.item_id: why for item, why in zip(some, found, strict=True)}
        if len(given) < len(wanted):
            notes.append(EXPLANATIONS)
        return [replace(item, reason=given.get(item.item_id)) for item in items]

    def _popular(self, selection: Selection, stop: int) -> Ranked:
        catalogue = self.release.catalogue
        indexes = catalogue.popular(
            stop,
            exclude=selection.exclude,
            categories=selection.categories,
            only=selection.only,
        )
        return postprocess.popular(catalogue, np.array(indexes, np.int64))

    # --- the answer

    def _until(self, deadline_ms: int | None) -> float:
        """When the models must have answered, by the loop's clock."""
        deadline = (deadline_ms or self.settings.deadline_ms) / 1000
        return asyncio.get_running_loop().time() + deadline - min(MARGIN_S, deadline / 5)

    def _items(self, part: Ranked, before: int, pinned: Array = postprocess.NO_ITEMS) -> list[Item]:
        return postprocess.items(part, self.release.catalogue, first=before + 1, pinned=pinned)

    def _answer(
        self,
        items: list[Item],
        ignored: Sequence[str],
        request_id: str,
        model: str,
        fallback: bool,
        notes: list[str],
    ) -> Answer:
        return Answer(
            items=items,
            release=self.release.version,
            model=model,
            variant=self.variant,
            fallback=fallback,
            ignored=list(ignored),
            request_id=request_id,
            notes=notes,
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
        self.metrics.fallbacks.labels(measured.LATE if late else cause).inc()
        if not self._falling_back:  # once, not for every request of an outage
            log.warning("answering with popular items: %s", error)
        self._falling_back = True

    def _recovered(self) -> None:
        if self._falling_back:
            log.info("the model answers again")
        self._falling_back = False
