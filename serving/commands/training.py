"""`recserve train` and `evaluate`: from data to runs, and how good they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.figures import print_report, print_seeds
from serving.commands.options import (
    ConfigFile,
    Folder,
    Json,
    Preset,
    Resume,
    Settings,
    load,
    recipe_of,
)
from serving.commands.progress import progress_bar

if TYPE_CHECKING:
    from recommender.data.dataset import Dataset
    from recommender.protocols import Report
    from recommender.runs import Run

COMPARED = "deep,ease,item-knn,content,popularity"
NEW_ITEMS = "deep,content"  # compared where the items are new: to others all of them are alike


def train(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="The new run folder.", show_default=False)],
    model: Annotated[
        str, typer.Option(help="deep, ease, item-knn, content or popularity.")
    ] = "deep",
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
    from recommender.metrics import with_half
    from recommender.sizes import by_size

    recipe = recipe_of(preset, config, settings, seed)
    training.check_family(model)
    runs.check_free(out, resume=resume)
    dataset = load(folder, config, settings)
    blueprint = training.blueprint_of(model, dataset.users, dataset, recipe)
    if fewer := by_size(blueprint, dataset.users):
        typer.echo(f"{len(dataset.catalogue):,} items, so: {', '.join(fewer)} (docs/models.md)")
    with progress_bar() as progress:
        run = training.train(
            dataset, out, family=model, config=recipe, resume=resume, progress=progress
        )
    typer.echo(
        f"{out}: {model} trained in {run.details['seconds']:.0f} s; on the held-out part "
        f"NDCG@10 {with_half(run.metrics['ndcg@10'])}, HR@10 {with_half(run.metrics['hr@10'])}"
    )


def evaluate(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="Folder for report and runs.", show_default=False)],
    protocol: Annotated[
        str, typer.Option(help="leave-one-out, temporal or cold-items.")
    ] = "leave-one-out",
    models: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated; others are compared with the first "
            f"[default: {COMPARED}; of cold-items {NEW_ITEMS}; with --through: deep].",
        ),
    ] = None,
    run: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="RUN",
            help="A run of `recserve adapt --protocol`, judged beside them; may repeat.",
        ),
    ] = None,
    preset: Preset = "full",
    config: ConfigFile = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
    seeds: Annotated[
        int,
        typer.Option(
            min=1,
            help="So many, from --seed on: their mean and spread. Of cold-items each hides others.",
        ),
    ] = 1,
    draw: Annotated[
        int, typer.Option(min=0, help="Of cold-items: another tenth of the items is hidden.")
    ] = 0,
    resume: Resume = False,
    through: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Train nothing: judge the answers of a server that serves the run of an earlier "
            "evaluate. http://HOST:PORT (Bento), grpc://HOST:PORT or triton+http://HOST:PORT.",
        ),
    ] = None,
    repository: Annotated[
        Path, typer.Option(help="With --through: where that run was exported to.")
    ] = Path("model_repository"),
    json: Json = False,
) -> None:
    """Train on a protocol's rows and report HR, NDCG, recall, precision, F1, MRR and coverage.

    Example: recserve evaluate data/ml-100k --protocol leave-one-out --out reports/ml-100k

    Three seeds, trained one after the other: recserve evaluate data/ml-100k --out reports/seeds
    --seeds 3

    The same through a server: recserve evaluate data/ml-100k --out reports/ml-100k --through
    grpc://127.0.0.1:8001
    """
    from dataclasses import replace
    from json import dumps

    from recommender import protocols, runs
    from recommender.data.config import DataConfig
    from recommender.errors import BadInput
    from recommender.report.command import Source, beyond
    from recommender.seeds import over_seeds

    recipe = recipe_of(preset, config, settings, seed)
    adapted = [runs.read(path) for path in run or ()]
    dataset = load(folder, config, settings)
    compared = NEW_ITEMS if protocol == protocols.COLD_ITEMS else COMPARED
    if through is not None:
        if protocol == protocols.COLD_ITEMS:
            raise BadInput(
                f"{protocol} ranks the hidden items alone, which no server can be asked for",
                remedy="Leave --through out, or use another --protocol.",
                field="through",
            )
        named = models.split(",") if models else [] if adapted else ["deep"]
        _through(dataset, protocol, out, named, adapted, through, repository, json)
        return

    source = Source(
        folder=str(folder),
        data=beyond(DataConfig.of(folder), DataConfig.of(folder, config, settings or ())),
        runs=tuple(map(str, run or ())),
    )

    first, drawn = recipe.training.seed, protocol == protocols.COLD_ITEMS

    def one(seed: int, out: Path) -> Report:
        trained = replace(recipe, training=replace(recipe.training, seed=seed))
        with progress_bar() as progress:
            return protocols.evaluate(
                dataset, protocol, out, families=(models or compared).split(","), runs=adapted,
                config=trained, source=source, draw=draw + seed - first if drawn else draw,
                resume=resume, progress=progress,
            )  # fmt: skip

    if seeds > 1:
        found = over_seeds(range(first, first + seeds), out, one)
        if json:
            typer.echo(dumps(found.to_json(), indent=2))
        else:
            print_report(found.mean, title=f", mean of {seeds} seeds")
            print_seeds(found)
            page, figures = (out / f"{protocol}-seeds.{kind}" for kind in ("html", "json"))
            typer.echo(f"Written: {page}; figures: {figures}; a report a seed: {out}/seed-*")
        return
    report = one(first, out)
    if json:
        typer.echo(dumps(report.to_json(), indent=2))
    else:
        print_report(report)
        page, figures = out / f"{protocol}.html", out / f"{protocol}.json"
        typer.echo(f"Written: {page}; figures: {figures}; runs: {out / 'runs'}")


def _through(
    dataset: Dataset,
    protocol: str,
    out: Path,
    families: list[str],
    adapted: list[Run],
    address: str,
    repository: Path,
    as_json: bool,
) -> None:
    from json import dumps

    from recommender.errors import ReleaseError
    from recommender.through import evaluate_through
    from serving.through import asker

    with progress_bar() as progress:
        found = evaluate_through(
            dataset, protocol, out, families=families, adapted=adapted,
            ask=asker(address, repository, progress), progress=progress,
        )  # fmt: skip
    if as_json:
        typer.echo(dumps(found.to_json(), indent=2))
    else:
        print_report(found.report)
        for family, same in found.agreement.items():
            typer.echo(
                f"{family} through {address}: {same.same_lists:,} of {same.queries:,} lists are "
                f"those of the graph in process, scores within "
                f"{same.largest_score_difference:.1e}, figures within "
                f"{same.largest_figure_difference:.1e}"
            )
        typer.echo(f"Written: {out / f'{protocol}-through.json'}")
    if wrong := [family for family, same in found.agreement.items() if not same.holds]:
        raise ReleaseError(
            f"what {address} answers for {wrong[0]} is not what its run answers: the figures "
            f"differ by up to {found.agreement[wrong[0]].largest_figure_difference:.4f}",
            remedy=f"Export the run of {wrong[0]} again and serve that release from {repository}.",
        )
