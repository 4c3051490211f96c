"""The benchmark of Triton measures a real release, and its figures follow from its rounds."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("compared", [False, True], ids=["aims", "two settings"])
def test_rates_of_triton(repository: Path, tmp_path: Path, compared: bool) -> None:
    (tmp_path / "slow.toml").write_text("queue_delay_us = 100000\n")
    options = ["--rounds", "3", "--seconds", "0.3", "--json"]
    if compared:
        options += ["--against", str(tmp_path / "slow.toml"), "--no-whole", "--clients", "1"]
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "triton_rates.py"), str(repository), *options],
        cwd=ROOT, capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert list(found) == (["single rows"] if compared else ["whole batches", "single rows"])
    for sides in found.values():
        assert len(sides["ratios"]) == 3
        assert sides["ratio"] == statistics.median(sides["ratios"]) > 0
        assert all(s["rows_s"] > 0 < s["p99_ms"] for s in sides.values() if isinstance(s, dict))
    if compared:  # every lone request waits a tenth of a second there
        assert found["single rows"][str(tmp_path / "slow.toml")]["p99_ms"] > 100
        assert found["single rows"]["ratio"] > 2
