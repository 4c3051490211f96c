"""`recserve keys`: who may call the service, and for what."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from serving.commands.options import Json

if TYPE_CHECKING:
    from bento.keys import Key

keys = typer.Typer(
    help="API keys of the service: made, listed, revoked; a running service sees it at once.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Whose key it is; logs call it so.")]
File = Annotated[
    Path,
    typer.Option("--keys", envvar="RECSERVE_KEYS", metavar="FILE", help="The file of keys."),
]


@keys.command()
def add(
    name: Name,
    file: File,
    scope: Annotated[
        list[str],
        typer.Option(help="recommend, events, admin (everything) or metrics; repeat for more."),
    ],
    expires: Annotated[
        str | None, typer.Option(metavar="ISO", help="From when on it is refused; UTC if no zone.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(help="Requests a second [default: RECSERVE_RATE].")
    ] = None,
) -> None:
    """Make a key and print it, once: the file keeps its SHA-256 alone.

    Example: recserve keys add shop --scope recommend --scope events --keys keys.json
    """
    from bento import keys as kept

    typer.echo(kept.add(file, name, scope, expires=_moment(expires), rate=rate))


@keys.command("list")
def list_(file: File, json: Json = False) -> None:
    """Names, scopes, expiry and rates of all keys.

    Example: recserve keys list --keys keys.json
    """
    from bento import keys as kept

    found = kept.read(file)
    if json:
        import msgspec

        rows = [
            {"name": key.name, "scopes": key.scopes, "created": key.created,
             "expires": key.expires, "rate": key.rate}
            for key in found
        ]  # fmt: skip
        typer.echo(msgspec.json.format(msgspec.json.encode(rows), indent=2))
    else:
        _show(found)


@keys.command()
def revoke(name: Name, file: File) -> None:
    """Refuse a key from now on.

    Example: recserve keys revoke shop --keys keys.json
    """
    from bento import keys as kept

    kept.revoke(file, name)
    typer.echo(f"Revoked {name}.")


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no moment such as 2027-01-31 or 2027-01-31T12:00:00Z",
            param_hint="--expires",
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _show(found: tuple[Key, ...]) -> None:
    from time import time

    from rich.console import Console
    from rich.table import Table

    table = Table("name", "scopes", "created", "expires", "rate")
    for key in found:
        until = "never" if key.expires is None else f"{key.expires:%Y-%m-%d %H:%M %Z}"
        late = " (expired)" if key.expired(time()) else ""
        rate = "" if key.rate is None else f"{key.rate:g}/s"
        table.add_row(
            key.name, ", ".join(key.scopes), f"{key.created:%Y-%m-%d}", until + late, rate
        )
    Console().print(table)
