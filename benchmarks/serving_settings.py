"""Which settings suit ours and each peer best on this machine? The other benchmarks go by it.

    python benchmarks/serving_settings.py REPOSITORY [--only LitServe] [--rounds 3] [--seconds 3]

All settings of one path run at once, one awake at a time, in rounds that take turns, asked at the
connections of the aims. Writes what each gave into docs/benchmarks-settings.json, which
docs/benchmarks.md shows, and by whose best the others start ours and the peers.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from serving_asking import Rate, measured
from serving_figures import ratio
from serving_ours import scratch
from serving_paths import BENTOML, LITSERVE, ONNX, OURS, PATHS, TORCH, Settings, Way, all_paused

FILE = "benchmarks-settings.json"
OUT = Path("docs") / FILE
CONNECTIONS = (32, 64)
Tried = list[dict[str, Any]]  # of a path: settings, and at so many connections the rounds

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
    out: Path = OUT,
) -> None:
    tried: dict[str, Tried] = json.loads(out.read_text()) if out.exists() else {}
    for name in only or list(CANDIDATES):
        if name not in CANDIDATES:
            raise typer.BadParameter(f"--only is {name!r}; paths: {', '.join(CANDIDATES)}.")
        tried[name] = _tried(name, repository, rounds, seconds)
        in_order = {one: tried[one] for one in CANDIDATES if one in tried}
        out.write_text(json.dumps(in_order, indent=1) + "\n")


def _tried(name: str, repository: Path, rounds: int, seconds: float) -> Tried:
    candidates = CANDIDATES[name]
    found: list[dict[int, list[Rate]]] = [{count: [] for count in CONNECTIONS} for _ in candidates]
    paths = [PATHS[name].under(settings) for settings in candidates]
    with (
        scratch(repository) as folder,
        all_paused(paths, repository, Path(folder)) as servers,
    ):
        for number in range(rounds):
            for count in CONNECTIONS:
                for i in list(range(len(servers)))[:: -1 if number % 2 else 1]:
                    rate = measured(servers[i], repository, connections=count, seconds=seconds,
                                    warm_up_s=1.0)  # fmt: skip
                    found[i][count].append(rate)
    results = []
    for settings, at in zip(candidates, found, strict=True):
        told = ", ".join(f"{key} {value}" for key, value in settings.items())
        rates = " and ".join(
            f"{statistics.median(rate.rate for rate in at[count]):,.0f}/s" for count in CONNECTIONS
        )
        Console().print(f"{name}: {told}: {rates}", soft_wrap=True)
        plain = {str(count): [asdict(rate) for rate in at[count]] for count in CONNECTIONS}
        results.append({"settings": dict(settings), "at": plain})
    return results


def best(path: Way, file: Path = OUT) -> Way:
    """Under the settings that served most; of those within 3% of it, with the lowest p99."""
    tried: Tried = json.loads(file.read_text()).get(path.name, []) if file.exists() else []
    if not tried:
        return path
    rates, p99s = (_beside_first(tried, figure) for figure in ("rate", "p99_ms"))
    near = [i for i, rate in enumerate(rates) if rate >= 0.97 * max(rates)]
    return path.under(tried[min(near, key=p99s.__getitem__)]["settings"])


def _beside_first(tried: Tried, figure: str) -> list[float]:
    """Of each: times that of the first, in rounds; the mean (geometric) over the connections."""
    first = tried[0]["at"]
    return [
        statistics.geometric_mean(
            ratio(rounds, first[count], figure)[0] for count, rounds in one["at"].items()
        )
        for one in tried
    ]


if __name__ == "__main__":
    typer.run(main)
