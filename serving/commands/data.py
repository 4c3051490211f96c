"""`recserve init` and `recserve data ...`: begin, bring, make and check data folders."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from recommender.errors import BadInput, shown

Out = Annotated[Path, typer.Option(help="The new data folder.", show_default=False)]


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The new data folder.")],
) -> None:
    """Write a small data folder, with every choice explained, to put your own data in place of.

    Example: recserve init data/mine
    """
    from recommender.data.config import FILE
    from recommender.data.sample import write_sample

    write_sample(folder)
    quoted, name = shlex.quote(str(folder)), shlex.quote(folder.resolve().name)
    typer.echo(
        f"{folder} holds a small shop: interactions.csv, items.csv, users.csv, and {FILE},\n"
        "which explains the files and every choice. Next:\n\n"
        f"recserve data check {quoted}\n"
        f"recserve train {quoted} --out runs/{name} --preset quick\n"
        f"recserve export runs/{name} --repository releases/{name}\n"
        f"recserve serve --repository releases/{name}\n\n"
        "Then put your own files in place of the CSV files and begin again with `data check`."
    )


data = typer.Typer(help="Bring, make and check data folders.")


@data.callback(invoke_without_command=True)
def _help(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@data.command("ml-100k")
def ml_100k(out: Out) -> None:
    """Fetch MovieLens-100K (100,000 ratings of films) and write it as a data folder.

    Example: recserve data ml-100k --out data/ml-100k
    """
    from rich.console import Console

    from recommender.data.movielens import write_ml_100k

    with Console(stderr=True).status("Fetching MovieLens-100K …"):
        fetched = write_ml_100k(out)
    done = (
        "written: 943 users, 1,682 items, 100,000 interactions" if fetched else "already complete"
    )
    typer.echo(f"{out} is {done}. Its terms of use: {out / 'README.txt'}")


@data.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The data folder to read.")],
    json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="TOML file whose data table overrules DIR/recserve.toml.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="data.KEY=VALUE", help="Change one choice; repeatable."),
    ] = None,
) -> None:
    """Read a data folder and report: counts, choices, dropped rows and why, guesses, warnings.

    Exit code 1 and one line if the folder cannot be used. docs/data.md explains the choices.

    Example: recserve data check data/ml-100k
    """
    from recommender.data.config import DataConfig
    from recommender.data.dataset import load

    if other := next((s for s in settings or () if not s.startswith("data.")), None):
        raise BadInput(
            f"setting {shown(other)} is not data.key=value",
            remedy="Write for example --set data.min_rating=4.",
        )
    _, report = load(folder, DataConfig.of(folder, config, settings or ()))
    if json:
        from json import dumps

        typer.echo(dumps(report.to_json(), indent=2))
    else:
        typer.echo("\n".join(report.lines()))


@data.command()
def synthetic(
    out: Out,
    users: Annotated[int, typer.Option(min=1, help="Number of users.")] = 1_000,
    items: Annotated[int, typer.Option(min=2, help="Number of items.")] = 500,
    events: Annotated[int, typer.Option(min=1, help="Number of interactions.")] = 20_000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same data.")] = 0,
) -> None:
    """Make data with a known answer: each item is mostly followed by the next in its group.

    Example: recserve data synthetic --users 1000 --items 500 --events 20000 --out data/toy
    """
    from recommender.data.synthetic import write_synthetic

    write_synthetic(out, users=users, items=items, events=events, seed=seed)
    typer.echo(f"{out} is written: {users:,} users, {items:,} items, {events:,} interactions")
