"""How fast is a served graph by itself? ONNX Runtime, histories of real lengths in their buckets.

    python benchmarks/graph.py REPOSITORY [--version N] [--threads 2]
    python benchmarks/graph.py REPOSITORY --spinning [--docs docs]

The histories are those of the release's own users, each in its bucket; the mixed rate is that
of all users once, in batches of their bucket. Medians; one process, nothing else measured.
`--spinning` measures what threads that spin while they wait are worth (graph_spinning.py), and
`--docs` adds that to docs/benchmarks.json and its page.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import onnxruntime
import typer
from rich.console import Console
from rich.table import Table

from recommender.contract import Array, Limits
from recommender.features import Request, tensors
from recommender.release import Release, read_release

ROUNDS, WARM_UP = 30, 3
BATCHES = (1, 8, 32)


def main(
    repository: Path,
    version: Annotated[int | None, typer.Option(help="Default: the one that serves.")] = None,
    threads: int = 2,
    spinning: Annotated[bool, typer.Option(help="Threads that spin, against none.")] = False,
    docs: Annotated[str, typer.Option(help="Where the page of --spinning goes.")] = "",
) -> None:
    release = read_release(repository, version)
    model = repository / release.models[0] / str(release.version) / "model.onnx"
    if spinning:
        _spinning(release, model, threads, docs)
        return
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])
    limits, asked = release.limits, requests_of(release)
    table = Table("bucket", "share of users", *(f"batch {b}, ms" for b in BATCHES), "rows/s at 32")
    total = 0.0
    for bucket, requests in asked.items():
        if not requests:
            continue
        took = {b: milliseconds(session, _some(requests, b), limits, bucket) for b in BATCHES}
        share = len(requests) / sum(len(r) for r in asked.values())
        total += share * took[32] / 32
        cells = (f"{ms:.2f}" for ms in took.values())
        table.add_row(str(bucket), f"{share:.0%}", *cells, f"{32e3 / took[32]:,.0f}")
    console = Console()
    console.print(table)
    console.print(
        f"mixed: {1e3 / total:,.0f} rows/s at batch 32; {len(release.catalogue):,} items, "
        f"{model.stat().st_size / 1e6:.0f} MB, {threads} threads of {os.cpu_count()} CPUs, "
        f"onnxruntime {onnxruntime.__version__}"
    )


def _spinning(release: Release, model: Path, threads: int, docs: str) -> None:
    import graph_spinning
    import serving_figures
    import serving_page
    import serving_page_settings

    length, requests = max(requests_of(release).items(), key=lambda pair: len(pair[1]))
    asked = _some(requests, graph_spinning.BATCH)
    batch = tensors(asked, release.limits, length=length)
    found = graph_spinning.measured(model, batch, length, threads)
    Console().print(serving_page_settings.spinning_of(found), soft_wrap=True)
    if docs:
        serving_figures.keep(Path(docs), spinning=found)
        serving_page.write(Path(docs))


def requests_of(release: Release) -> dict[int, list[Request]]:
    """Every user's question at its last event, by length bucket."""
    found: dict[int, list[Request]] = {bucket: [] for bucket in release.limits.length_buckets}
    for row in range(len(release.users)):
        history = release.users.history(row)
        if len(history):
            asked = Request(
                history=history,
                request_time=int(history.times[-1]),
                user_features=release.users.features[row],
                exclude=history.items[::-1],
            )
            found[release.limits.bucket(len(history))].append(asked)
    return found


def _some(requests: list[Request], count: int) -> list[Request]:
    picked = np.linspace(0, len(requests) - 1, count).astype(int)
    return [requests[i] for i in picked]


def milliseconds(
    session: onnxruntime.InferenceSession, requests: list[Request], limits: Limits, bucket: int
) -> float:
    arrays: dict[str, Array] = tensors(requests, limits, length=bucket)
    took = []
    for _ in range(WARM_UP + ROUNDS):
        started = time.perf_counter()
        session.run(None, arrays)
        took.append(time.perf_counter() - started)
    return statistics.median(took[WARM_UP:]) * 1e3


if __name__ == "__main__":
    typer.run(main)
