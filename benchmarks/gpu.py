"""What a CUDA GPU does with this repository, on this machine -> docs/benchmarks-gpu.md.

    python benchmarks/gpu.py [--repository DIR] [--data DIR] [--out FILE]

Floors first (what the device can do at all), then the graph by size, training steps, and a real
tritonserver over REPOSITORY's release, where there is one. A part that fails is said to have
failed, in its place; the others are measured all the same. The figures as JSON go beside the page
with --json.
"""

from __future__ import annotations

import json
import os
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from gpu_report import about_machine, page

from recommender import config as recipes

PARTS = ("floors", "graph", "optimized", "training", "triton")


def main(
    repository: Annotated[
        Path | None, typer.Option(help="Holds a release to serve; left out, no Triton.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="A data folder: also time whole trainings.")
    ] = None,
    out: Path = Path("docs/benchmarks-gpu.md"),
    figures: Annotated[
        Path | None, typer.Option("--json", help="Keep the figures here; go on from it.")
    ] = None,
    parts: Annotated[str, typer.Option(help="Which to measure now.")] = ",".join(PARTS),
    sizes: Annotated[str | None, typer.Option(help="Items, comma-separated.")] = None,
) -> None:
    if not torch.cuda.is_available():
        typer.echo(f"recserve: torch {torch.__version__} sees no CUDA GPU here: nothing measured.",
                   err=True)  # fmt: skip
        raise typer.Exit(1)
    threads = len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    found = json.loads(figures.read_text()) if figures and figures.exists() else {}
    found["machine"] = about_machine(threads)

    def part(name: str, work: Callable[[], Any]) -> None:
        typer.echo(f"{name} ...")
        try:
            found[name] = work()
        except Exception:
            traceback.print_exc()
            found[name] = {"failed": traceback.format_exc().strip().splitlines()[-1]}
        if figures:
            figures.write_text(json.dumps(found, indent=1))

    chosen = parts.split(",")
    measure_here(part, chosen, found, sizes)
    if "training" in chosen:
        from gpu_training import steps, whole

        part("training", lambda: steps(recipes.read()))
        if data is not None:
            part("whole trainings", lambda: whole(data))
    if "triton" in chosen and repository is not None:
        import gpu_triton

        part("triton", lambda: gpu_triton.measure(repository, min(threads, 4)))
    out.write_text(page(found))
    typer.echo(f"Written: {out}")


def measure_here(
    part: Callable[[str, Callable[[], Any]], None], chosen: list[str], found: Any, sizes: str | None
) -> None:
    """What needs no server: floors and graphs."""
    import gpu_graph
    from gpu_floors import Floors, floors
    from gpu_random import limits_of

    config = recipes.read()
    limits = limits_of(config)
    if "floors" in chosen or "floors" not in found:
        part("floors", lambda: vars(floors()))
    if "graph" in chosen:
        for items in map(int, sizes.split(",")) if sizes else gpu_graph.ITEMS:
            part(
                f"graph {items}",
                lambda items=items: gpu_graph.measure(
                    Floors(**found["floors"]), config, items, limits
                ),
            )
    if "optimized" in chosen:
        part("optimized", lambda: gpu_graph.optimized(config, limits))


if __name__ == "__main__":
    typer.run(main)
