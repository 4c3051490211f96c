"""The release that the repository names -> the release that answers, without a restart.

releases.json is read a few times a second. When it names another release, that one's
catalogue is read and Triton asked for it while the old one goes on answering; then all
routes change at once. A request that has begun ends with the release it began with.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from bento.answering import Answering
from bento.settings import RETIRE_S
from recommender.errors import RecserveError
from recommender.release import read_index

log = logging.getLogger("bentoml.recserve")

PAUSE_S = 0.1


class Follower:
    """`make` gives what answers for a release's number, `serve` lets it answer from now on."""

    def __init__(
        self,
        first: Answering,
        make: Callable[[int], Answering],
        serve: Callable[[Answering], None],
    ) -> None:
        self.current = self._coming = first  # what answers; what will, once Triton has it
        self._make, self._serve = make, serve
        self._seen = first.release.version  # the last release that the repository named
        self._probe = asyncio.create_task(first.become_ready())
        self._retiring: set[asyncio.Task[None]] = set()
        serve(first)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(PAUSE_S)
            if self._coming is not self.current and self._coming.ready:
                self._switch()
            named = _named(self.current.settings.repository)
            if named not in (None, self._seen):
                self._seen = named
                await self._expect(named)

    async def close(self) -> None:
        """Of every release that is still here."""
        for task in (self._probe, *self._retiring):
            task.cancel()
        await asyncio.gather(self._probe, *self._retiring, return_exceptions=True)
        for answering in {self.current, self._coming}:
            await answering.close()

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
        old, self.current = self.current, self._coming
        self._serve(self.current)
        task = asyncio.create_task(_retire(old))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)


async def _retire(answering: Answering) -> None:
    try:
        await asyncio.sleep(RETIRE_S)
    finally:
        await answering.close()


def _named(repository: Path) -> int | None:
    """None where it cannot be read now: what answers goes on, and whoever promotes is told."""
    try:
        return read_index(repository).serving
    except (RecserveError, OSError) as error:
        log.debug("%s", error)
        return None
