"""The benchmarks measure real parts, and their figures follow from what was measured."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from recommender import config
from recommender.data.dataset import Dataset
from recommender.protocols import evaluate

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


def test_the_cost_of_diversity(dataset: Dataset, data_folder: Path, tmp_path: Path) -> None:
    protocol = "leave-one-out"
    report = evaluate(dataset, protocol, tmp_path, families=["item-knn"], config=config.read())
    run = tmp_path / "runs" / f"{protocol}-item-knn"
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "diversity.py"), str(data_folder), str(run),
         "--markdown"], cwd=ROOT, capture_output=True, text=True, timeout=200, check=True,
    )  # fmt: skip
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines()][2:]
    assert [row[0] for row in rows] == [f"{step / 10:.1f}" for step in range(11)]
    judged = report.models["item-knn"]["all"]["ndcg@10"]["mean"]
    assert rows[0][1].startswith(f"{judged:.4f}")  # diversity 0 is the model's own order
    differences = [float(row[3]) for row in rows]
    assert differences == sorted(differences) and differences[0] < differences[10]


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


def test_the_random_graph_of_the_gpu_benchmark_answers_in_every_form(
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
    answers, lacking = gpu_graph.onnx_answers(graph, limits, ("CPUExecutionProvider", {}))
    assert answers is not None and lacking == ""
    assert gpu_graph._check(items, "ONNX", answers(asked), wanted).said == ""
    wrong = {**seen, "score": seen["score"] + 0.5}
    assert gpu_graph._check(items, "TorchScript", wrong, wanted).largest is None


def test_the_page_of_the_gpu_benchmark_says_what_was_measured_and_what_was_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_report

    about = ("device", "memory", "driver", "torch", "onnxruntime", "cuda", "python", "cpu", "cores",
             "threads", "date")  # fmt: skip
    timed = {"items": 1_683, "length": 64, "batch": 32, "floor": 0.1, "eager": 10.0, "script": 4.0}
    large = {**timed, "items": 1_000_000, "onnx": None, "cpu": None}
    served = {"kind": "gpu", "clients": 32, "rows_s": 2_000.0, "p50_ms": 16.0, "p99_ms": 23.0}
    page = gpu_report.page(
        {
            "machine": dict.fromkeys(about, "x"),
            "floors": {"bandwidth": 4e12, "fp32": 5e13, "tf32": 4e14, "fp16": 8e14},
            "graph 1683": {"timed": [{**timed, "onnx": 3.0, "cpu": 8.0}], "checked": []},
            "graph 1000000": {"timed": [large], "checked": [], "no onnx": "too large for a file"},
            "triton": {
                "items": 1_682, "threads": 4, "cores": 16, "served": [{"model": "deep", **served}],
                "golden": [{"model": "deep", "kind": "gpu", "rows": 58, "largest": 1.5e-5}],
                "lacking": {"other": "its runtime has no CUDA half"},
            },
        }
    )  # fmt: skip
    assert "| 1,683 | 64 | 32 | 10.00 | 4.00 | 8,000 | 2.5% | 3.00 | 8.00 | 2.0 |" in page
    assert "| 1,000,000 | 64 | 32 | 10.00 | 4.00 | 8,000 | 2.5% | – | – | – |" in page
    assert "ONNX at 1,000,000 items was not measured: too large for a file." in page
    assert "| deep | KIND_GPU | 32 | 2,000 | 16.0 | 23.0 |" in page
    assert "deep KIND_GPU 58 rows, scores within 1.5e-05" in page
    assert "other by KIND_GPU was not measured: its runtime has no CUDA half." in page
