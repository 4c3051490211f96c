"""What this GPU can do at all, measured here: the floors that every other figure is held against.

bandwidth   device-to-device copies of gigabytes, bytes read plus bytes written
arithmetic  matrix products of 8192 x 8192 in float32, TF32 and float16

Also the clock that the other benchmarks use. Knows torch and nothing of the project.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

GPU, CPU = torch.device("cuda"), torch.device("cpu")
_SIDE = 8192  # of the matrices
_COPIED = 4 << 30  # bytes, many times the cache


@dataclass(frozen=True, kw_only=True)
class Floors:
    """Bytes and operations a second."""

    bandwidth: float
    fp32: float
    tf32: float
    fp16: float

    def ms(self, moved: float, operations: float) -> float:
        """The least time for so many bytes and fp32 operations: the larger of the two."""
        return max(moved / self.bandwidth, operations / self.fp32) * 1e3


def floors() -> Floors:
    return Floors(
        bandwidth=_bandwidth(),
        fp32=_product(torch.float32),
        tf32=_product(torch.float32, tf32=True),
        fp16=_product(torch.float16),
    )


def _bandwidth() -> float:
    size = min(_COPIED, torch.cuda.mem_get_info()[0] // 4)
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=GPU)
    target = torch.empty_like(source)
    return 2 * size / (gpu_ms(lambda: target.copy_(source)) / 1e3)


def _product(dtype: torch.dtype, *, tf32: bool = False) -> float:
    left, right = (torch.randn(_SIDE, _SIDE, device=GPU, dtype=dtype) for _ in range(2))
    with tf32_allowed(tf32):
        return 2 * _SIDE**3 / (gpu_ms(lambda: left @ right) / 1e3)


@contextmanager
def tf32_allowed(allowed: bool) -> Any:
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = allowed
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def gpu_ms(work: Callable[[], Any], rounds: int = 20) -> float:
    """Median milliseconds on the device itself, by events, after a warm-up."""
    for _ in range(3):
        work()
    took = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        took.append(begin.elapsed_time(end))
    return statistics.median(took)


def wall_ms(work: Callable[[], Any], *, rounds: int, seconds: float) -> float:
    """Median milliseconds of at most `rounds` runs in about `seconds`. `work` must end with its
    results on the host, or what the device does is not counted."""
    took: list[float] = []
    while len(took) < rounds and (len(took) < 3 or sum(took) < seconds):
        started = time.perf_counter()
        work()
        took.append(time.perf_counter() - started)
    return statistics.median(took) * 1e3
