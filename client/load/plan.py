"""What is to be asked of whom, how fast and for how long: one load test, before it is run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from client.load.arrivals import Arrivals
from client.load.mix import Mix
from recommender.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Plan:
    target: str  # http(s)://..., grpc://... or triton+http://...
    repository: Path  # releases that answers are checked against; users, unless `data` has them
    arrivals: Arrivals | None = None  # an open loop; None: a closed one of `concurrency` callers
    concurrency: int = 8  # callers at a time
    requests: int | None = None  # closed: stop after this many,
    duration_s: float | None = None  # or after this time; give one of the two
    connections: int = 1000  # open: requests under way at a time, at most, a generator
    processes: int = 1  # generators, each a process with a loop of its own; one: this process
    warm_up_s: float = 0.0  # of the same load, before what is measured
    mix: Mix = field(default_factory=Mix)
    data: Path | None = None  # a data folder: its users, instead of the release's
    zipf: float | None = None  # exponent of users' shares; None: each as often as the others
    inline: bool = False  # histories in the request, instead of user ids
    n: int = 10  # items per answer, from the service
    model: str | None = None  # Triton's; None = the one that serves
    timeout_s: float = 10
    seed: int = 0  # which users, which filters, in which order

    def __post_init__(self) -> None:
        if self.arrivals is None and (self.requests is None) == (self.duration_s is None):
            raise BadInput(
                f"{self.requests} requests and {self.duration_s} seconds",
                remedy="Give one of the two.",
                field="requests",
            )
        if self.arrivals is None and self.processes > self.concurrency:
            raise BadInput(
                f"{self.processes} processes for {self.concurrency} callers",
                remedy="Give every process at least one caller.",
                field="processes",
                value=self.processes,
            )

    def to_json(self) -> dict[str, Any]:
        """All that it takes to run it again; None where something does not apply."""
        found: dict[str, Any] = msgspec.to_builtins(self, enc_hook=str)  # paths as they were given
        found["connections" if self.arrivals is None else "concurrency"] = None
        return found

    def share(self, count: int, number: int) -> int:
        """Of `count`, what falls to generator `number`."""
        return count // self.processes + (number < count % self.processes)
