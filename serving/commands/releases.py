"""`recserve releases`: which there are, which one serves, what nobody needs any more."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from serving.commands.options import Json, Repository, TritonSettings

NEWEST = "newest"  # for a pipeline that does not know the number of what it exported

releases = typer.Typer(help="The releases of a model repository.", no_args_is_help=True)


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
            "variants": [v.name for v in index.variants if v.release == r.version],
            "created": r.details["created"],
            "family": r.family,
            "models": list(r.models),
            # None: an adapted model, trained elsewhere on rows that nobody held out
            "ndcg@10": r.details["metrics"].get("ndcg@10", {}).get("mean"),
        }
        for r in found
    ]
    if json:
        typer.echo(dumps(rows, indent=2))
        return
    table = Table("release", "created", "family", "models", "held-out NDCG@10", box=None)
    for row in rows:
        marks = [*(["serving"] if row["serving"] else []), *row["variants"]]
        mark = f" ({', '.join(marks)})" if marks else ""
        held_out = "-" if row["ndcg@10"] is None else f"{row['ndcg@10']:.4f}"
        table.add_row(f"{row['release']}{mark}", row["created"], row["family"],
                      ", ".join(row["models"]), held_out)  # fmt: skip
    Console().print(table)


@releases.command()
def configure(
    repository: Repository = Path("model_repository"), triton: TritonSettings = None
) -> None:
    """Write every config.pbtxt anew, with the settings of --triton; nothing is exported.

    Servers take them when they start. Settings: docs/triton.md.

    Example: recserve releases configure --triton triton.toml
    """
    from export.configs import configure as write_configs

    changed = write_configs(repository, triton)
    typer.echo("\n".join(f"wrote {path}" for path in changed) or "nothing to change")
    if changed:
        typer.echo("`recserve serve` takes them when it starts again")


@releases.command()
def promote(
    release: Annotated[
        str, typer.Argument(metavar="N|newest", help="The release to serve.", show_default=False)
    ],
    repository: Repository = Path("model_repository"),
    accept_worse: Annotated[
        bool, typer.Option("--accept-worse", help="Whatever the held-out questions say.")
    ] = False,
) -> None:
    """Let release N serve, in the servers that run from the repository too: no request fails.

    Refused, with the old release untouched, where N is not whole, clearly worse on its held-out
    questions, or answers its golden requests otherwise than when it was exported.

    Example: recserve releases promote 2
    """
    from recommender.release import read_index
    from serving import promotion

    if release != NEWEST and not release.isdecimal():
        raise typer.BadParameter(
            f"{release!r} is no release: write its number, or {NEWEST}", param_hint="'N'"
        )
    version = max(read_index(repository).releases) if release == NEWEST else int(release)
    promotion.promote(repository, version, accept_worse=accept_worse, say=typer.echo)
    typer.echo(f"release {version} serves")


@releases.command()
def rollback(repository: Repository = Path("model_repository")) -> None:
    """Let the release serve again that served before this one.

    Example: recserve releases rollback
    """
    from serving import promotion

    typer.echo(f"release {promotion.rollback(repository, say=typer.echo)} serves again")


@releases.command()
def analyzer(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where both files go.")],
    repository: Repository = Path("model_repository"),
    release: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of which release [default: the one that serves]."),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Of its models [default: the one that serves].")
    ] = None,
    requests: Annotated[int, typer.Option(min=1, max=2000, help="Users' requests to write.")] = 300,
    p99: Annotated[
        float | None, typer.Option(min=0.001, metavar="MS", help="The p99 that is allowed.")
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Search on GPUs; else on the CPU.")] = False,
) -> None:
    """Write requests for NVIDIA's perf_analyzer and a search for its model-analyzer.

    How to run both: docs/load-testing.md.

    Example: recserve releases analyzer --out analyzer --p99 25
    """
    from recommender.errors import BadInput
    from recommender.release import read_release
    from serving.analyzer import write_analyzer

    found = read_release(repository, release)
    model = model or found.models[0]
    if model not in found.recommenders:
        raise BadInput(
            f"release {found.version} has no recommender {model!r}",
            remedy=f"It has {', '.join(found.recommenders)}.",
            field="--model",
            value=model,
        )
    written = write_analyzer(found, out, model=model, gpu=gpu, p99_ms=p99, requests=requests)
    typer.echo("\n".join(f"wrote {path}" for path in written))


@releases.command()
def gc(
    repository: Repository = Path("model_repository"),
    keep: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Of the releases, only the newest so many; never the one that serves, "
            "the one before it or a variant's.",
        ),
    ] = None,
) -> None:
    """Remove folders of interrupted exports that no release names, and old releases with --keep.

    Example: recserve releases gc --keep 3
    """
    from export.index import gc as collect
    from recommender.release import read_index

    read_index(repository)  # before a lock file is written into any folder
    removed = collect(repository, keep=keep)
    typer.echo("\n".join(f"removed {folder}" for folder in removed) or "nothing to remove")
