"""`recserve serve` as the tests run it, on ports that nobody uses."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

ITEMS = 150  # of the synthetic data set


@dataclass(frozen=True, kw_only=True)
class Stack:
    """`recserve serve`, running."""

    process: subprocess.Popen[str]
    url: str
    grpc: str
    http: str
    metrics: str
    repository: Path


def wait_ready(url: str, process: subprocess.Popen[str], log: Path) -> None:
    until = time.monotonic() + 180
    while time.monotonic() < until:
        assert process.poll() is None, log.read_text()
        try:
            if httpx.get(f"{url}/readyz", timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    pytest.fail(f"not ready in time: {log.read_text()}")
