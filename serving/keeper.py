"""What no longer serves leaves Triton, once nobody can be asking for it any more.

A release goes when another has answered for longer than any request takes; until then two can
take turns without a load. What a killed promotion had loaded goes the same way. Sees no torch.
"""

from __future__ import annotations

import asyncio
import time

from bento.settings import RETIRE_S
from client.control import Control
from client.service import RecserveClient, Served
from export.index import locked
from recommender.errors import RecserveError, ReleaseError, Unavailable
from recommender.release import Release, read_index, read_release
from serving.running import Running
from serving.tritonserver import load_model

_LOOK_S = 1.0
_ENDED_S = RETIRE_S + 1.0  # after a switch: every request of the release before has ended


class Keeper:
    """For whoever supervises the servers of `here`, which serve `release` at first."""

    def __init__(self, here: Running, release: Release) -> None:
        self.release = release  # the one that serves
        self._here, self._bento = here, RecserveClient(here.url)
        self._next_look = 0.0

    def look(self) -> None:
        """Now and then; most calls find that it is too early to look."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_S
        repository = self.release.repository
        served, named = served_by(self._bento), read_index(repository).serving
        if served is None or served.release != named or time.time() - served.since < _ENDED_S:
            return
        if named != self.release.version:
            self.release = read_release(repository, named, verify=False)
        try:
            asyncio.run(_put_away(self._here, self.release))
        except (ReleaseError, Unavailable) as error:  # whether Triton lives, its process tells
            print(f"Looking again later: {error}", flush=True)


async def _put_away(here: Running, release: Release) -> None:
    """Unload from Triton all but `release`. Raises ReleaseError while a promotion is under way,
    Unavailable where Triton does not answer, as on a machine that is busy loading."""
    async with Control(here.triton) as triton:
        if not await _left_over(triton, release):
            return
        with locked(release.repository):
            for model in await _left_over(triton, release):
                if model in release.models:
                    await load_model(triton, release, model, [release.version])
                else:
                    await triton.unload(model)


async def _left_over(triton: Control, release: Release) -> list[str]:
    """Models of which more is loaded than `release`."""
    loaded = await triton.loaded()
    return [
        model
        for model, versions in loaded.items()
        if model not in release.models or versions != [release.version]
    ]


def served_by(bento: RecserveClient) -> Served | None:
    """What the service answers with, None where it does not say."""
    try:
        return bento.release()
    except RecserveError:
        return None
