"""Which settings suit ours and each peer best on this machine? The other benchmarks go by it.

    python benchmarks/serving_settings.py REPOSITORY [--only LitServe] [--rounds 3] [--seconds 3]

All settings of one path run at once, one awake at a time, in rounds that take turns. Writes what
each gave into docs/benchmarks-settings.json, which docs/benchmarks.md shows, and by whose best the
others start ours and the peers.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from serving_asking import Rate, measured
from serving_ours import scratch
from serving_paths import BENTOML, LITSERVE, ONNX, OURS, PATHS, TORCH, Settings, Way, all_paused

FILE = "benchmarks-settings.json"
OUT = Path("docs") / FILE
Tried = dict[str, list[dict[str, object]]]  # path -> settings, rates

IN_PROCESS: list[Settings] = [
    {"WORKERS": "2"},
    {"WORKERS": "2", "POOL": "1"},
    {"WORKERS": "1"},
    {"WORKERS": "1", "POOL": "1"},
    {"WORKERS": "1", "THREADS": "2"},
]
CANDIDATES: dict[str, list[Settings]] = {
    OURS: [  # the first are the defaults, which the page compares the others with
        {"CALLS": "2", "INSTANCES": "1"},
        {"CALLS": "1", "INSTANCES": "1"},
        {"CALLS": "3", "INSTANCES": "1"},
        {"CALLS": "2", "INSTANCES": "2"},
        {"CALLS": "3", "INSTANCES": "2"},
        {"CALLS": "2", "INSTANCES": "1", "THREADS": "2"},
        {"CALLS": "2", "INSTANCES": "1", "DELAY_US": "500"},
        {"CALLS": "2", "INSTANCES": "1", "BATCHING": "0"},
        {"CALLS": "3", "INSTANCES": "1", "BATCHING": "0"},
        {"CALLS": "4", "INSTANCES": "2", "BATCHING": "0"},
    ],
    TORCH: [*IN_PROCESS, {"WORKERS": "2", "OPTIMIZED": "1"}],
    ONNX: IN_PROCESS,
    BENTOML: [
        {"WORKERS": "2"},
        {"WORKERS": "2", "POOL": "1"},
        {"WORKERS": "1"},
        {"WORKERS": "1", "POOL": "1"},
        {"WORKERS": "1", "POOL": "1", "THREADS": "2"},
        {"WORKERS": "2", "LONGEST_MS": "100"},
        {"WORKERS": "2", "BATCH": "16"},
        {"WORKERS": "2", "BATCH": "16", "POOL": "1"},
    ],
    LITSERVE: [
        {"WORKERS": "1"},
        {"WORKERS": "1", "ZMQ": "0"},
        {"WORKERS": "2"},
        {"WORKERS": "1", "API_SERVERS": "2"},
        {"WORKERS": "2", "API_SERVERS": "2", "WAIT_S": "0.001"},
        {"WORKERS": "2", "API_SERVERS": "2", "WAIT_S": "0"},
        {"WORKERS": "1", "WAIT_S": "0"},
        {"WORKERS": "1", "WAIT_S": "0.005"},
        {"WORKERS": "1", "BATCH": "16"},
        {"WORKERS": "1", "THREADS": "2"},
    ],
}


def main(
    repository: Path,
    only: Annotated[list[str] | None, typer.Option(help="These paths; default all.")] = None,
    rounds: int = 3,
    seconds: Annotated[float, typer.Option(help="Of each setting of each round.")] = 3.0,
    connections: Annotated[int, typer.Option(help="Between the two of the aims.")] = 48,
    out: Path = OUT,
) -> None:
    tried: Tried = json.loads(out.read_text()) if out.exists() else {}
    for name in only or list(CANDIDATES):
        if name not in CANDIDATES:
            raise typer.BadParameter(f"--only is {name!r}; paths: {', '.join(CANDIDATES)}.")
        tried[name] = _tried(name, repository, rounds, seconds, connections)
        in_order = {one: tried[one] for one in CANDIDATES if one in tried}
        out.write_text(json.dumps(in_order, indent=1) + "\n")


def _tried(
    name: str, repository: Path, rounds: int, seconds: float, connections: int
) -> list[dict[str, object]]:
    candidates, found = CANDIDATES[name], list[list[Rate]]()
    paths = [PATHS[name].under(settings) for settings in candidates]
    with (
        scratch(repository) as folder,
        all_paused(paths, repository, Path(folder)) as servers,
    ):
        for number in range(rounds):
            rates = {
                i: measured(servers[i], repository, connections=connections, seconds=seconds,
                            warm_up_s=1.0)
                for i in list(range(len(servers)))[:: -1 if number % 2 else 1]
            }  # fmt: skip
            found.append([rates[i] for i in range(len(servers))])
    results = []
    for settings, rates in zip(candidates, zip(*found, strict=True), strict=True):
        middle = statistics.median(rate.rate for rate in rates)
        p99 = statistics.median(rate.p99_ms for rate in rates)
        told = ", ".join(f"{key} {value}" for key, value in settings.items())
        Console().print(f"{name}: {told}: {middle:,.0f}/s, p99 {p99:.0f} ms", soft_wrap=True)
        results.append({"settings": dict(settings), "rate": middle, "p99_ms": p99,
                        "connections": connections,
                        "rounds": [asdict(rate) for rate in rates]})  # fmt: skip
    return results


def best(path: Way, file: Path = OUT) -> Way:
    """Under the settings that served most; of those within 3% of it, with the lowest p99."""
    tried = json.loads(file.read_text()).get(path.name, []) if file.exists() else []
    if not tried:
        return path
    most = max(one["rate"] for one in tried)
    near = [one for one in tried if one["rate"] >= 0.97 * most]
    return path.under(min(near, key=lambda one: one["p99_ms"])["settings"])


if __name__ == "__main__":
    typer.run(main)
