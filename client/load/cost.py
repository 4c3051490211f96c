"""Processes of a server on this machine -> the CPU seconds they used, and what a request cost.

CPU time is the kernel's, of named processes and all their descendants: user and system time,
that of children that ended among it. Which processes: those named, or those that listen on the
target's port. Knows no load.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

import psutil

from recommender.errors import BadInput


@dataclass(frozen=True, kw_only=True)
class Servers:
    """Processes of a target on this machine; their descendants count with them."""

    pids: tuple[int, ...] = ()  # none: not known
    lacking: str = ""  # who is not among them, as far as is known


NOBODY = Servers()


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one run, or of several of one target; the machine is paid whole, however much of it was
    used."""

    pids: tuple[int, ...]  # whose CPU time it is, with their descendants; none: not known
    lacking: str  # who is not among them, as far as is known
    cpu_s: float | None
    cores: float | None  # in use on average
    per_core_second: float | None  # right answers
    per_dollar: float | None  # recommendations, at this load; None without a price

    @classmethod
    def of(
        cls,
        *,
        right: int,
        recommended: int,
        elapsed_s: float,
        servers: Servers,
        cpu_s: float | None,
        price: float | None,
    ) -> Cost:
        """Of `right` answers in `elapsed_s`, of which `recommended` were asked for items; `price`
        is in dollars an hour."""
        return cls(
            pids=servers.pids,
            lacking=servers.lacking,
            cpu_s=cpu_s,
            cores=cpu_s / elapsed_s if cpu_s and elapsed_s else None,
            per_core_second=right / cpu_s if cpu_s and elapsed_s else None,
            per_dollar=recommended / elapsed_s * 3600 / price if price and elapsed_s else None,
        )

    def said(self) -> str:
        parts = []
        if self.per_core_second is not None:
            pids = ", ".join(map(str, self.pids))
            who = f"processes {pids} and those they started"
            if self.lacking:
                who += f", without {self.lacking}"
            parts.append(
                f"The servers ({who}) used {self.cpu_s:.1f} s of CPU time, {self.cores:.2f} "
                f"cores: {self.per_core_second:,.0f} right answers a core-second"
            )
        if self.per_dollar is not None:
            parts.append(f"{self.per_dollar:,.0f} recommendations for a dollar at this load")
        none = "No answer, or too short a run: nothing to tell of the cost."
        return "; ".join(parts) + "." if parts else none


class Meter:
    """CPU time of some processes and their descendants, from `begin` on."""

    def __init__(self, pids: Sequence[int]) -> None:
        """Raises BadInput for a process that is not there."""
        self.pids = tuple(pids)
        self._roots = [_process(pid) for pid in self.pids]
        self._all = self._family()
        self.begin()

    def begin(self) -> None:
        """Quick, since it comes when a load begins: no new descendant is looked for."""
        self._before = _seconds(self._all)

    def cpu_s(self) -> float:
        """Since `begin`. A child that ended is counted with the parent that waited for it."""
        return max(_seconds(self._family() | self._all) - self._before, 0)

    def _family(self) -> set[psutil.Process]:
        found = set(self._roots)
        for root in self._roots:
            with suppress(psutil.NoSuchProcess):
                found.update(root.children(recursive=True))
        return found


def listening(ports: Collection[int]) -> list[int]:
    """Processes that listen on one of these TCP ports; of one that others come from (BentoML's
    workers share their parent's socket), that one alone. Nothing of other users' processes."""
    found = {
        one.pid
        for one in psutil.net_connections("tcp")
        if one.status == psutil.CONN_LISTEN
        and one.pid is not None
        and one.laddr
        and one.laddr.port in ports
    }
    return sorted(pid for pid in found if not found & _ancestors(pid))


def _process(pid: int) -> psutil.Process:
    try:
        return psutil.Process(pid)
    except psutil.NoSuchProcess as error:
        raise BadInput(
            f"there is no process {pid}",
            remedy="Name the servers' process ids on this machine.",
            field="--server-pid",
            value=pid,
        ) from error


def _ancestors(pid: int) -> set[int]:
    try:
        return {one.pid for one in psutil.Process(pid).parents()}
    except psutil.NoSuchProcess:
        return set()


def _seconds(processes: Collection[psutil.Process]) -> float:
    """Of CPU time, since they began; those that have ended count nothing."""
    spent = 0.0
    for one in processes:
        with suppress(psutil.NoSuchProcess):
            spent += sum(one.cpu_times()[:4])  # user, system, and of children that ended
    return spent
