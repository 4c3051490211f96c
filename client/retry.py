"""How often, and how long after a failure, a request is sent again.

    attempt ─> failed, or 429, or 503 ─> wait: what the server says, and a random part of
       └─────────────────────────────── a pause that doubles ("full jitter") ─> attempt

Random, so that many callers of a server that comes back do not come back at once. All of it
within one deadline. Knows no route; whoever calls says whether a request may be repeated.
"""

from __future__ import annotations

import random
import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import httpx

FIRST_S, LONGEST_S = 0.1, 2.0  # of pauses, before chance makes them shorter
BUSY = (429, 503)
# The request, or its answer, was lost on the way. Not time-outs: they have used up the time.
LOST = (httpx.NetworkError, httpx.RemoteProtocolError)


class Attempts:
    """Those of one request: at most `1 + retries` within `timeout_s`."""

    def __init__(self, timeout_s: float, retries: int) -> None:
        self._until = time.monotonic() + timeout_s
        self._retries, self._failed = retries, 0

    @property
    def left_s(self) -> float:
        """For this attempt. Never 0, which would mean no limit to some."""
        return max(self._until - time.monotonic(), 0.001)

    def pause_s(self, outcome: httpx.Response | httpx.TransportError) -> float | None:
        """How long to wait before the next attempt; None: `outcome` is the last word."""
        if isinstance(outcome, httpx.Response):
            if outcome.status_code not in BUSY:
                return None
        elif not isinstance(outcome, LOST):
            return None
        if self._failed >= self._retries:
            return None
        longest = min(LONGEST_S, FIRST_S * 2**self._failed)
        pause = random.uniform(0, longest)
        if isinstance(outcome, httpx.Response):
            pause += asked_for_s(outcome.headers.get("Retry-After"))
        self._failed += 1
        return pause if pause < self._until - time.monotonic() else None


def asked_for_s(retry_after: str | None) -> float:
    """The seconds of a Retry-After header, which holds them or a date; 0 for anything else."""
    if not retry_after:
        return 0.0
    if retry_after.strip().isdecimal():
        return float(retry_after)
    try:
        moment = parsedate_to_datetime(retry_after)
    except ValueError:
        return 0.0
    if moment.tzinfo is None:  # a date without a zone is UTC
        moment = moment.replace(tzinfo=UTC)
    return max((moment - datetime.now(UTC)).total_seconds(), 0.0)
