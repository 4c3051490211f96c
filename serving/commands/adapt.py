"""`recserve adapt`: a model of your own becomes a run that export, batch and serve take."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.options import (
    ConfigFile,
    Folder,
    Settings,
    load,
    recipe_of,
)
from serving.commands.progress import progress_bar

if TYPE_CHECKING:
    from recommender.runs import Run


def adapt(
    folder: Folder,
    module: Annotated[
        str,
        typer.Option(
            metavar="FILE.py[:FUNCTION]",
            help="The function that gets the data and gives your torch module [default FUNCTION: "
            "build].",
            show_default=False,
        ),
    ],
    name: Annotated[
        str, typer.Option(help="Of the family; its model is NAME_onnx.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="The new run folder.", show_default=False)],
    arguments: Annotated[
        list[str] | None,
        typer.Option(
            "--argument", metavar="KEY=VALUE", help="Passed on to the function; may repeat."
        ),
    ] = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="leave-one-out or temporal: give the function that protocol's training rows only, "
            "for `recserve evaluate --run`.",
        ),
    ] = None,
    config: ConfigFile = None,
    settings: Settings = None,
) -> None:
    """Bring your own PyTorch module, or a checkpoint of another library, as one more family.

    Example: recserve adapt data/ml-100k --module examples/own_model.py --name my-model
    --out runs/my-model
    """
    from recommender import adapter, runs
    from recommender.protocols import split_of

    given = _pairs(arguments or [])
    adapter.check_name(name)
    runs.check_free(out, resume=False)
    build = adapter.builder(module, given)
    recipe = recipe_of("full", config, settings, None)
    dataset = load(folder, config, settings)
    users = split_of(dataset, protocol).train_valid if protocol is not None else None
    with progress_bar() as progress:
        run = adapter.adapt(
            dataset, build, out, name=name, config=recipe, users=users, progress=progress
        )
    _show(run, name, out)


def _pairs(arguments: list[str]) -> dict[str, str]:
    found = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not (equals and key.isidentifier()):
            raise typer.BadParameter(f"{argument!r} is not KEY=VALUE", param_hint="'--argument'")
        found[key] = value
    return found


def _show(run: Run, name: str, out: Path) -> None:
    from recommender.metrics import with_half

    elsewhere = run.details["trained_elsewhere"]
    figures = run.details["on_events_it_may_have_seen"] if elsewhere else run.metrics
    told = f"NDCG@10 {with_half(figures['ndcg@10'])}, HR@10 {with_half(figures['hr@10'])}"
    if elsewhere:
        typer.echo(f"{out}: {name} keeps the contract")
        typer.echo(
            f"  {told} on everybody's newest events, which it may have been trained on: no "
            "held-out metrics. `recserve evaluate --run` compares it"
        )
    else:
        typer.echo(f"{out}: {name} keeps the contract; on the held-out part {told}")
