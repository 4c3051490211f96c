"""The benchmarks measure what they say; that of a GPU says so where there is none."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

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


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA GPU is here")
def test_without_a_gpu_there_is_nothing_to_measure(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--out", str(page)],
        cwd=ROOT, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "sees no CUDA GPU here" in done.stderr
    assert not page.exists()


def test_the_random_graph_of_the_gpu_benchmark_answers_in_both_forms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_graph
    import gpu_random

    from recommender import config

    recipe, items = config.read(settings=["encoder.width=16"]), 150
    limits = gpu_random.limits_of(recipe)
    graph = gpu_random.random_graph(items, recipe)
    script = gpu_graph.frozen(graph, limits, torch.device("cpu"))
    asked = gpu_random.questions(items, limits, rows=5, length=64)
    wanted, seen = (
        gpu_graph.answers_of(one, torch.device("cpu"))(asked) for one in (graph, script)
    )
    assert (wanted["item"][:, 0] > 0).all()
    assert gpu_graph._check(items, "TorchScript", seen, wanted).said == ""
    wrong = {**seen, "score": seen["score"] + 0.5}
    assert gpu_graph._check(items, "TorchScript", wrong, wanted).largest is None
