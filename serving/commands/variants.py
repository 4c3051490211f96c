"""`recserve variants`: releases that live beside the one that serves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from serving.commands.options import Json, Repository

if TYPE_CHECKING:
    from recommender.variants import Variant

variants = typer.Typer(
    help="Releases beside the one that serves: A/B tests, canaries, shadows.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="What answers call it.")]


@variants.command()
def add(
    name: Name,
    release: Annotated[int, typer.Option(metavar="N", help="The release.")],
    share: Annotated[
        float, typer.Option(help="Percent of users; of a shadow, percent of requests copied.")
    ],
    model: Annotated[str | None, typer.Option(help="Of the release; its first if absent.")] = None,
    role: Annotated[str, typer.Option(help="ab, canary or shadow.")] = "ab",
    error_margin: Annotated[
        float, typer.Option(help="Canary: rate of fallbacks, at most so much above the default's.")
    ] = 0.02,
    latency_margin: Annotated[
        float, typer.Option(help="Canary: p95, at most 1 + so much times the default's.")
    ] = 0.5,
    after: Annotated[int, typer.Option(help="Canary: its least number of requests.")] = 200,
    repository: Repository = Path("model_repository"),
) -> None:
    """Let release N answer a part of the users, or get copies, beside the one that serves.

    A name that is there is replaced: so a share is changed. Refused, with nothing changed, where
    N is not whole, or answers its golden requests otherwise than when it was exported.

    Example: recserve variants add b --release 2 --share 10
    """
    from recommender.variants import Variant
    from serving import variants as beside

    variant = Variant(
        name=name,
        release=release,
        model=model,
        role=role,
        share=share,
        error_margin=error_margin,
        latency_margin=latency_margin,
        after=after,
    )
    beside.add(repository, variant, say=typer.echo)
    typer.echo(f"variant {name}: {_told(variant)}")


@variants.command()
def remove(name: Name, repository: Repository = Path("model_repository")) -> None:
    """Take a variant out: its users are the others' from then on.

    Example: recserve variants remove b
    """
    from serving import variants as beside

    beside.remove(repository, name, say=typer.echo)
    typer.echo(f"variant {name} is no more")


@variants.command("list")
def list_variants(repository: Repository = Path("model_repository"), json: Json = False) -> None:
    """Name every variant, its part of the traffic, and what running servers say of it.

    Example: recserve variants list
    """
    from json import dumps

    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from recommender.release import read_index
    from serving.variants import states

    found, there = read_index(repository).variants, states(repository)
    rows: list[dict[str, Any]] = [
        variant.to_json()
        | {
            "servers": [
                {"url": server.url, "state": one.state, "reason": one.reason}
                for server, one in there.get(variant.name, [])
            ]
        }
        for variant in found
    ]
    if json:
        typer.echo(dumps(rows, indent=2))
        return
    table = Table("variant", "release", "model", "what it gets", "state", box=None)
    for variant, row in zip(found, rows, strict=True):
        said = [f"{s['state']} at {s['url']} {s['reason'] or ''}".strip() for s in row["servers"]]
        model = variant.model or "its first"
        table.add_row(
            variant.name,
            str(variant.release),
            model,
            _told(variant),
            Text("\n".join(said) or "no server runs"),
        )
    Console().print(table)


def _told(variant: Variant) -> str:
    from recommender.variants import SHADOW

    if variant.role == SHADOW:
        return f"copies of {variant.share:g}% of requests"
    return f"{variant.share:g}% of users ({variant.role})"
