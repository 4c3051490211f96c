"""Releases that live beside the one that serves, and whose requests each of them answers.

    user id ─> drawn() ─> an A/B variant's ─> a canary's ─> the default's
    request id ─> copied() ─> a shadow's too, whoever answers

A draw needs no memory: the same user gets the same variant on every replica and after every
restart, for as long as the shares are the same. Pure functions; no server, no clock.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from hashlib import blake2b
from typing import Any

from recommender.errors import ReleaseError, shown
from recommender.stored import taken

DEFAULT = "default"  # the name of whatever serves: not a variant's
AB, CANARY, SHADOW = "ab", "canary", "shadow"
ROLES = (AB, CANARY, SHADOW)
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}")
MAX_AFTER = 10_000
_REMEDY = "Correct it, or take it out of the list of variants."
_NUMBER = (float, int)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A release, and the part of the traffic that it gets."""

    name: str
    release: int
    model: str | None = None  # None: the release's first
    role: str = AB
    share: float  # percent of users; of a shadow, percent of requests copied
    # Of a canary: when it is worse, and from how many of its requests on that is judged.
    error_margin: float = 0.02  # its rate of fallbacks may be so much above the default's
    latency_margin: float = 0.5  # its p95 may be at most 1 + so much times the default's
    after: int = 200

    def to_json(self) -> dict[str, Any]:
        """As releases.json holds it."""
        content = asdict(self)
        if self.role != CANARY:
            for name in _CANARYS:
                del content[name]
        return content


_CANARYS = ("error_margin", "latency_margin", "after")
_KINDS: Mapping[str, tuple[type, ...]] = {
    "name": (str,), "release": (int,), "model": (str, type(None)), "role": (str,),
    "share": _NUMBER, "error_margin": _NUMBER, "latency_margin": _NUMBER, "after": (int,),
}  # fmt: skip
_NEEDED = ("name", "release", "role", "share")


def drawn(variants: Sequence[Variant], key: str) -> Variant | None:
    """Whose requests those of `key` (a user's id) are; None: the default's.

    One after the other takes its part of those whom the ones before it left, each by a hash of
    its own name: A/B variants in their order, then canaries. So one that is added at the end,
    or grows, takes from the default alone; a canary that is rolled back moves nobody of an
    A/B test; and a test of another name draws other users.
    """
    left = 100.0
    for role in (AB, CANARY):
        for variant in variants:
            if variant.role == role:
                if _uniform(variant.name, key) * left <= variant.share:
                    return variant
                left -= variant.share
    return None


def copied(variant: Variant, key: str) -> bool:
    """Does a shadow get a copy of the request `key`?"""
    return _uniform(variant.name, key) * 100 <= variant.share


def _uniform(name: str, key: str) -> float:
    """In (0, 1], by both names alone."""
    hashed = _salted(name).copy()
    hashed.update(key.encode())
    return (int.from_bytes(hashed.digest()) + 1) / 2**64


@cache
def _salted(name: str) -> blake2b:
    return blake2b(f"{name}\0".encode(), digest_size=8)


# --- checked


def read_variants(where: object, raw: list[Any], releases: Collection[int]) -> tuple[Variant, ...]:
    """The variants that the index `where` lists; raises ReleaseError for the first fault."""
    found = tuple(_variant(where, number, one) for number, one in enumerate(raw, start=1))
    check(found, releases, where=f"{where}: ")
    return found


def check(variants: Sequence[Variant], releases: Collection[int], *, where: str = "") -> None:
    """Raise ReleaseError where these variants cannot stand beside each other over `releases`."""
    for variant in variants:
        if fault := _fault(variant, releases):
            raise ReleaseError(f"{where}variant {shown(variant.name)} has {fault}", remedy=_REMEDY)
    names = [variant.name for variant in variants]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ReleaseError(f"{where}two variants are called {twice!r}", remedy=_REMEDY)
    total = sum(variant.share for variant in variants if variant.role != SHADOW)
    if total > 100 + 1e-9:
        raise ReleaseError(
            f"{where}A/B and canary variants have {total:g}% of the users together",
            remedy="Give them 100% at most: what they leave is the default's.",
        )


def _variant(where: object, number: int, raw: Any) -> Variant:
    if type(raw) is not dict:
        raise ReleaseError(
            f"{where} has {shown(raw)} as variant {number} instead of an object", remedy=_REMEDY
        )
    of = f"{where}: variant {shown(raw.get('name', number))}"
    for key in raw:
        if key not in _KINDS or (key in _CANARYS and raw.get("role") != CANARY):
            raise ReleaseError(
                f"{of} has {shown(key)}, which no {shown(raw.get('role'))} has", remedy=_REMEDY
            )
    keys = [key for key in _KINDS if key in raw or key in _NEEDED]
    return Variant(**{key: taken(of, raw, key, *_KINDS[key], remedy=_REMEDY) for key in keys})


def _fault(variant: Variant, releases: Collection[int]) -> str | None:
    """What it has and cannot have; comparisons say no to NaN."""
    if variant.name == DEFAULT or not NAME.fullmatch(variant.name):
        return "a name that is taken, or not of a-z, 0-9 and .-_ (32 at most)"
    if variant.role not in ROLES:
        return f"role {shown(variant.role)}, not {', '.join(ROLES)}"
    if not 0 < variant.share <= 100:
        return f"share {variant.share}, not above 0 and at most 100 (percent)"
    if variant.release not in releases:
        known = ", ".join(map(str, sorted(releases)))
        return f"release {variant.release}, which is none of the releases {known}"
    if not 0 <= variant.error_margin <= 1:
        return f"error_margin {variant.error_margin}, not from 0 to 1"
    if not 0 <= variant.latency_margin <= 100:
        return f"latency_margin {variant.latency_margin}, not from 0 to 100"
    if not 1 <= variant.after <= MAX_AFTER:
        return f"after {variant.after}, not from 1 to {MAX_AFTER} requests"
    return None
