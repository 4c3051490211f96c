"""Processes of a server on this machine -> the CPU seconds they used, and what a request cost.

CPU time is the kernel's, of named processes and all their descendants: user and system time,
that of children that ended among it. Which processes: those named, or those that listen on the
target's port. Linux only; knows no load.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.load.report import Report
from recommender.errors import BadInput

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")
LISTENS = "0A"  # a socket's state in /proc/net/tcp
PARENT, TIMES = 1, slice(11, 15)  # in /proc/PID/stat behind the name: of the parent; four times


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one run; the machine is paid whole, however much of it was used."""

    pids: tuple[int, ...]  # whose CPU time it is, with their descendants; none: not known
    cpu_s: float | None
    cores: float | None  # in use on average
    per_core_second: float | None  # right answers
    per_dollar: float | None  # right answers, at this load; None without a price

    @classmethod
    def of(
        cls, report: Report, pids: Sequence[int], cpu_s: float | None, price: float | None
    ) -> Cost:
        """`price` is in dollars an hour."""
        return cls(
            pids=tuple(pids),
            cpu_s=cpu_s,
            cores=cpu_s / report.elapsed_s if cpu_s and report.elapsed_s else None,
            per_core_second=report.right / cpu_s if cpu_s else None,
            per_dollar=report.throughput * 3600 / price if price else None,
        )

    def said(self) -> str:
        parts = []
        if self.per_core_second is not None:
            pids = ", ".join(map(str, self.pids))
            parts.append(
                f"The servers (processes {pids} and those they started) used {self.cpu_s:.1f} s "
                f"of CPU time, {self.cores:.2f} cores: {self.per_core_second:,.0f} right answers "
                "a core-second"
            )
        if self.per_dollar is not None:
            parts.append(f"{self.per_dollar:,.0f} recommendations for a dollar at this load")
        return "; ".join(parts) + "."


class Meter:
    """CPU time of some processes and their descendants, from `begin` on."""

    def __init__(self, pids: Sequence[int]) -> None:
        """Raises BadInput for a process that is not there."""
        self.pids = tuple(pids)
        for pid in self.pids:
            if not (PROC / str(pid)).exists():
                raise BadInput(
                    f"there is no process {pid}",
                    remedy="Name the servers' process ids on this machine.",
                    field="--server-pid",
                    value=pid,
                )
        self._all = _family(self.pids)
        self.begin()

    def begin(self) -> None:
        """Quick, since it comes when a load begins: no new descendant is looked for."""
        self._before = _ticks(self._all)

    def cpu_s(self) -> float:
        """Since `begin`. A child that ended is counted with the parent that waited for it."""
        return max(_ticks(_family(self.pids) | self._all) - self._before, 0) / TICKS


def listening(ports: Collection[int]) -> list[int]:
    """Processes that listen on one of these TCP ports; of one that others come from (BentoML's
    workers share their parent's socket), that one alone."""
    wanted = {f"socket:[{inode}]" for inode in _inodes(ports)}
    found = {pid for pid in _all() if _open(PROC / str(pid)) & wanted}
    parents = {pid: stat[PARENT] for pid, stat in _stats(_all()).items()}
    return sorted(pid for pid in found if not _ancestors(pid, parents) & found)


def _inodes(ports: Collection[int]) -> set[str]:
    found = set()
    for table in ("tcp", "tcp6"):
        path = PROC / "net" / table
        for line in path.read_text().splitlines()[1:] if path.exists() else ():
            _, local, _, state, *rest = line.split()
            if state == LISTENS and int(local.rpartition(":")[2], 16) in ports:
                found.add(rest[5])
    return found


def _open(process: Path) -> set[str]:
    """What its file descriptors are; nothing of a process that is another user's, or has gone."""
    try:
        return {str(link.readlink()) for link in (process / "fd").iterdir()}
    except OSError:
        return set()


def _ancestors(pid: int, parents: dict[int, int]) -> set[int]:
    found = set[int]()
    while (pid := parents.get(pid, 0)) and pid not in found:
        found.add(pid)
    return found


def _family(roots: Collection[int]) -> set[int]:
    """`roots` and their descendants."""
    parents = {pid: stat[PARENT] for pid, stat in _stats(_all()).items()}
    return {
        pid for pid in parents if pid in roots or not _ancestors(pid, parents).isdisjoint(roots)
    }


def _ticks(pids: Collection[int]) -> int:
    """Of CPU time, since they began; those that have ended count nothing."""
    return sum(sum(stat[TIMES]) for stat in _stats(pids).values())


def _all() -> list[int]:
    return [int(process.name) for process in PROC.iterdir() if process.name.isdigit()]


def _stats(pids: Collection[int]) -> dict[int, list[int]]:
    """The numbers of /proc/PID/stat behind the state; nothing of those that have ended."""
    found = {}
    for pid in pids:
        try:
            fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[pid] = [0, *map(int, fields[1:])]
    return found
