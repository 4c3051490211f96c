"""HTML and SVG as one tree, so that every text is escaped and every element closed."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

Node = ElementTree.Element


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
