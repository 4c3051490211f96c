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
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field

import numpy as np

from bento import choosing, postprocess, preprocess
from bento import metrics as measured
from bento.asking import Models, NotAsked
from bento.explaining import Explaining
from bento.memory import Memory
from bento.metrics import Metrics
from bento.pace import Pace
from bento.people import NOBODY, Known, People
from bento.postprocess import Ranked
from bento.preprocess import Selection
from bento.schemas import (
    Asking,
    PopularRequest,
    RankRequest,
    RecommendRequest,
    SimilarRequest,
    window,
)
from bento.settings import Settings
from bento.stages import POSTPROCESS, PREPROCESS, STORE, TRITON
from bento.watch import Standing
from client.api import Answer, Item
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

# A word of Answer.notes; others are in choosing.py and explaining.py.
PAST = "store"  # events of the user were not read: the store is away


@dataclass(kw_only=True, eq=False)
class Answering:
    """One release, one connection to Triton."""

    settings: Settings
    release: Release
    triton: Triton
    metrics: Metrics
    memory: Memory
    pace: Pace | None = None  # None: its load is not what bounds the service
    variant: str = DEFAULT  # under which name it answers
    ready: bool = False  # Triton answered for this release once; stays true when it goes away
    missing: str | None = None  # why it is not ready, once Triton was asked
    _falling_back: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._default_model = self._known(self.settings.model or self.release.models[0])
        self._models = Models(
            self.release,
            self.triton,
            probed=self._default_model,
            patience_s=self.settings.deadline_ms / 2000,
            calls=self.settings.triton_calls,
            traced=self.metrics.tracing,
            pace=self.pace,
        )
        self.metrics.joiners.add(self._models.joiner)
        self.metrics.breakers.add(self._models.breaker)
        self._explaining = Explaining(self.release)
        self._people = People(self.release)
        self._standing = Standing(self.release, self.memory.watch)

    async def recommend(self, asked: RecommendRequest, request_id: str) -> Answer:
        """Raises BadInput for a part beyond K, NotFound for a model the release lacks."""
        until = self._until(asked.deadline_ms)
        part = window(asked, self.release.limits.answers)
        model = self._default_model if asked.model is None else self._known(asked.model)
        notes = list[str]()
        person = await self._past(asked, until, notes)
        with self.metrics.stage(PREPROCESS):
            question = preprocess.question(
                asked, self.release, person, self._standing.blocked, now=int(time.time())
            )
        selection, wishes = question.selection, question.wishes
        self._count(asked, selection)
        if selection.only is not None and self._models.has(RANKER):
            model = self._models.named(RANKER)
        work = choosing.best(self._models, model, question, until, self.metrics, notes)
        found = await self._or_none(work, until, some=not selection.impossible)
        fallback = found is None
        with self.metrics.stage(POSTPROCESS):
            if found is None:
                # As many as of a model: wishes read all of them, whatever part is asked for.
                model, found = POPULARITY, self._popular(selection, self.release.limits.answers)
            arranged = postprocess.arranged(found, wishes, self.release.catalogue, part.stop)
            shown = arranged.where(part)
            items = self._items(shown, part.start, wishes.pinned)
            self.metrics.drift.shown(self.release, shown.item.tolist())
        if asked.explain:
            by = None if fallback else self._models
            items = await self._explaining.explained(items, question.request, by, until, notes)
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
        notes = list[str]()
        with self.metrics.stage(PREPROCESS):
            selection = self._selected(asked)
            question = preprocess.narrowed(selection, Request(), self.release)
        work = choosing.similar(self._models, item, question, until, self.metrics, notes)
        found = await self._or_none(work, until, some=not selection.impossible)
        fallback = found is None
        if found is None:
            model, itself = POPULARITY, np.array([item])
            found = self._popular(selection.without(itself), part.stop)
        with self.metrics.stage(POSTPROCESS):
            items = self._items(found.where(part), part.start)
        return self._answer(items, selection.ignored, request_id, model, fallback, notes)

    async def rank(self, asked: RankRequest, request_id: str) -> Answer:
        """All candidates that the release knows. Raises NotFound where it has no ranker."""
        until = self._until(asked.deadline_ms)
        model, notes = self._models.named(RANKER), list[str]()
        person = await self._past(asked, until, notes)
        with self.metrics.stage(PREPROCESS):
            request, candidates, ignored = preprocess.candidates(
                asked, self.release, person, self._standing.blocked, now=int(time.time())
            )
        work = self._models.ranked(request, candidates, until)
        found = await self._or_none(work, until, some=len(candidates) > 0)
        fallback = found is None
        if found is None:
            popularity = self._standing.popularity
            order = np.lexsort((candidates, -popularity[candidates - 1]))
            model, found = POPULARITY, postprocess.popular(popularity, candidates[order])
        with self.metrics.stage(POSTPROCESS):
            items = self._items(found, 0)
        return self._answer(items, ignored, request_id, model, fallback, notes)

    async def popular(self, asked: PopularRequest, request_id: str) -> Answer:
        part = window(asked, self.release.limits.answers)
        selection = self._selected(asked)
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

    @property
    def triton_answers(self) -> bool:
        """As far as requests have shown: it did once, and no outage is being waited out."""
        return self.ready and not self._models.breaker.open

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
            with self.metrics.stage(TRITON):
                found = await work
        except RecserveError as error:
            self._lost(error, late=asyncio.get_running_loop().time() >= until - 0.005)
            return None
        self._recovered()
        return found

    def _popular(self, selection: Selection, stop: int) -> Ranked:
        indexes = self.release.catalogue.popular(
            stop,
            order=self._standing.order,
            exclude=selection.exclude,
            categories=selection.categories,
            only=selection.only,
        )
        return postprocess.popular(self._standing.popularity, np.array(indexes, np.int64))

    # --- who asks, and what may be shown

    async def _past(self, asked: Asking, until: float, notes: list[str]) -> Known:
        person = None
        if asked.user_id is not None and self.memory.store is not None:
            limit = self.release.limits.exclude
            try:
                with self.metrics.stage(STORE):
                    person = await self.memory.person(asked.user_id, limit=limit, until=until)
            except RecserveError as error:
                log.debug("without the user's events: %s", error)
                notes.append(PAST)
                return NOBODY  # the store alone knows whether the user was erased
        return self._people.known(asked.user_id, person)

    def _count(self, asked: RecommendRequest, selection: Selection) -> None:
        """Are the ids those that the release was trained on?"""
        lists = (asked.history or (), asked.filter.exclude, asked.filter.only or ())
        unknown, user = 0, asked.user_id
        if selection.ignored:  # seldom; categories and columns of users stand there, too
            index = self.release.catalogue.index
            unknown = sum(not index(item_id) for ids in lists for item_id in ids)
        self.metrics.drift.asked(
            user=None if user is None else self.release.users.row(user) is not None,
            items=sum(map(len, lists)),
            unknown=unknown,
        )

    def _selected(self, asked: SimilarRequest | PopularRequest) -> Selection:
        return preprocess.select(asked.filter, self.release.catalogue, self._standing.blocked)

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
        if isinstance(error, NotAsked):
            self.metrics.fell_back(measured.BREAKER)
            return
        cause = measured.UNAVAILABLE if isinstance(error, Unavailable) else measured.REFUSED
        self.metrics.fell_back(measured.LATE if late else cause)
        if not self._falling_back:  # once, not for every request of an outage
            log.warning("answering with popular items: %s", error)
        self._falling_back = True

    def _recovered(self) -> None:
        if self._falling_back:
            log.info("the model answers again")
        self._falling_back = False
