"""`recserve tune`: which settings suit this data, chosen on validation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.options import (
    ConfigFile,
    Folder,
    Json,
    Preset,
    Settings,
    load,
    recipe_of,
)
from serving.commands.progress import progress_bar

if TYPE_CHECKING:
    from recommender.tuning.verdict import Finalist, Tuned

_SHOWN = 8  # trials in the table


def tune(
    folder: Folder,
    out: Annotated[Path, typer.Option(help="The new folder of the search.", show_default=False)],
    trials: Annotated[
        int, typer.Option(min=1, help="Recipes to try, the base included; in all, with --resume.")
    ] = 40,
    minutes: Annotated[
        float | None,
        typer.Option(min=0, help="Start no trial after them; the best few are still run again."),
    ] = None,
    space: Annotated[
        str,
        typer.Option(
            help="mixer (a trial trains the mixer alone), signals (and counts their tables), "
            "encoder (and trains the encoders), or all."
        ),
    ] = "mixer",
    only: Annotated[
        str | None,
        typer.Option(help="Just these settings, comma-separated, whatever --space says."),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Whose test rows are not looked at: leave-one-out, temporal or both [default: "
            "both; leave-one-out where time is made up]."
        ),
    ] = None,
    preset: Preset = "full",
    config: ConfigFile = None,
    settings: Settings = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Same seed, same search.")] = None,
    finalists: Annotated[int, typer.Option(min=1, help="The best few, run again.")] = 3,
    seeds: Annotated[int, typer.Option(min=2, help="Fresh seeds for the best few.")] = 3,
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            help="Trials at a time, each in a process of its own above 1: one "
            "that holds data and tables, and has its share of the cores.",
        ),
    ] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an earlier search.")] = False,
    json: Json = False,
) -> None:
    """Search for a better recipe around the one given, on validation only; write it for --config.

    Example: recserve tune data/ml-100k --out tuned --trials 60

    Then: recserve train data/ml-100k --config tuned/best.toml --out runs/tuned
    """
    from json import dumps

    from recommender import tune as tuning
    from recommender.data.config import DataConfig
    from recommender.tuning.space import space_of

    recipe = recipe_of(preset, config, settings, seed)
    names = [name.strip() for name in only.split(",") if name.strip()] if only else []
    space_of(recipe, space, names)  # refused before data is read
    tuning.check_free(out, resume=resume)
    dataset, data = load(folder, config, settings), DataConfig.of(folder, config, settings or ())
    with progress_bar() as progress:
        tuned = tuning.tune(
            dataset, out, config=recipe, data=data, protocol=protocol, space=space, only=names,
            effort=tuning.Effort(
                trials=trials, minutes=minutes, finalists=finalists, seeds=seeds, jobs=jobs
            ),
            resume=resume, progress=progress,
        )  # fmt: skip
    if json:
        typer.echo(dumps(tuned.to_json(), indent=2))
        return
    _print(tuned)
    typer.echo(f"{tuned.verdict}\nWritten: {out / tuning.BEST}; page: {out / tuning.PAGE}; "
               f"figures: {out / tuning.FIGURES}")  # fmt: skip


def _print(tuned: Tuned) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    best = sorted(tuned.trials, key=lambda t: -(t.score.value if t.score else -1.0))[:_SHOWN]
    if tuned.trials[0] not in best:
        best[-1] = tuned.trials[0]
    base = tuned.trials[0].settings
    title = f"Best of {len(tuned.trials)} trials, NDCG@10; trial 0 is the recipe given"
    table = Table("trial", "score", "next item", "window", "settings", title=title,
                  title_justify="left", box=None)  # fmt: skip
    for trial in best:
        score = trial.score
        figures = (score.value, score.next_item, score.window) if score else (None, None, None)
        table.add_row(
            str(trial.number),
            *("-" if figure is None else f"{figure:.4f}" for figure in figures),
            ", ".join(
                f"{name} {value:.4g}"
                for name, value in trial.settings.items()
                if trial.number == 0 or value != base[name]
            ),
        )
    console.print(table)
    seeds = ", ".join(map(str, tuned.seeds))
    table = Table("trial", "mean ± spread", "gain ± spread", title=f"Again, with seeds {seeds}",
                  title_justify="left", box=None)  # fmt: skip
    for finalist in tuned.finals:
        table.add_row(str(finalist.trial), *_final(finalist))
    console.print(table)


def _final(one: Finalist) -> tuple[str, str]:
    if one.mean is None:
        return "diverged", "-"
    gain = "-" if one.trial == 0 else f"{one.gain:+.4f} ± {one.gain_spread:.4f}"
    return f"{one.mean:.4f} ± {one.spread:.4f}", gain
