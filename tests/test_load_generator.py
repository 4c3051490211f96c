"""What the load generator can do and how right it is: aims that are missed fail the benchmark."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import generator

    return generator


def rounds(*p99: float) -> list[dict[str, float]]:
    return [{"p50": 0.001, "p90": 0.0, "p95": -0.019, "p99": share} for share in p99]


def test_an_aim_is_missed_by_the_median_of_the_rounds(benchmark: Any) -> None:
    fast = [{"per_core_second": rate} for rate in (1000.0, 4000.0, 9000.0)]
    slow = [{"per_core_second": rate} for rate in (9000.0, 3999.0, 1000.0)]
    assert benchmark.missed(fast, {"even": rounds(0.019, 0.5, 0.0)}) == []
    (rate,) = benchmark.missed(slow, {"even": rounds(0.0)})
    assert "3,999 right answers" in rate and "4,000" in rate
    for share in (0.021, -0.021):
        (error,) = benchmark.missed(fast, {"even": rounds(share, share, 0.0)})
        assert error.startswith("even: p99") and f"{share:+.2%}" in error


def test_the_exit_code_says_whether_an_aim_was_missed() -> None:
    """Which this machine may be too busy for, or not."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "generator.py"), "--rounds", "1",
         "--seconds", "0.5", "--json"],
        cwd=ROOT, capture_output=True, text=True, timeout=200,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert len(found["speed"]) == 1 and len(found["errors"]) == 4
    assert done.returncode == (1 if found["missed"] else 0), done.stderr
    assert [f"missed: {aim}" for aim in found["missed"]] == done.stderr.splitlines()
