"""Pages of other origins: which may call (RECSERVE_CORS), and what a browser is told.

A browser lets any page send a POST to any address, 127.0.0.1 included; so one from a page
of another origin is refused unless it is allowed. Programs send no Origin and are not
concerned. Credentials of the browser (cookies) are never asked for: keys come in a header.
"""

from __future__ import annotations

from collections.abc import Mapping

from bento.errors import HttpError

ANY = "*"
SAME = (b"same-origin", b"none")  # of Sec-Fetch-Site, which no page can forge
NO_HEADERS: list[tuple[bytes, bytes]] = []


class Origins:
    """`allowed` are origins as browsers send them (`https://shop.example.com`), or `*`."""

    def __init__(self, allowed: tuple[str, ...] = ()) -> None:
        self._allowed = frozenset(origin.encode() for origin in allowed)
        self._any = ANY in allowed

    def told(self, headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """What goes with every answer to a page that may read it."""
        if not self._allowed or (origin := headers.get(b"origin")) is None:
            return NO_HEADERS
        if not self._allows(origin):
            return [(b"vary", b"Origin")]
        return [
            (b"access-control-allow-origin", b"*" if self._any else origin),
            (b"access-control-expose-headers", b"X-Request-ID, Retry-After"),
            (b"vary", b"Origin"),
        ]

    def preflight(self, headers: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
        """What a browser asks before it lets a page send JSON or a key. Raises HttpError 403."""
        if not self._allows(origin := headers.get(b"origin", b"")):
            raise _foreign(origin)
        return [
            (b"access-control-allow-methods", b"GET, POST"),
            (b"access-control-allow-headers", b"Authorization, Content-Type, X-Request-ID"),
            (b"access-control-max-age", b"600"),
        ]

    def check(self, headers: Mapping[bytes, bytes]) -> None:
        """Raises HttpError 403 for a page of another origin that is not allowed."""
        origin = headers.get(b"origin")
        if origin is None or self._allows(origin) or headers.get(b"sec-fetch-site") in SAME:
            return
        if origin.partition(b"://")[2] != headers.get(b"host"):
            raise _foreign(origin)

    def _allows(self, origin: bytes) -> bool:
        return self._any or origin in self._allowed


def _foreign(origin: bytes) -> HttpError:
    seen = origin.decode("latin-1")[:60]
    return HttpError(
        403,
        f"pages of {seen!r} may not call",
        remedy="Add their origin to RECSERVE_CORS.",
        field="Origin",
        value=seen,
    )
