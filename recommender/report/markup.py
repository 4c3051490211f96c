"""HTML and SVG as one tree, so that every text is escaped and every element closed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from xml.etree import ElementTree

Node = ElementTree.Element
Row = Sequence[str | Node]  # of a table


def e(tag: str, *children: Node | str | None, **attributes: object) -> Node:
    """An element. `class_` becomes class, `stroke_width` stroke-width; None is left out."""
    node = Node(tag)
    for name, value in attributes.items():
        if value is not None:
            shown = f"{value:.5g}" if isinstance(value, float) else str(value)
            node.set(name.rstrip("_").replace("_", "-"), shown)
    for child in children:
        if isinstance(child, str):
            _add_text(node, child)
        elif child is not None:
            node.append(child)
    return node


def _add_text(node: Node, text: str) -> None:
    if len(node):
        node[-1].tail = (node[-1].tail or "") + text
    else:
        node.text = (node.text or "") + text


def table(header: Sequence[str], rows: Sequence[Row]) -> Node:
    """The first cell of a row is its name."""
    head = e("thead", e("tr", *(e("th", name, scope="col") for name in header)))
    body = [e("tr", _cell(row[0], "th", scope="row"), *map(_cell, row[1:])) for row in rows]
    return e("div", e("table", head, e("tbody", *body)), class_="scroll", tabindex=0)


def _cell(content: str | Node, tag: str = "td", **attributes: str) -> Node:
    return content if isinstance(content, Node) else e(tag, content, **attributes)


def figure(title: str, chart: Node, note: str = "") -> Node:
    return e("figure", e("figcaption", e("b", title), f" {note}" if note else None), chart)


def details(summary: str, *content: Node) -> Node:
    return e("details", e("summary", summary), *content)


def html(title: str, *sections: Node | None) -> str:
    """A page whole: no script, no network, light and dark."""
    style = Path(__file__).with_name("page.css").read_text()
    head = e(
        "head",
        e("meta", charset="utf-8"),
        e("meta", name="viewport", content="width=device-width, initial-scale=1"),
        e("title", title),
        e("style", style),
    )
    root = e("html", head, e("body", e("main", *sections)), lang="en")
    return "<!DOCTYPE html>\n" + ElementTree.tostring(root, encoding="unicode", method="html")
