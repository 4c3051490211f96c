"""`recserve train`, `evaluate`, `export` and `releases`: from data to a release. Here is torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from recommender.data.dataset import Dataset
    from recommender.models.learn import Progress
    from recommender.protocols import Report

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="A data folder.")]
Preset = Annotated[str, typer.Option(help="quick or full.")]
ConfigFile = Annotated[Path | None, typer.Option("--config", help="TOML recipe over the preset.")]
Settings = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="One setting; may repeat.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted training.")]
Json = Annotated[bool, typer.Option("--json", help="For a program to read.")]
Repository = Annotated[Path, typer.Option(help="The model repository.")]

releases = typer.Typer(help="The releases of a model repository.", no_args_is_help=True)


def train(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="The new run folder.", show_default=False)],
    model: Annotated[str, typer.Option(help="deep, item-knn or popularity.")] = "deep",
    preset: Preset = "full",
    config: ConfigFile = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Same seed, same weights.")] = None,
    resume: Resume = False,
) -> None:
    """Train on every row of DIR and write a run.

    Example: recserve train data/ml-100k --out runs/ml-100k --preset quick
    """
    from recommender import runs
    from recommender import train as training

    recipe = _recipe(preset, config, settings, seed)
    training.check_family(model)
    runs.check_free(out, resume=resume)
    dataset = _load(folder, config)
    with _progress() as progress:
        run = training.train(
            dataset, out, family=model, config=recipe, resume=resume, progress=progress
        )
    typer.echo(
        f"{out}: {model} trained in {run.details['seconds']:.0f} s; on the held-out part "
        f"NDCG@10 {_cell(run.metrics['ndcg@10'])}, HR@10 {_cell(run.metrics['hr@10'])}"
    )


def evaluate(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="Folder for report and runs.", show_default=False)],
    protocol: Annotated[str, typer.Option(help="leave-one-out or temporal.")] = "leave-one-out",
    models: Annotated[
        str, typer.Option(help="Comma-separated; others are compared with the first.")
    ] = "deep,item-knn,popularity",
    preset: Preset = "full",
    config: ConfigFile = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    resume: Resume = False,
    json: Json = False,
) -> None:
    """Train on a protocol's rows and report HR, NDCG, recall, precision, F1, MRR and coverage.

    Example: recserve evaluate data/ml-100k --protocol leave-one-out --out reports/ml-100k
    """
    from dataclasses import asdict
    from json import dumps

    from recommender import protocols

    recipe = _recipe(preset, config, settings, seed)
    with _progress() as progress:
        report = protocols.evaluate(
            _load(folder, config), protocol, out, families=models.split(","), config=recipe,
            resume=resume, progress=progress,
        )  # fmt: skip
    if json:
        typer.echo(dumps(asdict(report), indent=2))
    else:
        _print_report(report)
        typer.echo(f"Written: {out / f'{protocol}.json'}; runs: {out / 'runs'}")


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    repository: Repository = Path("model_repository"),
) -> None:
    """Write the next release of RUN: ONNX and TorchScript, checked for parity before it shows.

    Example: recserve export runs/ml-100k --repository model_repository
    """
    from export.releases import publish
    from recommender import runs
    from recommender.release import read_index, read_release

    loaded = runs.read(run)
    with _progress() as progress:
        progress("export", 0, 1)
        version = publish(loaded, repository)
    release = read_release(repository, version, verify=False)  # parity and checksums are fresh
    typer.echo(f"release {version}: {', '.join(release.models)} in {repository}")
    for name, parity in release.details["parity"].items():
        typer.echo(
            f"  {name}: {parity['identical']} of {parity['rows']} rows list the same items as "
            f"eager PyTorch, scores within {parity['largest_difference']:.1e}"
        )
    serving = read_index(repository).serving
    if serving != version:
        typer.echo(f"  release {serving} still serves")


@releases.command("list")
def list_releases(repository: Repository = Path("model_repository"), json: Json = False) -> None:
    """Name every release, its models and its held-out NDCG@10.

    Example: recserve releases list
    """
    from json import dumps

    from rich.console import Console
    from rich.table import Table

    from recommender.release import read_index, read_release

    index = read_index(repository)
    found = [read_release(repository, v, verify=False) for v in sorted(index.releases)]
    rows: list[dict[str, Any]] = [
        {
            "release": r.version,
            "serving": r.version == index.serving,
            "created": r.details["created"],
            "family": r.family,
            "models": list(r.models),
            "ndcg@10": r.details["metrics"]["ndcg@10"]["mean"],
        }
        for r in found
    ]
    if json:
        typer.echo(dumps(rows, indent=2))
        return
    table = Table("release", "created", "family", "models", "held-out NDCG@10", box=None)
    for row in rows:
        mark = " (serving)" if row["serving"] else ""
        table.add_row(f"{row['release']}{mark}", row["created"], row["family"],
                      ", ".join(row["models"]), f"{row['ndcg@10']:.4f}")  # fmt: skip
    Console().print(table)


@releases.command()
def promote(
    version: Annotated[int, typer.Argument(metavar="N", help="The release to serve.")],
    repository: Repository = Path("model_repository"),
) -> None:
    """Let release N serve, once its checksums hold; running servers take it at their next start.

    Example: recserve releases promote 2
    """
    from export.releases import promote as choose
    from recommender.release import read_index

    read_index(repository)  # before a lock file is written into any folder
    choose(repository, version)
    typer.echo(f"release {version} serves from the next `recserve serve` on")


@releases.command()
def gc(repository: Repository = Path("model_repository")) -> None:
    """Remove folders of interrupted exports that no release names.

    Example: recserve releases gc
    """
    from export.releases import gc as collect

    removed = collect(repository)
    typer.echo("\n".join(f"removed {folder}" for folder in removed) or "nothing to remove")


def _recipe(preset: str, file: Path | None, settings: list[str] | None, seed: int | None) -> Any:
    from recommender.config import read

    chosen = [*(settings or ()), *([f"training.seed={seed}"] if seed is not None else ())]
    return read(preset, file, chosen)


def _load(folder: Path, config: Path | None) -> Dataset:
    """The data set; what cleaning dropped goes to stderr."""
    from recommender.data.config import DataConfig
    from recommender.data.dataset import load

    dataset, report = load(folder, DataConfig.read(config) if config else None)
    for line in report.warnings:
        typer.echo(f"{folder}: {line}", err=True)
    return dataset


@contextmanager
def _progress() -> Iterator[Progress]:
    """A progress bar on stderr, silent when stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("load", total=None)

        def show(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield show


def _print_report(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    for group, size in report.queries.items():
        families = list(report.models)
        title = f"{report.protocol}, {group} ({size} queries), mean ± half a 95% interval"
        table = Table("metric", *families, title=title, title_justify="left")
        for metric in report.models[families[0]][group]:
            cells = [report.models[family][group][metric] for family in families]
            table.add_row(metric, *map(_cell, cells))
        console.print(table)
    for family, gap in report.against.items():
        console.print(
            f"NDCG@10 of {next(iter(report.models))} minus {family}: {_cell(gap)} "
            "(paired bootstrap)"
        )


def _cell(estimate: Mapping[str, float]) -> str:
    half = f" ± {estimate['half']:.4f}" if "half" in estimate else ""
    return f"{estimate['mean']:.4f}{half}"
