"""The pod that the simulation of autoscaling is about is measured from a real Triton."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "benchmarks"))


def test_a_real_triton_gives_the_service_times(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from autoscaling import measure, queueing

    monkeypatch.setattr(measure, "ROUNDS", 1)
    pod = measure.measure(repository, seconds=0.25)
    assert pod.model == "recommender_onnx" and pod.max_batch == 64
    assert 0 < pod.batch_s[0] < pod.batch_s[-1] < 10
    assert 0 < pod.start_s < 120 and pod.beside_s > 0
    assert pod.cpu_batch_s + pod.cpu_row_s > 0
    # A third, three fifths and four fifths of what it can do were sent, and both sides counted.
    assert [round(one.rate / pod.capacity, 2) for one in pod.checks] == [0.3, 0.6, 0.8]
    for one in pod.checks:
        for measured, computed in (one.queue_us, one.p50_ms, one.p99_ms):
            assert measured > 0 and computed > 0
        assert one.queue_us[0] / 1e3 < one.p99_ms[0]
    table = queueing.table(pod, requests=2000)
    assert table.capacity == pytest.approx(64 / pod.batch_s[-1])
