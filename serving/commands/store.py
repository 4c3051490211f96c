"""`recserve data from-store`, `backup`, `restore`, `click-through`: the event store, beside the
service that writes it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from bento.store.base import DEFAULT_URL
from serving.commands.options import Json

StoreUrl = Annotated[
    str, typer.Option("--store", metavar="URL", help="sqlite:///PATH or redis://HOST:PORT/DB.")
]


def from_store(
    url: Annotated[str, typer.Argument(metavar="URL", help="The event store.")],
    out: Annotated[Path, typer.Option(help="The new data folder.", show_default=False)],
    base: Annotated[
        Path | None,
        typer.Option(help="The data folder of the last training: its rows come first."),
    ] = None,
) -> None:
    """Write the events of a store as a data folder, for `recserve train`.

    With --base, its interactions come first, and its items, users and recserve.toml come along.
    What /v1/forget erased is left out of both.

    Example: recserve data from-store sqlite:///.recserve/events.db --base data/shop --out data/next
    """
    from serving.from_store import from_store as write

    done = write(url, out, base)
    typer.echo(f"{out} is written: {done.base:,} interactions of before, {done.events:,} events")
    if done.forgotten or done.users:
        typer.echo(
            f"left out, as forgotten: {done.forgotten:,} interactions and {done.users:,} users"
        )


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The backup to write.")],
    store: StoreUrl = DEFAULT_URL,
) -> None:
    """Write all of an event store into one file with a checksum, while the service goes on.

    Example: recserve backup events.backup
    """
    from bento.store import backup as write

    events = write(store, file)
    typer.echo(f"{file} holds {events:,} events ({file.stat().st_size / 1e6:,.1f} MB)")


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file of `recserve backup`.")],
    store: StoreUrl = DEFAULT_URL,
    force: Annotated[
        bool, typer.Option("--force", help="Even where the store holds events, which are lost.")
    ] = False,
) -> None:
    """Put a backup in the place of an event store, once its checksum was found right.

    Stop the service first. Users who were forgotten since the backup have to be forgotten again.

    Example: recserve restore events.backup
    """
    from bento.store import restore as put

    typer.echo(f"the store holds the {put(store, file, force=force):,} events of {file}")


def click_through(
    store: StoreUrl = DEFAULT_URL,
    days: Annotated[float, typer.Option(min=0.01, help="So many days until now.")] = 7.0,
    json: Json = False,
) -> None:
    """Say how often what was shown was acted on, by variant and release.

    Answers of popular items that were given because no model answered are rows of their own.

    Example: recserve click-through --days 7
    """
    from json import dumps

    from rich.console import Console
    from rich.table import Table

    from bento.store import reading

    with reading(store) as reader:
        found = reader.click_through(since=int(time.time() - days * 86_400))
    if json:
        rows = [
            {"release": c.release, "variant": c.variant, "fallback": c.fallback,
             "answers": c.answers, "impressions": c.impressions, "clicks": c.clicks,
             "ctr": c.ctr}
            for c in found
        ]  # fmt: skip
        typer.echo(dumps(rows, indent=2))
        return
    if not found:
        typer.echo(f"nothing was shown in the last {days:g} days")
        return
    table = Table("release", "variant", "fallback", "answers", "items shown", "clicks", "CTR",
                  box=None)  # fmt: skip
    for c in found:
        table.add_row(str(c.release), c.variant, "yes" if c.fallback else "no", f"{c.answers:,}",
                      f"{c.impressions:,}", f"{c.clicks:,}", f"{c.ctr:.2%}")  # fmt: skip
    Console().print(table)
