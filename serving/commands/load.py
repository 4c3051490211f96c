"""`recserve load`: how many requests a running server answers, how fast, and how rightly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from client.load.report import Report


def load(
    target: Annotated[
        str,
        typer.Argument(
            help="http://HOST:PORT (Bento), grpc://HOST:PORT or triton+http://HOST:PORT (Triton)."
        ),
    ],
    concurrency: Annotated[
        int, typer.Option("--concurrency", "-c", min=1, max=10_000, help="Callers at a time.")
    ] = 8,
    requests: Annotated[
        int | None, typer.Option(min=1, help="How many to send [default: 1000].")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds to send, instead of --requests.")
    ] = None,
    n: Annotated[
        int, typer.Option("-n", min=1, help="Items per answer, from Bento (Triton gives them all).")
    ] = 10,
    model: Annotated[
        str | None, typer.Option(help="Triton's model [default: the one that serves].")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds until one is given up.")] = 10,
    repository: Annotated[
        Path, typer.Option(help="Users, histories and limits come from its serving release.")
    ] = Path("model_repository"),
    seed: Annotated[int, typer.Option(min=0, help="Which users, in which order.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="The figures as one JSON object.")] = False,
) -> None:
    """Send requests from N callers, check every answer, print throughput and latency.

    Each caller sends its next request when the last one is answered. Exit code 1
    if a request failed or an answer was wrong.

    Example: recserve load grpc://127.0.0.1:8001 -c 32 --duration 10
    """
    import asyncio

    from rich.console import Console

    from client.load.session import Plan, run

    if requests is not None and duration is not None:
        raise typer.BadParameter("give --requests or --duration, not both")
    plan = Plan(
        target=target,
        repository=repository,
        concurrency=concurrency,
        requests=1000 if requests is None and duration is None else requests,
        duration_s=duration,
        n=n,
        model=model,
        timeout_s=timeout,
        seed=seed,
    )
    with Console(stderr=True).status(f"Asking {target} …"):
        found = asyncio.run(run(plan))
    _show(found, json)
    if not found.passed:
        raise typer.Exit(1)


def _show(found: Report, as_json: bool) -> None:
    from rich.console import Console

    from client.load.report import table

    if as_json:
        from dataclasses import asdict
        from json import dumps

        typer.echo(dumps(asdict(found), indent=2))
    else:
        Console().print(table(found))
