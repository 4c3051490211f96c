"""`recserve tune-serving`: settings of Triton and Bento that suit this machine and an objective."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.options import Json, Repository

if TYPE_CHECKING:
    from serving.tuning import TunedServing


def tune_serving(
    repository: Repository = Path("model_repository"),
    slo: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=LIMIT",
            help="p50, p95, p99 (=25ms), errors or refused (=0.1%); may repeat [default: "
            "p99=25ms]. What is not stated is not allowed: no error, no refusal.",
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Where triton.toml and service.env go.")
    ] = Path("tuned-serving"),
    minutes: Annotated[
        float, typer.Option(min=0.1, help="No setting is tried after them; the last word is.")
    ] = 15,
    seconds: Annotated[float, typer.Option(min=0.5, help="Of each load run.")] = 2.0,
    json: Json = False,
) -> None:
    """Find queue delay, instances, threads and calls under way that hold the highest rate.

    Starts stacks of its own, two at a time, on free ports; the repository and whoever serves from
    it stay as they are. What wins must win twice. Let the machine be quiet meanwhile.

    Example: recserve tune-serving --slo p99=25ms --minutes 10 --out tuned

    Then: recserve releases configure --triton tuned/triton.toml; and start recserve serve with the
    variables of tuned/service.env.
    """
    import os
    import tempfile
    import time
    from dataclasses import asdict
    from json import dumps

    import uvloop

    from bento.settings import Settings
    from client.load.objective import objectives
    from client.load.session import run
    from recommender.release import read_release
    from serving import processes, tuning, tuning_stacks

    stated = objectives(slo or ["p99=25ms"])
    release = read_release(repository.resolve())
    base = tuning_stacks.base_of(release, Settings.from_environment().triton_calls)
    cores = len(os.sched_getaffinity(0))
    # Beside the repository, for hard links do not leave a disk.
    with (
        processes.supervised(),
        tempfile.TemporaryDirectory(prefix=".tuning-", dir=release.repository.parent) as folder,
    ):
        search = tuning.Search(
            lambda choice: tuning_stacks.serving(release, choice, Path(folder)),
            run,
            stated,
            run_s=seconds,
            until=time.monotonic() + 60 * minutes,
            say=lambda line: typer.echo(line, err=True),
        )
        found = uvloop.run(search.run(base, tuning.space(cores), most=max(cores, 2)))
    out.mkdir(parents=True, exist_ok=True)
    (out / "triton.toml").write_text(tuning_stacks.toml_of(release, found.proposed))
    variable = f"{tuning_stacks.CALLS}={found.proposed.triton_calls}\n"
    (out / "service.env").write_text(variable)
    if json:
        typer.echo(dumps({**asdict(found), "proposed": asdict(found.proposed)}, indent=2))
        return
    _print(found)
    typer.echo(f"Written: {out / 'triton.toml'}; {out / 'service.env'}: {variable.strip()}")


def _print(found: TunedServing) -> None:
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    names = list(asdict(found.base))
    title = "Each against the best so far: the rates that held"
    table = Table(*names, "requests/s", "best so far", "", title=title, box=None,
                  title_justify="left")  # fmt: skip
    last = [found.last] if found.last else []
    for duel in [*found.duels, *last]:
        settings = map(str, asdict(duel.challenger).values())
        verdict = "won" if duel.won else ""
        table.add_row(*settings, f"{duel.challenger_rate:,.0f}", f"{duel.best_rate:,.0f}",
                      f"{verdict} against the base again" if duel in last else verdict)  # fmt: skip
    console = Console()
    console.print(table)
    changed = found.proposed.over(found.base)
    said = "Nothing won twice against the settings as they are: they stay."
    if found.proposed != found.base and found.last is not None:
        gain = found.last.challenger_rate / found.last.best_rate - 1
        said = f"{changed}: {gain:+.0%} requests/s against the settings as they were."
    console.print(f"{said} It ended because {found.ended}.", highlight=False)
