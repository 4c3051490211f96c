"""Every command of docs/events.md runs, in its order, on a small shop with events."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
from stores import WEIGHTS, event, opened, redis_server

from bento.store import Event, Impression, reading
from recommender.data.synthetic import write_synthetic

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "events.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [line for block in BLOCKS for line in block.strip().splitlines()]
TRAIN = " --model popularity"  # in seconds
SHOP = f"""
recserve train data/shop --out runs/shop --preset quick {TRAIN}
recserve export runs/shop --repository releases/shop
"""


def run(line: str, folder: Path) -> str:
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(["bash", "-c", line], cwd=folder, env=env, capture_output=True,
                          text=True, timeout=250, check=False)  # fmt: skip
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def open_shop(folder: Path) -> list[Event]:
    """Of made-up interactions that end now, the shop has the first four in five; the others
    are what happens once it serves."""
    write_synthetic(folder / "data" / "shop", users=60, items=40, events=1500, seed=1)
    path = folder / "data" / "shop" / "interactions.csv"
    rows = pl.read_csv(path).sort("timestamp", maintain_order=True)
    last = rows["timestamp"].max()
    rows = rows.with_columns(timestamp=pl.col("timestamp") - last + int(time.time()))
    rows.head(1200).write_csv(path)
    return [
        event(i, user, item, "click", at)
        for i, (user, item, at) in enumerate(
            rows.tail(300).select("user_id", "item_id", "timestamp").iter_rows()
        )
    ]


async def collect(url: str, acts: list[Event]) -> None:
    async with opened(url) as store:
        await store.add(acts, weights=WEIGHTS)
        shown = [
            Impression(request_id=f"r{e.event_id}", variant="default", release=1,
                       user_id=e.user_id, items=(e.item_id, "other"), time=e.timestamp - 5)
            for e in acts
        ]  # fmt: skip
        await store.impressions(shown)


@pytest.mark.timeout(900)  # some fifteen commands
def test_every_command_runs_as_written(tmp_path: Path) -> None:
    acts = open_shop(tmp_path)
    for line in SHOP.strip().splitlines():
        run(line, tmp_path)
    asyncio.run(collect(f"sqlite:///{tmp_path}/.recserve/events.db", acts))
    printed: dict[str, str] = {}
    with redis_server(tmp_path / "redis") as server:
        asyncio.run(collect(server.url, acts))
        for line in COMMANDS:
            translated = line.replace("redis://127.0.0.1:6379/0", server.url)
            translated += TRAIN if line.startswith("recserve train") else ""
            printed[line] = run(translated, tmp_path)
    assert len(printed) == len(COMMANDS) > 10
    for line, said in printed.items():
        if "from-store" in line or "backup" in line:
            assert "300 events" in said, line
        if "click-through" in line:
            assert "default" in said, line
    for url in (f"sqlite:///{tmp_path}/elsewhere/events.db",
                f"sqlite:///{tmp_path}/.recserve/events.db"):  # fmt: skip
        with reading(url) as reader:
            assert len(list(reader.events())) == 300
