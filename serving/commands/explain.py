"""`recserve explain`: why a run recommends what it recommends, offline. Here is torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.batch import LAST, unix_time

if TYPE_CHECKING:
    from recommender.explain import Explanation

RUNS = Path("runs")  # where README and `recserve up` put them


def explain(
    user: Annotated[
        str, typer.Option(help="The user's id; a new one is welcome.", show_default=False)
    ],
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help=f"A run folder [default: the newest in {RUNS}/]."),
    ] = None,
    item: Annotated[
        list[str] | None,
        typer.Option(help="An item's id; repeat for more. Left out: the user's best items."),
    ] = None,
    n: Annotated[int, typer.Option("-n", min=1, help="How many of the best items.")] = 3,
    at: Annotated[
        str,
        typer.Option(
            metavar="UNIX_TIME|last",
            help="The moment of the request; last: the user's last event (the end of the data for "
            "a user without one).",
        ),
    ] = LAST,
    json: Annotated[
        bool, typer.Option("--json", help="With every signal's number, for a program to read.")
    ] = False,
) -> None:
    """Say which items of a user's history, and which signals, spoke most for an item.

    Example: recserve explain runs/ml-100k --user 196 --item 50
    """
    moment = unix_time(at)

    from recommender import runs
    from recommender.explain import explain as explained

    if run is None:
        run = _newest(runs.FILE)
        typer.echo(f"recserve: RUN is not named, so it is {run}, the newest", err=True)
    explanation = explained(runs.read(run), user, item or [], n=n, at=moment)
    if json:
        from dataclasses import asdict
        from json import dumps

        typer.echo(dumps(asdict(explanation), indent=2, ensure_ascii=False))
    else:
        _show(explanation)


def _newest(file: str) -> Path:
    """The run finished last: `file` is written when one is."""
    from recommender.errors import BadInput

    found = sorted(RUNS.glob(f"*/{file}"), key=lambda path: path.stat().st_mtime_ns)
    if not found:
        raise BadInput(
            f"no RUN is named, and {RUNS}/ holds none",
            remedy=f"Name a run folder, or train one: recserve train DIR --out {RUNS}/NAME.",
            field="RUN",
        )
    return found[-1].parent


def _show(explanation: Explanation) -> None:
    from datetime import UTC, datetime

    from recommender.reasons import titled

    moment = f"{datetime.fromtimestamp(explanation.request_time, UTC):%Y-%m-%d %H:%M} UTC"
    when = f", at {moment}" if explanation.real_time else ""
    typer.echo(f"For user {explanation.user_id}{when}")
    if not explanation.known:
        typer.echo("  unknown to the run: answered as a new user")
    for place, item in enumerate(explanation.items, start=1):
        typer.echo(f"{place:>3}  {titled(item.item_id, item.title)}  ({item.score:.3f})")
        typer.echo(f"     {item.reason.text}")
