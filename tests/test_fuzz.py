"""Mutated bodies against the whole stack: never a 5xx, every refusal in the one shape, no growth.

Starts from the request examples of /docs.json: bytes flipped, cut, doubled; values of the JSON
replaced by hostile ones. `make test` sends a few thousand, `make test-faults` a million * SCALE.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import aiohttp
import httpx
import pytest
from bento_process import Service, worker_of
from scale import often

CALLERS = 16
WARM = 1_500  # bodies until caches and pools are full, and the allocator has what it keeps
GROWTH = 0.05  # of the service's memory, once it is warm
HOSTILE: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**63, -(2**63) - 1, 10**400, 1e308, -0.0, "", "0", " ", "\x00", "\ud800",
    "é" * 300, "x" * 5000, [], {}, [[]], [None], [[[[]]]], {"": None}, {"a": {"b": {"c": []}}},
    list(range(3000)), ["i1"] * 3000, "i1", "item-000001", "group-001", "'; DROP TABLE events; --",
    "../../etc/passwd", "{{7*7}}", "NaN", float("nan"), float("inf"),
)  # fmt: skip


@pytest.mark.parametrize("bodies", often(3_000, 1_000_000))
def test_mutated_bodies_are_answered_or_refused_and_nothing_grows(
    aside: Service, bodies: int
) -> None:
    described = httpx.get(f"{aside.url}/docs.json").json()
    examples = dict(_examples(described))
    assert examples.keys() == {p for p, o in described["paths"].items() if "post" in o}
    worker = worker_of(aside)
    asyncio.run(_send(aside.url, examples, seed=1, count=WARM))
    before = worker.memory_info().rss
    found = asyncio.run(_send(aside.url, examples, seed=2, count=bodies))
    after = worker.memory_info().rss
    assert sum(found.values()) == bodies
    assert not [seen for seen in found if seen[1] >= 500 or seen[2]], found
    assert len({status for _, status, _ in found}) > 1, "all were refused, or none"
    assert after <= before * (1 + GROWTH), f"{before / 1e6:.1f} -> {after / 1e6:.1f} MB"


def _examples(described: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    for path, operations in described["paths"].items():
        if "post" in operations:
            body = operations["post"].get("requestBody", {"content": {}})
            content = body["content"].get("application/json", {"examples": {}})
            yield path, [one["value"] for one in content["examples"].values()] or [{}]


async def _send(
    url: str, examples: dict[str, list[Any]], *, seed: int, count: int
) -> Counter[tuple[str, int, str]]:
    """How often which path answered which status, and what is wrong with the answer."""
    rng, left = random.Random(seed), iter(range(count))
    found: Counter[tuple[str, int, str]] = Counter()

    async def caller(session: aiohttp.ClientSession) -> None:
        for _ in left:
            path = rng.choice(sorted(examples))
            body = mutated(rng.choice(examples[path]), rng)
            async with session.post(path, data=body) as response:
                answer = await response.read()
            found[path, response.status, _fault(response.status, answer)] += 1

    timeout = aiohttp.ClientTimeout(total=30)
    headers = {"content-type": "application/json"}
    async with aiohttp.ClientSession(url, timeout=timeout, headers=headers) as session:
        await asyncio.gather(*(caller(session) for _ in range(CALLERS)))
    return found


def _fault(status: int, answer: bytes) -> str:
    content = json.loads(answer)
    if status == 200:
        return ""
    error = content.get("error", {})
    right = {"field", "value", "message", "remedy"} <= error.keys() and error["remedy"]
    return "" if right else answer[:200].decode()


def mutated(example: Any, rng: random.Random) -> bytes:
    if rng.random() < 0.6:
        for _ in range(rng.randint(1, 3)):
            example = _replaced(example, rng)
        return json.dumps(example).encode()
    body = bytearray(json.dumps(example).encode())
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(body) + 1)
        match rng.randrange(4):
            case 0:
                body[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                del body[at : at + rng.randint(1, 20)]
            case 2:
                body[at:at] = body[at : at + rng.randint(1, 40)]
            case _:
                body[at:at] = rng.choice((b"[", b"{", b'"', b",", b"\\", b"\xff", b"\x00", b"1e9"))
    return bytes(body)


def _replaced(value: Any, rng: random.Random) -> Any:
    """A copy with one value, or one key, replaced."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        if rng.random() < 0.1:
            return {**value, rng.choice(("", "x", key.upper(), "__proto__")): value[key]}
        return {**value, key: _replaced(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        at = rng.randrange(len(value))
        return [*value[:at], _replaced(value[at], rng), *value[at + 1 :]]
    return rng.choice(HOSTILE)
