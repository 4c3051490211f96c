"""What Triton says, in its own words, or does not say in time -> errors of ours.

Unavailable   nobody answers at the address, too late, or the model failed inside
NotFound      no such model or version is loaded
BadInput      Triton refused the tensors by name, type or shape
"""

from __future__ import annotations

import re

from recommender.errors import BadInput, NotFound, Unavailable

# Triton's words where the queue policy of config.pbtxt turns a request away.
QUEUE_REFUSALS = ("Exceeds maximum queue size", "Request timeout expired")


def too_late(address: str, timeout_s: float | None) -> Unavailable:
    return Unavailable(
        f"Triton at {address} did not answer within {timeout_s:g} s"
        if timeout_s
        else f"Triton at {address} did not answer in time",
        remedy="Allow more time, or lower the load.",
    )


class TooBusy(Unavailable):
    """Triton's queue policy turned the request away."""


def too_busy(address: str, details: str) -> TooBusy:
    return TooBusy(
        f"Triton at {address} has too much to do ({one_line(details)})",
        remedy="Lower the load, or raise max_queue_size or queue_timeout_us in triton.toml.",
        value=one_line(details),
    )


def nobody(address: str, details: str) -> Unavailable:
    return Unavailable(
        f"no Triton answers at {address} ({one_line(details)})",
        remedy="Start it with `recserve serve`, or name its address.",
    )


def refused(details: str) -> BadInput:
    return BadInput(
        f"Triton refused the request: {one_line(details)}",
        remedy="Send the tensors that the model's config.pbtxt declares.",
        value=one_line(details),
    )


def not_loaded(details: str) -> NotFound:
    return NotFound(
        f"Triton has no such model: {one_line(details)}",
        remedy="Load its release, or name one that is loaded.",
        value=one_line(details),
    )


def failed(address: str, details: str) -> Unavailable:
    return Unavailable(
        f"Triton at {address} could not answer: {one_line(details)}",
        remedy="See Triton's log.",
        value=one_line(details),
    )


def is_not_loaded(details: str) -> bool:
    """Triton says so with several codes, depending on who asks for what."""
    return "is not at ready state" in details or details.endswith("is not available")


def one_line(details: str) -> str:
    """Triton's message on one line, without the python stack and the advice it appends."""
    text = re.sub(r"\[request id: [^]]*\] ", "", details)
    for tail in ("\n\nAt:", "NOTE: "):
        text = text.partition(tail)[0]
    return " ".join(text.split()).rstrip(".;")
