"""docs/benchmarks-settings.json -> the part of docs/benchmarks.md on settings: what each path was
tried with, and what each setting of ours does beside the defaults."""

from __future__ import annotations

import statistics

from serving_figures import Found, Rounds, number, ratio, ratio_cells, spread_of, table
from serving_ours import DEFAULTS
from serving_paths import OURS

TRIED = """
## What each was tried with

`python benchmarks/serving_settings.py REPOSITORY`, all settings of a path in turns, medians.
Above, each runs with the one that served most, of those within 3% of it with the lowest p99 (both
beside the first one in rounds, geometric mean over the connections); the ten minutes and the
overload below say what ours ran under.
Ours: CALLS, of Triton under way at once; INSTANCES of the model; THREADS within an operator;
DELAY_US, how long Triton waits for a batch to fill; BATCHING 0: Triton takes each call of the
service as the batch that it is. Peers: WORKERS: processes; POOL 1: a thread
pool instead of the event loop; THREADS: of the graph, within an operator; BATCH: at most;
LONGEST_MS: BentoML's bound on latency, by which it batches; WAIT_S: how long LitServe waits for a
batch to fill; API_SERVERS: its HTTP processes; ZMQ: its faster queue; OPTIMIZED: TorchScript's
profiling executor.
"""


def told_of(settings: Found) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def tried_of(tried: Found) -> str:
    asked = _asked(tried)
    rows = [
        (path, told_of(one["settings"]),
         *(_median(one["at"][count], figure) for figure in ("rate", "p99_ms") for count in asked))
        for path, all_of_it in tried.items()
        for one in all_of_it
    ]  # fmt: skip
    figures = [f"{told} at {count}" for told in ("requests/s", "p99, ms") for count in asked]
    return f"{TRIED.strip()}\n\n{table(('path', 'settings', *figures), rows)}"


def _asked(tried: Found) -> list[str]:
    """Connections, as the file names them."""
    return list(next(one["at"] for all_of_it in tried.values() for one in all_of_it))


def _median(rounds: Rounds, figure: str) -> str:
    return number(statistics.median(one[figure] for one in rounds))


OWN = """
## Settings of ours, beside the defaults

One setting or two changed, and the rest as in the defaults ({defaults}): ratios within rounds of
the same run as above, by connections, their median and spread; below 1 is less. How to set them:
[triton.md](triton.md); how to look for them on a machine of your own:
[load-testing.md](load-testing.md).
"""


def own_of(tried: Found, spinning: Found | None) -> str:
    """Nothing where ours was not tried."""
    parts = []
    ours = tried.get(OURS, [])
    base = next((one for one in ours if {**DEFAULTS, **one["settings"]} == DEFAULTS), None)
    if base is not None:
        rows = [_beside(one, base) for one in ours if one is not base]
        asked = [f"{told}, {n}" for n in _asked(tried) for told in ("requests/s", "p99")]
        head = ("changed", *(cell for told in asked for cell in (told, "spread")))
        parts.append(f"{OWN.strip().format(defaults=told_of(DEFAULTS))}\n\n{table(head, rows)}")
    if spinning is not None:
        parts.append(spinning_of(spinning))
    return "\n\n".join(parts)


def _beside(one: Found, base: Found) -> tuple[str, ...]:
    changed = {k: v for k, v in one["settings"].items() if v != DEFAULTS[k]}
    bars = [
        ratio(rounds, base["at"][count], figure)
        for count, rounds in one["at"].items()
        for figure in ("rate", "p99_ms")
    ]
    return (told_of(changed), *(cell for bar in bars for cell in ratio_cells(bar)))


SPINNING = """
Threads of ONNX Runtime that spin while they wait for work, and threads that sleep, which is how
the backends here have them: `python benchmarks/graph.py REPOSITORY --spinning`, batches of
{batch} of length {length} in turns, {rounds} rounds, {pause_ms:g} ms after each in which nobody
asks, as between two batches of a server. CPU is that of the whole process, pause included: what
it takes from whoever else wants a core. One thread has no pool that could spin. {cpu}, {cores}
cores, load {load_before:.1f} before, {date}.
"""


def spinning_of(found: Found) -> str:
    rows = [
        (one["threads"], "spinning" if one["spinning"] else "sleeping",
         spread_of(one["took_ms"]), spread_of(one["cpu_ms"]))
        for one in found["sides"]
    ]  # fmt: skip
    head = ("threads", "waiting", "a batch, ms", "CPU, ms a batch")
    return f"{SPINNING.strip().format(**found)}\n\n{table(head, rows)}"
