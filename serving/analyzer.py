"""A release -> what NVIDIA's own load tools take: real requests, and a search over its settings.

    requests.json          of perf_analyzer's --input-data: the release's users, histories as long
                           as they are, what they have seen left out
    model-analyzer.yaml    of `model-analyzer profile --config-file`, which starts tritonserver
                           again and again and has perf_analyzer ask it with those requests

Files only. What these tools lack (latency from the scheduled time, checked answers, the path
through Bento) is `recserve load`'s.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np

from client.load.questions import newest_seen
from recommender.features import Request, tensors
from recommender.release import Release

REQUESTS, CONFIG = "requests.json", "model-analyzer.yaml"
CONCURRENCY = (1, 8, 32, 64)
QUEUE_DELAYS_US = (0, 100, 500, 2000)
INSTANCES = (1, 2)


def write_analyzer(
    release: Release,
    folder: Path,
    *,
    model: str,
    gpu: bool,
    p99_ms: float | None,
    requests: int,
) -> list[Path]:
    """Both files in `folder`, which is made; `p99_ms` is what no setting may exceed."""
    folder.mkdir(parents=True, exist_ok=True)
    asked, config = folder / REQUESTS, folder / CONFIG
    asked.write_text(json.dumps({"data": steps(release, requests)}))
    config.write_text(config_text(release, model, asked.absolute(), gpu=gpu, p99_ms=p99_ms))
    return [asked, config]


def steps(release: Release, count: int) -> list[dict[str, dict[str, object]]]:
    """Of up to `count` users, each tensor without the batch dimension."""
    rows = np.random.default_rng(0).permutation(len(release.users))[:count]
    asked = (_request(release, int(row), int(time.time())) for row in rows)
    return [
        {
            name: {"content": array[0].tolist(), "shape": list(array.shape[1:])}
            for name, array in tensors([request], release.limits).items()
        }
        for request in asked
    ]


def _request(release: Release, row: int, now: int) -> Request:
    """What `recserve load` asks for that user."""
    users = release.users
    history = users.history(row)
    return Request(
        history=history,
        request_time=now,
        user_features=users.features[row],
        exclude=newest_seen(release, history),
    )


def config_text(
    release: Release, model: str, asked: Path, *, gpu: bool, p99_ms: float | None
) -> str:
    """YAML. Strings are quoted as JSON quotes them, which YAML reads alike."""
    kind = "KIND_GPU" if gpu else "KIND_CPU"
    groups = "".join(f"        - - kind: {kind}\n            count: {n}\n" for n in INSTANCES)
    budget = "" if p99_ms is None else (
        "    constraints:\n"
        "      perf_latency_p99:\n"
        f"        max: {p99_ms:g}\n"
    )  # fmt: skip
    return f"""\
# Release {release.version}, written by `recserve releases analyzer`.
# Run: model-analyzer profile --config-file THIS_FILE
model_repository: {json.dumps(str(release.repository.absolute()))}
triton_launch_mode: local
client_protocol: grpc
run_config_search_disable: true
profile_models:
  {model}:
{"" if gpu else "    cpu_only: true" + chr(10)}\
    parameters:
      concurrency: {list(CONCURRENCY)}
      batch_sizes: [1]
    model_config_parameters:
      dynamic_batching:
        max_queue_delay_microseconds: {list(QUEUE_DELAYS_US)}
      instance_group:
{groups}{budget}\
    objectives:
      - perf_throughput
perf_analyzer_flags:
  input-data: {json.dumps(str(asked))}
  percentile: 99
"""
