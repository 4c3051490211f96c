"""`recserve export`: a run -> a release, with new items in it if they are given. Here is torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.options import Repository, TritonSettings
from serving.commands.progress import progress_bar

if TYPE_CHECKING:
    from recommender.runs import Run


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    repository: Repository = Path("model_repository"),
    items: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Items to add to the catalogue without training again: .csv or .parquet with "
            "the columns of the data's items.",
        ),
    ] = None,
    triton: TritonSettings = None,
) -> None:
    """Write the next release of RUN: ONNX and TorchScript, checked for parity before it shows.

    Example: recserve export runs/ml-100k --repository model_repository

    With new items in it: recserve export runs/ml-100k --items new-items.csv

    How Triton is to serve it (docs/triton.md): recserve export runs/ml-100k --triton triton.toml
    """
    from export.releases import publish
    from recommender import runs
    from recommender.release import read_index, read_release

    loaded = runs.read(run)
    with progress_bar() as progress:
        progress("export", 0, 1)
        if items is not None:
            loaded = _grown(loaded, items)
        version = publish(loaded, repository, triton)
    release = read_release(repository, version, verify=False)  # parity and checksums are fresh
    typer.echo(f"release {version}: {', '.join(release.models)} in {repository}")
    for name, parity in release.details["parity"].items():
        typer.echo(
            f"  {name}: {parity['identical']} of {parity['rows']} rows say the same as "
            f"eager PyTorch, scores within {parity['largest_difference']:.1e}"
        )
    for added in release.details["training"].get("added", ()):
        typer.echo(
            f"  {added['new']:,} items are new, {added['refreshed']:,} were there already; the "
            "figures are those of the run without them"
        )
    serving = read_index(repository).serving
    if serving != version:
        typer.echo(f"  release {serving} still serves")


def _grown(run: Run, path: Path) -> Run:
    """What of the new items is not as it should be goes to stderr."""
    from recommender.grow import grow, read_items

    frame, dropped = read_items(path)
    for rows in dropped:
        typer.echo(f"dropped {rows}", err=True)
    if missing := [c for c in run.content_space.columns if c not in frame.columns]:
        typer.echo(f"{path}: no column {', '.join(missing)}, which likeness goes by", err=True)
    grown = grow(run, frame)
    if blank := grown.details["added"][-1]["without_content"]:
        typer.echo(
            f"{path}: {blank:,} new items have no content in common with the run's items: they "
            "stay at the end of every list until a training has seen events of them",
            err=True,
        )
    return grown
