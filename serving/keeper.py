"""What no longer serves leaves Triton, once nobody can be asking for it any more.

A release goes when others have answered for longer than any request takes; until then two can
take turns without a load. What a killed promotion had loaded goes the same way. A canary that
Bento has stopped leaves releases.json first: that is its rollback. Sees no torch.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

from bento.settings import RETIRE_S
from client.control import Control
from client.service import STOPPED, RecserveClient, Served, ServedVariant
from export.index import locked, write_index
from recommender.errors import RecserveError, ReleaseError, Unavailable
from recommender.release import Index, Release, read_index, read_release
from recommender.variants import Variant
from serving.running import Running
from serving.tritonserver import load_beside, load_model, revive

_LOOK_S = 1.0
_ENDED_S = RETIRE_S + 1.0  # after a switch: every request of the release before has ended


class Keeper:
    """For whoever supervises the servers of `here`, which serve `release` at first."""

    def __init__(self, here: Running, release: Release) -> None:
        self.releases: tuple[Release, ...] = (release,)  # loaded: the one that serves, variants'
        self._here, self._bento = here, here.bento()
        self._repository = release.repository
        self._variants: tuple[Variant, ...] = ()
        self._refused: set[int] = set()  # releases of these that Triton did not load
        self._said = ""
        self._next_look = 0.0

    def load_variants(self, *, timeout_s: float) -> None:
        """Beside the release that serves, before it does; what cannot be loaded is left out."""
        index = read_index(self._repository)
        self._variants = index.variants
        models = {variant.release: variant.model for variant in index.variants}
        for version, model in models.items():
            try:
                release = read_release(self._repository, version)
                load_beside(release, self._here, last=model, timeout_s=timeout_s)
            except RecserveError as error:
                self._refused.add(version)
                print(f"Release {version}, of a variant, does not serve: {error}", flush=True)
        self._keep(index, self.releases[0])

    def revive(self, release: Release, dead: tuple[str, ...]) -> None:
        """Load these models again, whose processes have died. Raises RecserveError where those of
        the release that serves cannot be; without a variant's, the others serve on."""
        try:
            revive(release, dead, self._here)
        except RecserveError as error:
            if release is self.releases[0]:
                raise
            self._refused.add(release.version)
            self.releases = tuple(one for one in self.releases if one is not release)
            print(f"Release {release.version}, of a variant, serves no more: {error}", flush=True)
        else:
            names = ", ".join(f"{model} {release.version}" for model in dead)
            print(f"Loaded again, its process had died: {names}", flush=True)

    def look(self) -> None:
        """Now and then; most calls find that it is too early to look."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _LOOK_S
        if (served := served_by(self._bento)) is None:
            return
        try:
            self._roll_back(served)
            index = read_index(self._repository)
            if served.release != index.serving:
                return
            serving = self.releases[0]
            if index.serving != serving.version:
                serving = read_release(self._repository, index.serving, verify=False)
            self._keep(index, serving)
            same = {_key(v) for v in served.variants} == {_key(v) for v in index.variants}
            if same and time.time() - served.changed >= _ENDED_S:
                asyncio.run(self._put_away(index))
        # A promotion under way, a repository that cannot be written, a Triton too busy to answer:
        # whether that lives, its process tells.
        except (ReleaseError, OSError, Unavailable) as error:
            self._say(f"Looking again later: {error}")

    def _keep(self, index: Index, serving: Release) -> None:
        """These from now on. What was refused stays so until a variant names it that is new:
        whoever added that has checked and loaded it."""
        new = set(index.variants) - set(self._variants)
        self._refused -= {variant.release for variant in new}
        self._variants = index.variants
        wanted = {variant.release for variant in index.variants} - {serving.version}
        known = {release.version: release for release in self.releases}
        variants = (
            known.get(version) or read_release(self._repository, version, verify=False)
            for version in sorted(wanted - self._refused)
        )
        self.releases = (serving, *variants)

    def _roll_back(self, served: Served) -> None:
        """Take the canaries that Bento has stopped out of releases.json, for good."""
        stopped = {_key(one): one.reason for one in served.variants if one.state == STOPPED}
        if not stopped:
            return
        with locked(self._repository):
            index = read_index(self._repository)
            left = tuple(one for one in index.variants if _key(one) not in stopped)
            if left != index.variants:
                write_index(self._repository, replace(index, variants=left))
        for one in set(index.variants) - set(left):
            print(
                f"Rolled back canary {one.name} (release {one.release}): {stopped[_key(one)]}",
                flush=True,
            )

    async def _put_away(self, index: Index) -> None:
        """Unload from Triton all that nothing names, unless a promotion is under way."""
        async with Control(self._here.triton, self._here.key) as triton:
            if not await _left_over(triton, index):
                return
            with locked(self._repository):
                if read_index(self._repository) != index:
                    return
                for model, kept in (await _left_over(triton, index)).items():
                    if kept:
                        release = read_release(self._repository, kept[-1], verify=False)
                        await load_model(triton, release, model, kept)
                    else:
                        await triton.unload(model)

    def _say(self, line: str) -> None:
        if line != self._said:
            print(line, flush=True)
        self._said = line


async def _left_over(triton: Control, index: Index) -> dict[str, list[int]]:
    """Models of which more is loaded than `index` names, each with the versions it does name."""
    named = {index.serving, *(variant.release for variant in index.variants)}
    kept = {m: (v, [one for one in v if one in named]) for m, v in (await triton.loaded()).items()}
    return {model: ours for model, (versions, ours) in kept.items() if ours != versions}


def _key(variant: Variant | ServedVariant) -> tuple[str, int, str | None, str, float]:
    """What the index and Bento both say of a variant."""
    return variant.name, variant.release, variant.model, variant.role, variant.share


def served_by(bento: RecserveClient) -> Served | None:
    """What the service answers with, None where it does not say."""
    try:
        return bento.release()
    except RecserveError:
        return None
