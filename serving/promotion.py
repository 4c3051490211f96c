"""Let another release serve, with nobody noticing: checked first, switched in one step.

    whole? not worse? ─> Triton loads it beside the old one ─> its golden requests
          ─> releases.json names it (the commit) ─> every Bento switches by itself
          ─> the old one goes once its requests have ended (keeper.py)

Refused anywhere before the commit, the old release serves as if nothing had been. Killed
anywhere, releases.json names one whole release, and keeper.py puts away what is left over.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from client.control import Control
from export import golden
from export.index import choose, locked
from export.parity import compare
from recommender import heldout
from recommender.contract import kind_of
from recommender.errors import ReleaseError, Unavailable
from recommender.metrics import Estimate
from recommender.release import Release, read_index, read_release
from serving.keeper import served_by
from serving.running import Running, running
from serving.tritonserver import load_model

Say = Callable[[str], None]
_WAIT_S = 30.0  # for another writer, and for Bento to have read the new catalogue
_GOLDEN_S = 10.0  # for one golden request


def promote(
    repository: Path, version: int, *, accept_worse: bool = False, say: Say = lambda _: None
) -> None:
    """Let release `version` serve, in every server that runs from `repository` too.

    Raises ReleaseError, and changes nothing, where it is unknown, not whole, worse than the one
    that serves (unless `accept_worse`), refused by Triton, or answers its golden requests
    otherwise than it did when it was exported.
    """
    repository = repository.resolve()
    read_index(repository)  # before a lock file is written into any folder
    with locked(repository, wait_s=_WAIT_S):
        release = read_release(repository, version)
        serving = read_index(repository).serving
        if serving is not None and serving != version:
            gate(release, read_release(repository, serving, verify=False), accept_worse, say)
        servers = prepare(release, say)
        choose(repository, release)
    for server in servers:
        _wait_switched(server, version)
        say(f"{server.url} answers with release {version}")


def rollback(repository: Path, *, say: Say = lambda _: None) -> int:
    """Let the release serve that served before this one; its number. Raises ReleaseError where
    there is none. It has served before: no gate is asked."""
    index = read_index(repository)
    if index.previous is None or index.previous not in index.releases:
        raise ReleaseError(
            f"no release served before release {index.serving}",
            remedy="Name one: recserve releases promote N.",
        )
    promote(repository, index.previous, accept_worse=True, say=say)
    return index.previous


def gate(new: Release, old: Release, accept_worse: bool, say: Say) -> None:
    """Raise ReleaseError where `new` is clearly worse on its held-out questions than `old`."""
    same = new.details["data"] == old.details["data"]
    values = (heldout.read(release.home) for release in (new, old))
    found = heldout.difference(*values, same_questions=same)
    if found is None:
        say(f"release {new.version} or {old.version} has no held-out figures to compare")
        return
    what = _told(new, old, found, same)
    if found.mean + found.half < 0 and not accept_worse:
        raise ReleaseError(f"{what}: worse", remedy="Serve it all the same with --accept-worse.")
    say(what)


def _told(new: Release, old: Release, found: Estimate, same: bool) -> str:
    how = "the same held-out questions" if same else "held-out questions of other data"
    return (
        f"release {new.version} less release {old.version}, NDCG@10 on {how}: "
        f"{found.mean:+.4f} ± {found.half:.4f}"
    )


def prepare(release: Release, say: Say) -> list[Running]:
    """Every server that runs from its repository, once each has the release loaded and asked."""
    servers = running(release.repository)
    for server in servers:
        say(f"Triton at {server.triton} loads release {release.version}")
        asyncio.run(_prepare(server, release))
    return servers


async def _prepare(server: Running, release: Release) -> None:
    """Have the release loaded beside what is there, and asked; put away again if it fails."""
    async with Control(server.triton, server.key) as triton:
        before = {model: await triton.versions(model) for model in release.models}
        try:
            for model, there in before.items():
                if release.version not in there:
                    await load_model(triton, release, model, [*there, release.version])
            await _check_golden(triton, release)
        except ReleaseError:
            for model, there in before.items():
                if there:
                    await load_model(triton, release, model, there)
                else:
                    await triton.unload(model)
            raise


async def _check_golden(triton: Control, release: Release) -> None:
    for one in golden.read(release.home):
        for model in (m for m in release.models if kind_of(m) == one.kind):
            seen = await triton.tensors.infer(
                model, release.version, one.inputs, timeout_s=_GOLDEN_S
            )
            compare(one.outputs, seen, f"golden request of {model}, {one.name}")


def _wait_switched(server: Running, version: int) -> None:
    until = time.monotonic() + _WAIT_S
    with server.bento() as bento:
        while (seen := served_by(bento)) is None or seen.release != version:
            if time.monotonic() > until:
                raise Unavailable(
                    f"{server.url} does not answer with release {version}, {_WAIT_S:g} s after it "
                    "was promoted",
                    remedy=f"See its log. Release {version} is named: a restart serves it, "
                    "`recserve releases rollback` undoes it.",
                )
            time.sleep(0.02)
