"""How often a fault is tried: a few times in `make test`, the whole table times SCALE in
`make test-faults SCALE=0.2`."""

from __future__ import annotations

import os
from typing import Any

import pytest

SCALE = float(os.environ.get("SCALE", "1"))


def often(quick: int, table: int, *more: Any) -> list[Any]:
    """Parameters for pytest: `quick` times, and as a test of faults `table` * SCALE times, but
    never fewer; `more` are further parameters of the latter."""
    times = max(quick, round(table * SCALE))
    full = pytest.param(times, *more, marks=pytest.mark.faults, id=f"{times} times")
    return [full] if more else [quick, full]
