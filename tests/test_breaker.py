"""When the breaker opens, and that it closes by its own probe."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from bento_process import write_release

from bento.asking import Models
from bento.breaker import FAILURES, Breaker
from bento.postprocess import Ranked
from recommender.contract import Array, Limits
from recommender.errors import Unavailable
from recommender.features import Request
from recommender.release import read_release

MODELS = ("recommender_onnx",)
LIMITS = Limits(
    user_features=2, category_words=1, exclude=4, answers=1, length_buckets=(4,), max_batch_size=8
)


class Server:
    """What the probe asks."""

    def __init__(self) -> None:
        self.away, self.asked = True, 0

    async def probe(self) -> None:
        self.asked += 1
        if self.away:
            raise Unavailable("away", remedy="wait")


def test_it_opens_after_failures_in_a_row_and_closes_when_a_probe_is_answered() -> None:
    async def run() -> None:
        server = Server()
        breaker = Breaker(server.probe)
        for _ in range(FAILURES - 1):
            breaker.failed()
        breaker.succeeded()
        for _ in range(FAILURES - 1):
            breaker.failed()
        assert not breaker.open  # never as many in a row
        breaker.failed()
        assert breaker.open
        await asyncio.sleep(0.05)
        assert server.asked == 1
        assert breaker.open
        server.away = False
        async with asyncio.timeout(5):
            while breaker.open:
                await asyncio.sleep(0.01)
        for _ in range(FAILURES - 1):
            breaker.failed()
        assert not breaker.open  # it counts anew
        await breaker.close()

    asyncio.run(run())


def test_closing_it_ends_its_probe() -> None:
    async def run() -> None:
        breaker = Breaker(Server().probe)
        for _ in range(FAILURES):
            breaker.failed()
        await breaker.close()
        assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]

    asyncio.run(run())


class Slow:
    """A Triton whose every call takes a tenth of a second; none is answered once it is `hung`."""

    address = "memory"

    def __init__(self) -> None:
        self.hung = asyncio.Event()

    async def infer(
        self, model: str, version: int, inputs: Mapping[str, Array], **_: object
    ) -> dict[str, Array]:
        await asyncio.sleep(60 if self.hung.is_set() else 0.1)
        rows = len(inputs["history"])
        return {"item": np.ones((rows, 1), np.int64), "score": np.ones((rows, 1), np.float32)}

    async def close(self) -> None: ...


def test_what_is_late_while_others_are_answered_does_not_open_it(tmp_path: Path) -> None:
    """More than Triton can do is no sign that it is away; silence is."""

    async def ask(models: Models, count: int) -> int:
        """How many of `count` were late."""
        until = asyncio.get_running_loop().time() + 0.3
        work = [models.best("recommender_onnx", Request(), until) for _ in range(count)]
        done = await asyncio.gather(*work, return_exceptions=True)
        assert all(isinstance(one, (Ranked, Unavailable)) for one in done)
        return sum(isinstance(one, Unavailable) for one in done)

    async def run() -> None:
        write_release(tmp_path, LIMITS, items=10, models=MODELS)
        release = read_release(tmp_path)
        triton = Slow()
        models = Models(release, triton, probed="recommender_onnx", patience_s=0.15)
        for _ in range(3):
            assert await ask(models, 100) > 50
            assert not models.breaker.open
        triton.hung.set()
        assert await ask(models, 2 * FAILURES) == 2 * FAILURES
        assert models.breaker.open
        await models.close()

    asyncio.run(run())
