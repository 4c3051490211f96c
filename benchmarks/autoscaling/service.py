"""What one Triton pod can do: how long a batch of n rows holds its instance, and what that costs.

Measured (`measure.py`), or taken from a JSON file of it. Knows no traffic.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np

from recommender.contract import Array


@dataclass(frozen=True, kw_only=True)
class Check:
    """An open loop of single rows at a share of capacity: the real Triton, and the model of it."""

    share: float
    rate: float  # requests/s that were sent
    late_ms: float  # p99 of how late the client itself sent them
    queue_us: tuple[float, float]  # per request: measured, computed
    p50_ms: tuple[float, float]
    p99_ms: tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Service:
    """Seconds throughout."""

    machine: str
    taken: str  # when, and how
    model: str
    sizes: tuple[int, ...]  # rows of a batch, ascending, the last is max_batch_size
    batch_s: tuple[float, ...]  # from one batch's start to the next one's, with a full queue
    delay_s: float  # max_queue_delay: how long an idle instance waits for neighbours
    beside_s: float  # what a request takes besides waiting and its batch: gRPC, the event loop
    cpu_batch_s: float  # CPU time of Triton and its stub: of a batch,
    cpu_row_s: float  # and of a row in it
    start_s: float  # from the process's start to loaded, warm models
    checks: tuple[Check, ...] = ()

    @property
    def max_batch(self) -> int:
        return self.sizes[-1]

    @cached_property
    def times(self) -> Array:
        """[max_batch + 1] seconds a batch of n rows holds the instance."""
        rows = np.arange(self.max_batch + 1)
        return np.interp(rows, self.sizes, np.maximum.accumulate(self.batch_s))

    @property
    def capacity(self) -> float:
        """Rows/s that full batches make."""
        return float(self.max_batch / self.times[-1])


def read(path: Path) -> Service:
    return msgspec.json.decode(path.read_bytes(), type=Service)


def write(service: Service, path: Path) -> None:
    path.write_bytes(msgspec.json.format(msgspec.json.encode(asdict(service)), indent=2) + b"\n")
