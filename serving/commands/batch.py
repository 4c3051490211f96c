"""`recserve batch`: a file of recommendations for many users, from a run alone. Here is torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.progress import progress_bar

if TYPE_CHECKING:
    from recommender.batch import Summary

LAST, ALL = "last", "all"
LATEST = 100_000_000_000  # unix seconds of the year 5138: beyond are milliseconds


def batch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    users: Annotated[
        str,
        typer.Option(
            metavar="FILE|all",
            help="One id a line, or a CSV with a column user_id; all: every user of the run.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="The new CSV file.", show_default=False)],
    n: Annotated[int, typer.Option("-n", min=1, help="How many items for each user.")] = 20,
    at: Annotated[
        str,
        typer.Option(
            metavar="UNIX_TIME|last",
            help="The moment of the request; last: each user's last event (the end of the data for "
            "a user without one).",
        ),
    ] = LAST,
    allow_seen: Annotated[
        bool | None,
        typer.Option(
            "--allow-seen/--exclude-seen",
            help="Also items of the user's history; left out: as repurchase of the data says.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
    json: Annotated[
        bool, typer.Option("--json", help="The summary for a program to read.")
    ] = False,
) -> None:
    """Write the best items of every user as CSV: user_id, item_id, rank, score.

    Users without events, and ids that the run does not know, are answered as new users.

    Example: recserve batch runs/ml-100k --users all -n 20 --out batch/ml-100k.csv
    """
    moment = unix_time(at)
    _check_free(out, overwrite)

    from recommender import runs
    from recommender.batch import Question, read_ids, write_batch

    listed = None if users == ALL else read_ids(Path(users))
    loaded = runs.read(run)
    question = Question(n=n, at=moment, allow_seen=allow_seen)
    with progress_bar() as progress:
        ids = loaded.users.user_ids if listed is None else listed
        summary = write_batch(loaded, ids, question, out, progress=progress)
    _show(summary, out, n, json)


def unix_time(at: str) -> int | None:
    """Unix seconds, None for `last`."""
    if at == LAST:
        return None
    if not (at.isascii() and at.isdecimal() and int(at) <= LATEST):
        raise typer.BadParameter(
            f"{at!r} is no moment: write unix seconds, for example 893286638, or {LAST}",
            param_hint="'--at'",
        )
    return int(at)


def _check_free(out: Path, overwrite: bool) -> None:
    from recommender.errors import BadInput

    if out.is_dir():
        raise BadInput(f"{out} is a folder", remedy="Name a file.", field="out")
    if out.exists() and not overwrite:
        raise BadInput(
            f"{out} exists already", remedy="Name another --out, or pass --overwrite.", field="out"
        )


def _show(summary: Summary, out: Path, n: int, as_json: bool) -> None:
    if as_json:
        from dataclasses import asdict
        from json import dumps

        typer.echo(dumps({"out": str(out), **asdict(summary)}, indent=2))
        return
    typer.echo(
        f"{out}: {summary.rows:,} rows for {summary.users:,} users in {summary.seconds:.0f} s"
    )
    notes = {
        "ids stood in the list more than once: answered once": summary.repeated,
        "users are unknown to the run: answered as new users": summary.unknown,
        "users have no event: answered from their features": summary.no_history,
        f"users got fewer than {n} items: no more are left for them": summary.fewer,
    }
    for note, count in notes.items():
        if count:
            typer.echo(f"  {count:,} {note}")
