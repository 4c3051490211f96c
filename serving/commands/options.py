"""What several commands take and show: options by name, a recipe, a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from recommender.data.dataset import Dataset

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A data folder.")]
Preset = Annotated[str, typer.Option(help="quick or full.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML recipe over the preset.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting; may repeat.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")]
Json = Annotated[bool, typer.Option("--json", help="For a program to read.")]
Repository = Annotated[Path, typer.Option(help="The model repository.")]
TritonSettings = Annotated[
    Path | None,
    typer.Option(
        "--triton",
        metavar="FILE",
        help="How Triton serves the models, as TOML; kept as the repository's triton.toml "
        "[default: the one that is there].",
    ),
]


def recipe_of(preset: str, file: Path | None, settings: list[str] | None, seed: int | None) -> Any:
    from recommender.config import read

    chosen = [*(settings or ()), *([f"training.seed={seed}"] if seed is not None else ())]
    return read(preset, file, chosen)


def load(folder: Path, config: Path | None, settings: list[str] | None) -> Dataset:
    """The data set; what cleaning dropped goes to stderr."""
    from recommender.data import dataset as reading
    from recommender.data.config import DataConfig

    dataset, report = reading.load(folder, DataConfig.of(folder, config, settings or ()))
    for line in report.warnings:
        typer.echo(f"{folder}: {line}", err=True)
    return dataset
