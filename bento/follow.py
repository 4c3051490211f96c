"""What the repository names -> what answers, without a restart.

releases.json is read a few times a second. When it names another release, that one's
catalogue is read and Triton asked for it while the old one goes on answering; then all
routes change at once. Its variants come and go in the same way. A request that has begun
ends with the release it began with.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

from bento.answering import Answering
from bento.metrics import VariantMetrics
from bento.settings import RETIRE_S
from bento.variants import Live, Router
from recommender.errors import RecserveError
from recommender.release import Index, read_index
from recommender.variants import Variant

log = logging.getLogger("bentoml.recserve")

PAUSE_S = 0.1


class Follower:
    """`make` gives what answers for a release's number, `make_variant` for a variant, `serve`
    lets a router answer from now on."""

    def __init__(
        self,
        first: Answering,
        make: Callable[[int], Answering],
        make_variant: Callable[[Variant], Answering],
        serve: Callable[[Router], None],
        metrics: VariantMetrics,
    ) -> None:
        self.current = self._coming = first  # what answers; what will, once Triton has it
        self._make, self._make_variant = make, make_variant
        self._serve, self._metrics = serve, metrics
        self._since = time.time()
        self._seen = first.release.version  # the last release that the repository named
        self._variants: tuple[Variant, ...] = ()  # the last that it named
        self._live: tuple[Live, ...] = ()
        self._probe = asyncio.create_task(first.become_ready())
        self._retiring: set[asyncio.Task[None]] = set()
        self._route()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            if self._coming is not self.current and self._coming.ready:
                self._switch()
            if (index := _read(self.current.settings.repository)) is not None:
                if index.serving not in (None, self._seen):
                    self._seen = index.serving
                    await self._expect(index.serving)
                # With the release, not before it: what was a variant may be what is coming.
                if self._coming is self.current and index.variants != self._variants:
                    self._vary(index.variants)
            await asyncio.sleep(PAUSE_S)

    async def close(self) -> None:
        """Of every release that is still here."""
        for task in (self._probe, *self._retiring):
            task.cancel()
        await asyncio.gather(self._probe, *self._retiring, return_exceptions=True)
        there: set[Answering | Live] = {self.current, self._coming, *self._live}
        for one in there:
            await one.close()

    async def _expect(self, version: int) -> None:
        """Drop what was coming, get `version` ready; what answers now goes on."""
        self._probe.cancel()
        if self._coming is not self.current:
            await self._coming.close()
        self._coming = self.current
        if version != self.current.release.version:
            try:
                self._coming = await asyncio.to_thread(self._make, version)
            except RecserveError as error:
                log.error("release %d cannot be served: %s", version, error)
        self._probe = asyncio.create_task(self._coming.become_ready())

    def _switch(self) -> None:
        old, self.current, self._since = self.current, self._coming, time.time()
        self._route()
        self._retire(old)

    def _vary(self, wanted: tuple[Variant, ...]) -> None:
        before, live = self._live, list[Live]()
        for variant in wanted:
            there = next((one for one in before if one.goes_on_as(variant)), None)
            live.append(there or Live(variant, self._make_variant))
        self._variants, self._live = wanted, tuple(live)
        self._route()
        for one in set(before) - set(live):
            self._retire(one)

    def _route(self) -> None:
        """One assignment of `serve`: no request sees half of two states."""
        self._serve(Router(self.current, self._live, self._metrics, since=self._since))

    def _retire(self, one: Answering | Live) -> None:
        task = asyncio.create_task(_close_later(one))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


async def _close_later(one: Answering | Live) -> None:
    """Once every request that had begun with it has ended."""
    try:
        await asyncio.sleep(RETIRE_S)
    finally:
        await one.close()


def _read(repository: Path) -> Index | None:
    """None where it cannot be read now: what answers goes on, and whoever promotes is told."""
    try:
        return read_index(repository)
    except (RecserveError, OSError) as error:
        log.debug("%s", error)
        return None
