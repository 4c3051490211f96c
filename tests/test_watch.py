"""What the service keeps at hand of the store: no trend of an item that no release of its knows."""

from __future__ import annotations

import asyncio
import gc
import time
from pathlib import Path

import toy
from bento_process import write_release
from stores import WEIGHTS, event, opened

from bento.prometheus import Gauge
from bento.watch import Standing, Watch
from recommender.contract import RECOMMENDER_ONNX
from recommender.release import read_release


def test_trends_of_items_that_no_release_knows_are_not_kept(tmp_path: Path) -> None:
    write_release(tmp_path, toy.LIMITS, items=10, models=(RECOMMENDER_ONNX,))
    write_release(tmp_path, toy.LIMITS, items=12, models=(RECOMMENDER_ONNX,), version=2)
    now = int(time.time())

    async def act() -> None:
        watch = Watch(None, Gauge("away", "of this test", registry=None))
        small = Standing(read_release(tmp_path, 1), watch)
        async with opened(f"sqlite:///{tmp_path}/events.db") as store:
            many = [event(i, f"u{i}", f"i{i}", at=now) for i in range(1, 2_000)]
            await store.add(many, weights=WEIGHTS)
            await watch.refresh(store)
            assert watch.trends.keys() == known(10)
            large = Standing(read_release(tmp_path, 2), watch)  # a variant, say
            await watch.refresh(store)
            assert watch.trends.keys() == known(12)
            assert small.popularity[9] == large.popularity[11] > 1.9  # its place, and a vote
            del large
            gc.collect()
            await watch.refresh(store)
            assert watch.trends.keys() == known(10)

    asyncio.run(act())


def known(items: int) -> set[str]:
    return {f"i{number}" for number in range(1, items + 1)}
