"""Add and remove variants: whole, loaded and as it was exported, before releases.json names it.

    whole? ─> Triton loads it beside the others ─> its golden requests
          ─> releases.json names it (the commit) ─> every Bento takes it up by itself

Refused anywhere before the commit, everything serves as if nothing had been. What is removed
leaves Triton once its requests have ended (keeper.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from client.service import SERVING, STOPPED, ServedVariant
from export.index import locked, write_index
from recommender import variants as rules
from recommender.errors import NotFound, ReleaseError, Unavailable
from recommender.release import Release, read_index, read_release
from recommender.variants import Variant
from serving.keeper import served_by
from serving.promotion import Say, prepare
from serving.running import Running, running

_WAIT_S = 30.0  # for another writer, and for Bento to have read the release


def add(repository: Path, variant: Variant, *, say: Say = lambda _: None) -> None:
    """Let `variant` live beside what serves, in every server that runs from `repository` too; one
    of the same name is replaced.

    Raises ReleaseError, and changes nothing, where it cannot stand beside the others, its
    release is not whole, refused by Triton, or answers its golden requests otherwise than
    when it was exported. Raises Unavailable where a server does not take it up.
    """
    repository = repository.resolve()
    read_index(repository)  # before a lock file is written into any folder
    with locked(repository, wait_s=_WAIT_S):
        index = read_index(repository)
        there = {one.name: one for one in index.variants}
        there[variant.name] = variant  # in its place: who comes after it draws from the rest
        changed = replace(index, variants=tuple(there.values()))
        rules.check(changed.variants, index.releases)
        release = read_release(repository, variant.release)
        _check(variant, release, read_release(repository, verify=False))
        servers = prepare(release, say)
        write_index(repository, changed)
    for server in servers:
        _wait_taken_up(server, variant)
        say(f"{server.url} serves variant {variant.name}")


def remove(repository: Path, name: str, *, say: Say = lambda _: None) -> None:
    """Take a variant out; its users are the others' from then on. Raises NotFound, Unavailable."""
    repository = repository.resolve()
    read_index(repository)
    with locked(repository, wait_s=_WAIT_S):
        index = read_index(repository)
        left = tuple(one for one in index.variants if one.name != name)
        if left == index.variants:
            raise NotFound(
                f"{repository} has no variant {name!r}",
                remedy=f"It has {', '.join(one.name for one in index.variants) or 'none'}.",
            )
        write_index(repository, replace(index, variants=left))
    for server in running(repository):
        _wait(server, lambda there: name not in there, f"still serves variant {name}")
        say(f"{server.url} serves variant {name} no more")


def states(repository: Path) -> dict[str, list[tuple[Running, ServedVariant]]]:
    """What the servers that run from `repository` say of its variants, by name."""
    found: dict[str, list[tuple[Running, ServedVariant]]] = {}
    for server in running(repository.resolve()):
        for name, one in _there(server).items():
            found.setdefault(name, []).append((server, one))
    return found


def _check(variant: Variant, release: Release, serving: Release) -> None:
    if variant.model is not None and variant.model not in release.recommenders:
        raise ReleaseError(
            f"release {release.version} has no recommender {variant.model!r}",
            remedy=f"It has {', '.join(release.recommenders)}.",
        )
    mine, wanted = release.limits.answers, serving.limits.answers
    if mine < wanted:
        raise ReleaseError(
            f"release {release.version} gives {mine} items at most, release {serving.version}, "
            f"which serves, {wanted}",
            remedy="Export a release of at least as many: a user may ask for all of them.",
        )


def _wait_taken_up(server: Running, variant: Variant) -> None:
    """A canary may have been stopped by then: that is an answer too."""

    def taken_up(there: dict[str, ServedVariant]) -> bool:
        one = there.get(variant.name)
        if one is not None and (one.release, one.share) == (variant.release, variant.share):
            if one.state == STOPPED:
                raise ReleaseError(
                    f"{server.url} has stopped {variant.name}: {one.reason}",
                    remedy="See docs/variants.md.",
                )
            return one.state == SERVING
        return False

    _wait(server, taken_up, f"does not serve variant {variant.name}")


def _wait(
    server: Running, reached: Callable[[dict[str, ServedVariant]], bool], otherwise: str
) -> None:
    until = time.monotonic() + _WAIT_S
    while not reached(_there(server)):
        if time.monotonic() > until:
            raise Unavailable(
                f"{server.url} {otherwise}, {_WAIT_S:g} s after releases.json was written",
                remedy="See its log, and `recserve variants list`.",
            )
        time.sleep(0.02)


def _there(server: Running) -> dict[str, ServedVariant]:
    with server.bento() as bento:
        served = served_by(bento)
    return {} if served is None else {one.name: one for one in served.variants}
