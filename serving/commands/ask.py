"""`recserve recommend`: ask a running service, see its answer in the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from client.api import Answer


def recommend(
    user: Annotated[str, typer.Option(help="The user's id; a new one is welcome.")],
    n: Annotated[int, typer.Option("-n", help="How many items.")] = 10,
    category: Annotated[
        list[str] | None, typer.Option(help="Items of this category only; repeat for any of more.")
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="A variant's answer, or the default's, not the user's own.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="The service's answer as it is.")] = False,
    url: Annotated[
        str, typer.Option(envvar="RECSERVE_URL", help="The service's address.")
    ] = "http://127.0.0.1:3000",
) -> None:
    """Ask a running service for one user's recommendations.

    Example: recserve recommend --user 196 -n 10 --category Comedy
    """
    answer = ask(url, user, n, category or [], variant)
    if json:
        import msgspec

        typer.echo(msgspec.json.format(msgspec.json.encode(answer), indent=2))
    else:
        show(answer, user)


def ask(url: str, user: str, n: int, categories: list[str], variant: str | None = None) -> Answer:
    """One question, with the longest deadline there is: a person would rather wait than see
    the popular items of a fallback."""
    from bento.settings import MAX_DEADLINE_MS
    from client.api import RecommendBody
    from client.service import RecserveClient

    body: RecommendBody = {
        "user_id": user,
        "n": n,
        "filter": {"categories": categories},
        "deadline_ms": MAX_DEADLINE_MS,
    }
    if variant is not None:
        body["variant"] = variant
    with RecserveClient(url) as client:
        return client.recommend(**body)


def show(answer: Answer, user: str) -> None:
    """The answer as a table, and below it what is to know about it."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("rank", "title", "categories", "score", title=Text(f"For user {user}"))
    table.columns[0].justify = table.columns[3].justify = "right"
    for item in answer.items:
        title = item.title or f"item {item.item_id}"
        categories = ", ".join(item.categories)
        score = "" if item.score is None else f"{item.score:.3f}"
        # Text: a title may hold brackets, which rich would read as markup.
        table.add_row(str(item.rank), Text(title), Text(categories), score)
    console = Console()
    console.print(table)
    for line in _notes(answer, user):
        console.print(Text(line))


def _notes(answer: Answer, user: str) -> list[str]:
    from recommender.variants import DEFAULT

    variant = "" if answer.variant == DEFAULT else f", variant {answer.variant}"
    notes = [f"release {answer.release}, model {answer.model}{variant}"]
    if not answer.items:
        notes.append("Nothing qualifies: ask for other categories.")
    if answer.fallback:
        notes.append("Triton was away or slow: these are the popular items.")
    if answer.ignored:
        notes.append(f"Unknown to this release, and ignored: {', '.join(answer.ignored)}")
    return notes
