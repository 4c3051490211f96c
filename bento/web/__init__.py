"""The page at `/`: the files of this folder, each read once and answered by a route of its own.

    index.html ─> /        app.js, style.css, ... ─> /web/app.js, /web/style.css, ...

A browser keeps them and asks whether they are still those (ETag), so a new version shows at
once. Open to anybody: the page asks the API like any other caller, with a key if one is needed.
Knows no recommender.
"""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path

from bento.access import Call
from bento.app import Route

FOLDER = Path(__file__).parent
INDEX = "index.html"
TYPES = {
    ".html": b"text/html; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".svg": b"image/svg+xml",
}


@cache
def routes() -> dict[str, Route]:
    """`/` and `/web/NAME` for every file of the page."""
    files = [path for path in sorted(FOLDER.iterdir()) if path.suffix in TYPES]
    return {"/" if path.name == INDEX else f"/web/{path.name}": _file(path) for path in files}


def _file(path: Path) -> Route:
    content = path.read_bytes()

    async def give(_: bytes, __: Call) -> bytes:
        return content

    return Route(
        method="GET",
        handler=give,
        content_type=TYPES[path.suffix],
        etag=b'"' + sha256(content).hexdigest()[:32].encode() + b'"',
    )
