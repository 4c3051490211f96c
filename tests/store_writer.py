"""A process that writes events until it is killed: `python store_writer.py URL SEED`.

Prints the number of each batch once it is acknowledged. Four clients write at once; a batch
holds events of two users.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

from stores import NOW, PATIENT_S, WEIGHTS, event

from bento.store import Event, Store, connect

CLIENTS = 4
BATCHES_A_RUN = 1_000_000
ROOT = Path(__file__).parent.parent


def writer(url: str, run: int) -> subprocess.Popen[str]:
    """Start one; those of different runs write different batches."""
    return subprocess.Popen(
        [sys.executable, __file__, url, str(run * BATCHES_A_RUN)],
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        stdout=subprocess.PIPE,
        text=True,
    )


def batch(number: int) -> list[Event]:
    return [
        event(number * 10 + i, user=f"u{(number + i) % 2}", item=f"i{i}", at=NOW + number)
        for i in range(1 + number % 7)
    ]


async def client(store: Store, numbers: range) -> None:
    for number in numbers:
        await store.add(batch(number), weights=WEIGHTS)
        os.write(1, b"%d\n" % number)  # at once, whatever becomes of this process


async def main(url: str, first: int) -> None:
    store = connect(url, wait_s=PATIENT_S)
    os.write(1, b"ready\n")
    last = first + BATCHES_A_RUN
    await asyncio.gather(*(client(store, range(first + i, last, CLIENTS)) for i in range(CLIENTS)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
