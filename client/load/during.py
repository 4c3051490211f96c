"""A command in the middle of a run -> what was before, during and after it.

    |---- before ----|--- during ---|---- after ----|
                     ^ it starts    ^ it has ended, SETTLED_S later

The requests keep coming as planned all the while; each counts where it was due. For a promotion,
a kill, a full disk: whatever a shell can do. Knows no protocol.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from client.load.plan import Plan
from client.load.recording import Rows
from client.load.report import Report, report

SHARE = 1 / 3  # of the run: when the command starts
SETTLED_S = 1.0  # what a command does shows a moment after it has ended, too
SHOWN = 2000  # characters of its output, the last ones

Begun = Callable[[float], None]
Measure = Callable[[Plan, Begun], Awaitable[Rows]]  # tells when what is measured begins


@dataclass(frozen=True, kw_only=True)
class Command:
    line: str
    code: int
    output: str
    began_s: float  # from the start of what is measured
    ended_s: float


@dataclass(frozen=True, kw_only=True)
class During:
    command: Command
    phases: dict[str, Report]  # before, during, after; the last only where the run outlived it
    whole: Report


async def run_during(plan: Plan, line: str, measure: Measure, *, duration_s: float) -> During:
    """Run `line` in a shell, a third into a run of `duration_s`. Raises what `measure` raises."""
    begins: asyncio.Future[float] = asyncio.get_running_loop().create_future()
    command = asyncio.create_task(_command(line, begins, duration_s * SHARE))
    try:
        rows = await measure(plan, begins.set_result)
        ran = await command
    finally:
        command.cancel()
        await asyncio.gather(command, return_exceptions=True)
    edges = {
        "before": (0.0, ran.began_s),
        "during": (ran.began_s, min(ran.ended_s + SETTLED_S, duration_s)),
        "after": (ran.ended_s + SETTLED_S, duration_s),
    }
    return During(
        command=ran,
        phases={
            name: _phase(plan, rows, begin, end)
            for name, (begin, end) in edges.items()
            if begin < end
        },
        whole=report(plan, rows),
    )


def _phase(plan: Plan, rows: Rows, begin: float, end: float) -> Report:
    """Of what was due in it; rates are by its own length."""
    if plan.arrivals is not None:
        plan = replace(plan, arrivals=replace(plan.arrivals, duration_s=end - begin))
    found = report(plan, rows.between(begin, end))
    return replace(found, elapsed_s=end - begin, throughput=found.right / (end - begin))


async def _command(line: str, begins: Awaitable[float], wait_s: float) -> Command:
    start = await begins
    await asyncio.sleep(start + wait_s - time.perf_counter())
    began = time.perf_counter()
    # Not asyncio's: uvloop forks for it, and a child of a process with the threads of gRPC died
    # now and then before it was the command.
    process = subprocess.Popen(
        line,
        shell=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        output, _ = await asyncio.to_thread(process.communicate)
    finally:
        if process.returncode is None:  # the run failed: nobody waits for it any more
            os.killpg(process.pid, signal.SIGTERM)
            await asyncio.to_thread(process.wait)
    code = process.returncode
    assert code is not None
    return Command(
        line=line,
        code=code,
        output=output.decode(errors="replace").strip()[-SHOWN:],
        began_s=began - start,
        ended_s=time.perf_counter() - start,
    )
