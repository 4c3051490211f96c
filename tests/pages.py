"""Reads the pages that reports are written as."""

from __future__ import annotations

from html.parser import HTMLParser


class Reader(HTMLParser):
    """Collects elements, and fails on one that is not closed where it must be."""

    VOID = ("meta", "br", "hr", "img", "input", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.commands: list[str] = []  # what stands in <pre>
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if "pre" in self.open:
            self.commands.append(data)

    @property
    def ids(self) -> set[str | None]:
        return {attributes["id"] for _, attributes in self.seen if "id" in attributes}

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())
