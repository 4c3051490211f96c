"""`recserve load`: how many requests a running server answers, how fast, and how rightly."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from client.load.result import Result
    from client.load.session import Progress


def load(
    target: Annotated[
        str,
        typer.Argument(
            help="http(s)://HOST:PORT (Bento), grpc://HOST:PORT or triton+http://HOST:PORT "
            "(Triton)."
        ),
    ],
    concurrency: Annotated[
        int,
        typer.Option(
            "--concurrency", "-c", min=1, max=10_000, help="Callers at a time, without --rate."
        ),
    ] = 8,
    requests: Annotated[
        int | None, typer.Option(min=1, help="How many to send [default: 1000].")
    ] = None,
    duration: Annotated[
        float | None, typer.Option(min=0.1, help="Seconds to send, instead of --requests.")
    ] = None,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.01,
            help="Requests a second, whatever the server does: an open loop of --arrivals.",
        ),
    ] = None,
    arrivals: Annotated[
        str,
        typer.Option(
            help="constant, poisson, ramp (from 0 to --rate), flash (a crowd of --peak times as "
            "many in the middle fifth) or trace."
        ),
    ] = "poisson",
    peak: Annotated[float, typer.Option(min=1, help="Of a flash crowd, times --rate.")] = 10,
    trace: Annotated[
        Path | None,
        typer.Option(help="For --arrivals trace: seconds or unix times, one a line."),
    ] = None,
    warm_up: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Seconds of the same load that are not measured [default: a tenth of what the run "
            "lasts, at most 5; 1 for --requests without --rate].",
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, max=64, help="Generators, each with an event loop of its own.")
    ] = 1,
    timeout: Annotated[float, typer.Option(min=0.001, help="Seconds until one is given up.")] = 10,
    mix: Annotated[
        str,
        typer.Option(
            metavar="NAME=WEIGHT,...",
            help="Of recommend, similar, rank, popular, events; the last are written to its store.",
        ),
    ] = "recommend=1",
    filters: Annotated[
        str,
        typer.Option(
            "--filtered",
            metavar="SHARE|NAME=SHARE,...",
            help="Share of requests with a filter of categories, or of each kind: categories, "
            "exclude, only.",
        ),
    ] = "",
    zipf: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=10,
            help="Some users come more often, by Zipf's law with this exponent [default: none do].",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="A data folder: its users instead of the release's."),
    ] = None,
    inline: Annotated[
        bool,
        typer.Option("--inline", help="Send histories, not user ids."),
    ] = False,
    n: Annotated[
        int,
        typer.Option(
            "-n",
            min=1,
            help="Items per answer, from Bento (Triton gives them all).",
        ),
    ] = 10,
    model: Annotated[
        str | None,
        typer.Option(help="Triton's model [default: the one that serves]."),
    ] = None,
    repository: Annotated[
        Path,
        typer.Option(
            help="Users, histories and limits come from its serving release; its releases say "
            "what is right.",
        ),
    ] = Path("model_repository"),
    seed: Annotated[
        int,
        typer.Option(min=0, help="Which users, in which order."),
    ] = 0,
    slo: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LIMIT",
            help="p50, p95, p99 (=25ms), errors or refused (=0.1%); may repeat. With --rate: does "
            "it hold? Without: the highest rate that holds it. What is not stated is allowed to "
            "nobody: no error, no refusal.",
        ),
    ] = None,
    resolution: Annotated[
        float,
        typer.Option(min=0.005, max=1, help="Of the rate that --slo looks for."),
    ] = 0.05,
    during: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND",
            help="Of a shell, a third into the run; told is what was before, during and after it.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--compare",
            metavar="TARGET",
            help="Another target, asked in turns with the first: ratios with intervals.",
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Of --compare.")] = 8,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A page with plots."),
    ] = None,
    server_pid: Annotated[
        list[int] | None,
        typer.Option(
            help="Processes of the servers on this machine, whose CPU time is told; may repeat "
            "[default: who listens there, and the Triton behind it]. With --compare: of both.",
        ),
    ] = None,
    price_per_hour: Annotated[
        float | None,
        typer.Option(min=0.000001, help="Of the server's machine, in $."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The figures as one JSON object.")] = False,
) -> None:
    """Send requests, check every answer, print throughput and latency.

    Without --rate each of -c callers sends its next request when the last one is answered. With
    --rate requests leave on schedule, and latency counts from there: a server that stalls cannot
    hide it. Exit code 1 if a request failed, an answer was wrong, or the generator itself could
    not keep up; refusals (429, 503) are counted apart. With --slo: if an objective was missed.

    How to measure honestly, and every option by example: docs/load-testing.md.

    Example: recserve load grpc://127.0.0.1:8001 -c 32 --duration 10

    Or: recserve load http://127.0.0.1:3000 --rate 500 --duration 60 --mix recommend=8,rank=1

    Or: recserve load http://127.0.0.1:3000 --slo p99=25ms --html load.html
    """
    import uvloop

    from client.load.arrivals import length_s
    from client.load.mix import Mix
    from client.load.result import examine
    from client.load.session import Plan
    from serving.commands import load_options as options

    options.check_numbers(
        rate=rate,
        duration=duration,
        peak=peak,
        warm_up=warm_up,
        timeout=timeout,
        zipf=zipf,
        price_per_hour=price_per_hour,
    )
    options.check_targets(model, target, against)
    if html is not None and not html.parent.is_dir():
        raise typer.BadParameter(f"--html {html}: there is no folder {html.parent}")
    if requests is not None and duration is not None:
        raise typer.BadParameter("give --requests or --duration, not both")
    search = bool(slo) and rate is None and trace is None and during is None
    if requests is None and (search or during is not None):
        duration = duration or options.LASTS
    open_loop = options.arrivals(rate, arrivals, peak, trace, requests, duration)
    lasts = duration if open_loop is None else length_s(open_loop)
    plan = Plan(
        target=target,
        repository=repository,
        arrivals=open_loop,
        concurrency=concurrency,
        requests=None if open_loop or duration else requests or options.REQUESTS,
        duration_s=None if open_loop else duration,
        warm_up_s=options.warm_up(lasts) if warm_up is None else warm_up,
        processes=processes,
        mix=Mix.of(mix, filters),
        zipf=zipf,
        data=data,
        inline=inline,
        n=n,
        model=model,
        timeout_s=timeout,
        seed=seed,
    )
    wanted = options.wanted(slo or [], search, during, against, lasts)
    wanted = replace(
        wanted,
        resolution=resolution,
        rounds=rounds,
        servers=options.servers(server_pid, target, repository),
        servers_against=options.servers(server_pid, against, repository),
        price_per_hour=price_per_hour,
    )
    whole = None if search or against else plan.warm_up_s + lasts if lasts else None
    with _watching(whole, target) as (progress, say):
        found = uvloop.run(examine(plan, wanted, progress=progress, say=say))
    _show(found, json)
    if html is not None:
        from client.load.shown.page import page

        html.write_text(page(found))
    if not found.passed:
        raise typer.Exit(1)


Watching = tuple["Callable[[Progress], None] | None", "Callable[[str], None]"]


@contextmanager
def _watching(seconds: float | None, target: str) -> Iterator[Watching]:
    """A line on stderr that follows the run, where that is a terminal; and lines of what was found
    on the way."""
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None, lambda line: typer.echo(line, err=True)
        return
    columns = (TextColumn("{task.description}"), BarColumn(20), TimeElapsedColumn())
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(f"Asking {target} ...", total=seconds)

        def show(now: Progress) -> None:
            line = f"{now.rate:,.0f} right/s, p50 {now.p50_ms:.1f} ms, p99 {now.p99_ms:.1f} ms"
            line += f", {now.refused:,} refused" if now.refused else ""
            line += f", [red]{now.faults:,} faults[/]" if now.faults else ""
            bar.update(task, description=line, completed=now.elapsed_s)

        yield show, lambda line: console.print(line, style="dim", highlight=False, markup=False)


def _show(found: Result, as_json: bool) -> None:
    from rich.console import Console

    from client.load.shown.tables import tables

    if as_json:
        from json import dumps

        typer.echo(dumps(found.to_json(), indent=2))
    else:
        Console().print(tables(found))
