"""Do threads of ONNX Runtime that spin in wait for work help a batch, and what do they take?

The same batch in turns: one thread, and several that sleep or spin while they wait. After each
batch comes a pause, as between two batches of a server, and the process's CPU time is counted over
both: a thread that spins takes a core from whoever else wants it. Figures of each round.
"""

from __future__ import annotations

import datetime
import os
import time
from pathlib import Path
from typing import Any

import onnxruntime

from client.load.result import processor
from recommender.contract import Array

ROUNDS, WARM_UP, BATCH, PAUSE_S = 60, 5, 32, 0.005
Found = dict[str, Any]


def measured(model: Path, batch: dict[str, Array], length: int, threads: int) -> Found:
    kinds = [(1, False), (threads, False), (threads, True)]
    machine = {
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    sessions = [session_of(model, count, spinning) for count, spinning in kinds]
    took: list[list[tuple[float, float]]] = [[] for _ in sessions]
    for number in range(WARM_UP + ROUNDS):
        order = list(range(len(sessions)))
        for i in order[:: -1 if number % 2 else 1]:
            pair = _once(sessions[i], batch)
            if number >= WARM_UP:
                took[i].append(pair)
    sides = [
        {"threads": count, "spinning": spinning, "took_ms": [wall for wall, _ in pairs],
         "cpu_ms": [cpu for _, cpu in pairs]}
        for (count, spinning), pairs in zip(kinds, took, strict=True)
    ]  # fmt: skip
    return {**machine, "batch": len(next(iter(batch.values()))), "length": length,
            "rounds": ROUNDS, "pause_ms": 1e3 * PAUSE_S, "sides": sides}  # fmt: skip


def session_of(model: Path, threads: int, spinning: bool) -> onnxruntime.InferenceSession:
    """As serving/backends/onnxruntime has it, but for the spinning."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    return onnxruntime.InferenceSession(str(model), options, ["CPUExecutionProvider"])


def _once(session: onnxruntime.InferenceSession, batch: dict[str, Array]) -> tuple[float, float]:
    """Milliseconds of the batch, and of CPU time until the pause after it is over."""
    began, used = time.perf_counter(), time.process_time()
    session.run(None, batch)
    took = time.perf_counter() - began
    time.sleep(PAUSE_S)
    return 1e3 * took, 1e3 * (time.process_time() - used)
