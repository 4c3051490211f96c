"""The release that serves, and its variants -> the one that answers this request.

    recommend ─> named in the request? ─> that one
              └> drawn by the user's id ─> a variant that is ready, else the default ─> answer
                                  a canary is judged ┘         shadows get a copy ┘

A Router never changes but for what its variants learn of themselves; `bento/follow.py` makes
a new one whenever releases.json names others. Knows no HTTP and no Triton.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from time import perf_counter

from bento.answering import Answering
from bento.canary import Judge, Outcome
from bento.metrics import VariantMetrics
from bento.schemas import RankRequest, RecommendRequest, SimilarRequest
from client.api import (
    ANSWERS,
    AWAY,
    SERVING,
    STARTING,
    STOPPED,
    Answer,
    Categories,
    Category,
    Served,
    ServedVariant,
)
from recommender.errors import NotFound, RecserveError
from recommender.variants import CANARY, DEFAULT, SHADOW, Variant, copied, drawn

log = logging.getLogger("bentoml.recserve")

Ask = Callable[[Answering], Awaitable[Answer]]

RETRY_S = 10.0  # after a release that could not be read
MAX_COPIES = 32  # under way, of one shadow


class Live:
    """One variant in this worker: its release is read and asked in the background first."""

    def __init__(self, variant: Variant, make: Callable[[Variant], Answering]) -> None:
        self.variant = variant
        self.answering: Answering | None = None
        self.stopped: str | None = None  # why; until releases.json says something else of it
        self.judge = Judge(variant)
        self.warned = False  # of a request that it failed on
        self.copies: set[asyncio.Task[None]] = set()
        self._unread: str | None = None
        self._starting = asyncio.create_task(self._start(make))

    @property
    def serving(self) -> Answering | None:
        """What answers, None where nothing does."""
        ready = self.answering is not None and self.answering.ready and self.stopped is None
        return self.answering if ready else None

    def served(self) -> ServedVariant:
        variant, missing = self.variant, self.answering.missing if self.answering else self._unread
        state = STOPPED if self.stopped else SERVING if self.serving else STARTING
        return ServedVariant(
            name=variant.name,
            release=variant.release,
            model=variant.model,
            role=variant.role,
            share=variant.share,
            state=state,
            reason=self.stopped or missing,
        )

    def goes_on_as(self, variant: Variant) -> bool:
        """Take the share and margins of `variant`, where it is this one but for them."""
        if variant == self.variant:
            return True
        mine = self.variant
        if self.stopped or (variant.name, variant.release, variant.model, variant.role) != (
            mine.name, mine.release, mine.model, mine.role
        ):  # fmt: skip
            return False
        self.variant, self.judge = variant, Judge(variant)
        return True

    async def close(self) -> None:
        for task in (self._starting, *self.copies):
            task.cancel()
        await asyncio.gather(self._starting, *self.copies, return_exceptions=True)
        if self.answering is not None:
            await self.answering.close()

    async def _start(self, make: Callable[[Variant], Answering]) -> None:
        while self.answering is None:
            try:
                self.answering = await asyncio.to_thread(make, self.variant)
            except RecserveError as error:
                if self._unread != str(error):
                    log.error("variant %s cannot be served: %s", self.variant.name, error)
                self._unread = str(error)
                await asyncio.sleep(RETRY_S)
        await self.answering.become_ready()


class Router:
    """Asks `default`, or one of `variants`; as of now, when it begins to."""

    def __init__(
        self,
        default: Answering,
        variants: tuple[Live, ...],
        metrics: VariantMetrics,
        *,
        since: float,
    ) -> None:
        self.default, self.variants = default, variants
        self._metrics = metrics
        self._since, self._changed = since, time.time()
        self._shares = [live.variant for live in variants]
        self._of = {live.variant.name: live for live in variants}
        self._canaries = [live for live in variants if live.variant.role == CANARY]
        self._shadows = [live for live in variants if live.variant.role == SHADOW]

    def served(self) -> Served:
        release = self.default.release
        return Served(
            release=release.version,
            family=release.family,
            models=list(release.models),
            created=release.details.get("created"),
            variant=DEFAULT,
            since=self._since,
            changed=self._changed,
            triton=ANSWERS if self.default.triton_answers else AWAY,
            variants=[live.served() for live in self.variants],
            recommenders=list(release.recommenders),
            example_users=list(self.default.settings.example_users),
        )

    def categories(self) -> Categories:
        """Of the default: a variant's catalogue may differ."""
        release = self.default.release
        sizes = release.catalogue.category_sizes
        return Categories(
            release=release.version,
            categories=[Category(category=name, items=items) for name, items in sizes],
        )

    async def recommend(self, asked: RecommendRequest, request_id: str) -> Answer:
        """Raises BadInput for a part beyond K, NotFound for an unknown variant or model."""
        began = perf_counter()
        if asked.variant is not None or asked.model is not None:
            answer = await self._named(asked.variant or DEFAULT).recommend(asked, request_id)
            self._count(answer, perf_counter() - began)
            return answer
        live = self._drawn(request_id if asked.user_id is None else asked.user_id)
        if live is None or live.serving is None:
            answer = await self.default.recommend(asked, request_id)
            seconds = perf_counter() - began
            for canary in self._canaries:
                canary.judge.default(Outcome(answer.fallback, seconds))
        else:
            answer = await self._of_variant(live, lambda one: one.recommend(asked, request_id))
            seconds = perf_counter() - began
            if live.variant.role == CANARY:
                failed = answer.fallback or answer.variant == DEFAULT
                self._judge(live, Outcome(failed, seconds))
        self._count(answer, seconds)
        self._copy(asked, request_id, answer)
        return answer

    async def similar(self, asked: SimilarRequest, request_id: str) -> Answer:
        """Raises BadInput for a part beyond K, NotFound for an unknown item or variant."""
        return await self._plain(
            asked.variant, request_id, lambda one: one.similar(asked, request_id)
        )

    async def rank(self, asked: RankRequest, request_id: str) -> Answer:
        """Raises NotFound for an unknown variant."""
        key = request_id if asked.user_id is None else asked.user_id
        return await self._plain(asked.variant, key, lambda one: one.rank(asked, request_id))

    async def _plain(self, named: str | None, key: str, ask: Ask) -> Answer:
        """By the variant that is named, or drawn; nothing is counted, judged or copied."""
        if named is not None:
            return await ask(self._named(named))
        live = self._drawn(key)
        return await (ask(self.default) if live is None else self._of_variant(live, ask))

    def _drawn(self, key: str) -> Live | None:
        variant = drawn(self._shares, key)
        return None if variant is None else self._of[variant.name]

    def _named(self, name: str) -> Answering:
        able = {DEFAULT: self.default} | {
            name: live.answering
            for name, live in self._of.items()
            if live.answering is not None and live.variant.role != SHADOW
        }
        if name not in able:
            raise NotFound(
                f"there is no variant {name!r} to ask",
                remedy=f"There is {', '.join(able)}.",
                field="variant",
                value=name,
            )
        return able[name]

    async def _of_variant(self, live: Live, ask: Ask) -> Answer:
        """Its answer; the default's where it is not there, or fails on a request that the default
        can answer (n beyond its K, a defect): its users have not chosen it."""
        if live.serving is None:
            return await ask(self.default)
        try:
            return await ask(live.serving)
        except Exception as error:
            answer = await ask(self.default)
            if not live.warned:  # once, not for every request
                defect = None if isinstance(error, RecserveError) else error
                name = live.variant.name
                # By kind and field: a message may quote what was asked, which is nobody's business.
                field = getattr(error, "field", None) or "no field"
                what = f"{type(error).__name__} ({field})"
                log.warning("variant %s failed: %s", name, what, exc_info=defect)
            live.warned = True
            return answer

    def _judge(self, live: Live, outcome: Outcome) -> None:
        reason = live.judge.canary(outcome)
        if reason is None or live.stopped is not None:
            return
        live.stopped = reason
        variant = live.variant
        self._metrics.stops.labels(variant.name, variant.release).inc()
        log.warning("canary %s (release %d) stopped: %s", variant.name, variant.release, reason)

    def _count(self, answer: Answer, seconds: float) -> None:
        self._metrics.answered(answer.variant, answer.release, answer.fallback, seconds)

    # --- shadows

    def _copy(self, asked: RecommendRequest, request_id: str, answer: Answer) -> None:
        """Ask the shadows the same, now that the caller's answer is there."""
        for live in self._shadows:
            shadow = live.serving
            if shadow is None or not copied(live.variant, request_id):
                continue
            if len(live.copies) >= MAX_COPIES:
                self._metrics.dropped.labels(live.variant.name, live.variant.release).inc()
                continue
            task = asyncio.create_task(self._compare(shadow, asked, request_id, answer))
            live.copies.add(task)
            task.add_done_callback(live.copies.discard)

    async def _compare(
        self, shadow: Answering, asked: RecommendRequest, request_id: str, answer: Answer
    ) -> None:
        labels = shadow.variant, shadow.release.version
        metrics, began, failed = self._metrics, perf_counter(), True
        try:
            copy = await shadow.recommend(asked, request_id)
            failed = copy.fallback
        except Exception as error:  # a copy of a request that was answered: the shadow's own fault
            log.debug("shadow %s failed on %s: %r", shadow.variant, request_id, error)
        metrics.copies.labels(*labels).inc()
        metrics.copy_seconds.labels(*labels).observe(perf_counter() - began)
        if failed:
            metrics.failures.labels(*labels).inc()
        elif not answer.fallback and answer.items:
            given = {item.item_id for item in answer.items}
            both = given & {item.item_id for item in copy.items}
            metrics.overlap.labels(*labels).observe(len(both) / len(given))
