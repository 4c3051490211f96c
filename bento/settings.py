"""The environment -> the service's settings, checked once at start.

Everything Bento must be told from outside stands here; what a release fixes
(limits, models, clock) comes from the release itself.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from recommender.errors import BadInput

# The longest deadline a request may ask for. Bento's own time-out must lie above it.
MAX_DEADLINE_MS = 2000
RETIRE_S = MAX_DEADLINE_MS / 1000 + 1.0  # by then every request that had begun has ended
SCHEMES = ("grpc", "triton+http")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Each field with the variable it is read from."""

    repository: Path = Path("model_repository")  # RECSERVE_REPOSITORY
    triton: str = "grpc://127.0.0.1:8001"  # RECSERVE_TRITON
    deadline_ms: int = 300  # RECSERVE_DEADLINE_MS, of requests that name none
    model: str | None = None  # RECSERVE_MODEL; None = the release's first model

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Unset and empty variables mean the default. Raises BadInput naming the variable."""
        values = {k: v for k in VARIABLES if (v := environment.get(k, "").strip())}
        defaults = cls()
        return cls(
            repository=Path(values.get("RECSERVE_REPOSITORY", defaults.repository)).absolute(),
            triton=_address(values.get("RECSERVE_TRITON", defaults.triton)),
            deadline_ms=_deadline(values.get("RECSERVE_DEADLINE_MS", str(defaults.deadline_ms))),
            model=values.get("RECSERVE_MODEL"),
        )


VARIABLES = ("RECSERVE_REPOSITORY", "RECSERVE_TRITON", "RECSERVE_DEADLINE_MS", "RECSERVE_MODEL")


def _address(text: str) -> str:
    scheme, mark, rest = text.partition("://")
    host, colon, port = rest.rpartition(":")
    if not mark or scheme not in SCHEMES or not host or not colon or not port.isdigit():
        raise BadInput(
            f"RECSERVE_TRITON is {text!r}",
            remedy="Set it to grpc://host:port or triton+http://host:port.",
            field="RECSERVE_TRITON",
            value=text,
        )
    return text


def _deadline(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_DEADLINE_MS:
        raise BadInput(
            f"RECSERVE_DEADLINE_MS is {text!r}",
            remedy=f"Set it to whole milliseconds from 1 to {MAX_DEADLINE_MS}.",
            field="RECSERVE_DEADLINE_MS",
            value=text,
        )
    return int(text)
