"""An error -> its one shape: `{error: {field, value, message, remedy}, request_id}`.

Knows the errors of the protocol; those of the recommender are `recommender/errors.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from client.service import Fault, Refusal
from recommender.errors import BadInput, RecserveError

Headers = Sequence[tuple[bytes, bytes]]


class HttpError(RecserveError):
    """An error of the protocol, below any route; `headers` go with its answer."""

    def __init__(
        self,
        status: int,
        what: str,
        *,
        remedy: str,
        field: str | None = None,
        value: object = None,
        headers: Headers = (),
    ) -> None:
        super().__init__(what, remedy=remedy, field=field, value=value)
        self.status = status
        self.headers = headers


class Disconnected(Exception):
    """The client went away before its request was whole."""


def headers_of(error: RecserveError) -> Headers:
    """What an answer with this error has beside the usual ones."""
    if isinstance(error, HttpError) and error.headers:
        return error.headers
    return [(b"retry-after", b"1")] if error.status in (429, 503) else []


def refusal(error: RecserveError, request_id: str) -> bytes:
    """Cut to a readable length: whoever sends a megabyte does not get it back."""
    field = error.field or ("body" if isinstance(error, BadInput) else None)
    fault = Fault(
        field=None if field is None else _cut(field, 120),
        value=_cut(error.value, 120) if isinstance(error.value, str) else error.value,
        message=_cut(error.what, 400),
        remedy=_cut(error.remedy, 600),
    )
    return msgspec.json.encode(Refusal(error=fault, request_id=request_id))


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def defect(request_id: str) -> RecserveError:
    """What a caller hears of a failure of ours: the log has the rest."""
    return RecserveError("the service failed", remedy=f"See its log for request {request_id}.")
