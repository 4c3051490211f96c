"""A release to check by eye, and an HTTP server that does exactly what it is told."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from bento_process import write_index

from recommender.catalogue import Catalogue
from recommender.contract import Limits
from recommender.stored import SCHEMA
from recommender.users import Users
from recommender.verify import sha256

ITEMS, USERS, SEEN = 60, 12, 5
LIMITS = Limits(user_features=1, category_words=1, exclude=256, answers=20, length_buckets=(4, 8))

Reply = tuple[float, int, Any]  # delay in seconds, HTTP status, JSON body (None = hang up)
Behaviour = Callable[[int, dict[str, Any]], Reply]  # number of the request, its body


# A release small enough to check by eye: user u has seen items u + 1 to u + 5.


def seen_by(user: int) -> list[int]:
    return list(range(user + 1, user + 1 + SEEN))


def category(item: int) -> str:
    return "even" if item % 2 == 0 else "odd"


def write_release(folder: Path) -> Path:
    """Of number 1, and serving."""
    home = write_version(folder, 1, [f"item-{i}" for i in range(1, ITEMS + 1)])
    write_index(folder, serving=1, releases={1: home})
    return folder


def write_version(folder: Path, version: int, item_ids: Sequence[str]) -> str:
    """Where its release.json is, below `folder`."""
    home = folder / "toy_onnx" / str(version)
    home.mkdir(parents=True)
    Catalogue(
        item_ids=tuple(item_ids),
        titles=(None,) * ITEMS,
        categories=tuple((category(i),) for i in range(1, ITEMS + 1)),
        popularity=np.ones(ITEMS, np.float32),
    ).write(home)
    Users(
        user_ids=tuple(f"user-{u}" for u in range(USERS)),
        features=np.zeros((USERS, 1), np.int64),
        offsets=np.arange(USERS + 1, dtype=np.int64) * SEEN,
        items=np.concatenate([seen_by(u) for u in range(USERS)]).astype(np.int64),
        times=np.full(USERS * SEEN, 1_000_000, np.int64),
        weights=np.ones(USERS * SEEN, np.float32),
    ).write(home)
    release = {
        "schema": SCHEMA,
        "version": version,
        "family": "toy",
        "items": ITEMS,
        "models": ["toy_onnx"],
        "limits": vars(LIMITS),
        "user_features": [],
        "mean_rating": None,
        "clock": 2_000_000,
        "files": {str(p.relative_to(folder)): sha256(p) for p in home.glob("*.parquet")},
    }
    (home / "release.json").write_text(json.dumps(release))
    return f"toy_onnx/{version}/release.json"


# A server that speaks just enough HTTP and does exactly what it is told.


class Server:
    def __init__(self, behaviour: Behaviour) -> None:
        self.behaviour = behaviour
        self.numbers = itertools.count()
        self.paths: set[str] = set()
        self.now = self.most = 0  # requests under way, and the most there ever were

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length:")[1].split()[0])
                body = json.loads(await reader.readexactly(length))
                self.paths.add(head.split()[1].decode())
                self.now += 1
                self.most = max(self.most, self.now)
                delay, status, answer = self.behaviour(next(self.numbers), body)
                await asyncio.sleep(delay)
                self.now -= 1
                if answer is None:
                    break
                payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                top = f"HTTP/1.1 {status} X\r\ncontent-length: {len(payload)}\r\n\r\n"
                writer.write(top.encode() + payload)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client has gone
        finally:
            writer.close()


@contextmanager
def answering(behaviour: Behaviour) -> Iterator[tuple[str, Server]]:
    """A server in a thread of its own, on a free port."""
    server, started = Server(behaviour), Future[tuple[int, Callable[[], Any]]]()

    async def main() -> None:
        stop = asyncio.Event()
        listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
        loop, port = asyncio.get_running_loop(), listening.sockets[0].getsockname()[1]
        started.set_result((port, lambda: loop.call_soon_threadsafe(stop.set)))
        await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    thread.start()
    port, stop = started.result(10)
    try:
        yield f"http://127.0.0.1:{port}", server
    finally:
        stop()
        thread.join(10)


def right(body: dict[str, Any]) -> dict[str, Any]:
    """The right answer, whichever route was asked: the first items that may be shown."""
    if "events" in body:
        return {"accepted": len(body["events"]), "duplicates": 0, "unknown": []}
    if "candidates" in body:
        items = [number(item_id) for item_id in body["candidates"]]
    else:
        items = [i for i in range(1, ITEMS + 1) if allowed(i, body)][: body["n"]]
    ranked = [{"item_id": f"item-{i}", "score": 1 / (r + 1)} for r, i in enumerate(items)]
    return {"items": ranked, "release": 1, "fallback": False}


def at_once(number: int, body: dict[str, Any]) -> Reply:
    return 0.0, 200, right(body)


def command(address: str, folder: Path, *options: str) -> list[str]:
    """Of `recserve`: ask the server at `address`, checked by the release of `folder`."""
    return ["load", address, "--repository", str(folder), *options]


def allowed(item: int, body: dict[str, Any]) -> bool:
    hidden = [number(item_id) for item_id in body.get("history", [])]
    if "user_id" in body:
        hidden += seen_by(number(body["user_id"]))
    if "item_id" in body:
        hidden.append(number(body["item_id"]))
    wanted = body.get("filter", {})
    hidden += map(number, wanted.get("exclude", []))
    only = [number(item_id) for item_id in wanted.get("only", [])]
    return (
        item not in hidden
        and category(item) in wanted.get("categories", ["even", "odd"])
        and (not only or item in only)
    )


def number(name: str) -> int:
    """Of `item-7` or `user-7`."""
    return int(name.partition("-")[2])
