"""What was measured -> docs/benchmarks.json, ratios, aims, and tables for the terminal.

The JSON holds every round; each command of the benchmark puts its own part there.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.table import Table
from serving_paths import BENTOML, LITSERVE, ONNX, OURS, TORCH, Way
from serving_plots import Bar

from client.load.result import processor
from recommender.release import Release

INLINE = "recserve, histories sent"
SQLITE, REDIS = "recserve, SQLite", "recserve, Redis"  # stores that hold too much to be at hand
INLINE_OF = {name: f"{name}, histories sent" for name in (SQLITE, REDIS)}
PACKAGES = ("fastapi", "uvicorn", "uvloop", "httptools", "pydantic", "bentoml", "litserve", "torch",
            "onnxruntime", "tritonclient", "nvidia-pytriton", "numpy")  # fmt: skip
FILE = "benchmarks.json"
FIGURES = ("rate", "p50_ms", "p99_ms", "cpu_ms")
Found = dict[str, Any]
Rounds = Sequence[dict[str, float]]


def about(release: Release, paths: Sequence[Way]) -> Found:
    buckets = [release.limits.bucket(int(n)) for n in release.users.lengths]
    return {
        "cpu": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "items": release.items,
        "users": len(release.users),
        "buckets": {str(b): buckets.count(b) for b in release.limits.length_buckets},
        "paths": {path.name: {"about": path.about, "settings": dict(path.settings)}
                  for path in paths},
    }  # fmt: skip


def _version(name: str) -> str | None:
    """None: it is not installed (what only the peers need)."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def keep(docs: Path, **parts: Any) -> None:
    """These parts anew, the others as they were; ratios of machines before stay, too."""
    path = docs / FILE
    before = json.loads(path.read_text()) if path.exists() else {}
    if "rates" in before and "about" in parts:
        parts["earlier"] = earlier(before)
    path.write_text(json.dumps({**before, **parts}, indent=1) + "\n")


RUNS = 3  # of which the page tells beside the newest one


def earlier(before: Found) -> list[Found]:
    """What `before` found, and what it knew of runs before it. Machines, and hours of one machine,
    differ by more than a change of the code."""
    about = before["about"]
    newest = {"cpu": about["cpu"], "cores": about["cores"], "date": about["date"],
              "aims": {what: value[0] for what, _, value, _ in aims(before)}}  # fmt: skip
    return [newest, *before.get("earlier", ())][:RUNS]


# --- figures of rounds


def spread(rounds: Rounds, figure: str) -> Bar:
    values = [one[figure] for one in rounds]
    return statistics.median(values), min(values), max(values)


def ratio(ours: Rounds, theirs: Rounds, figure: str) -> Bar:
    """Of each round, since both sides of it met the same neighbours."""
    found = [a[figure] / b[figure] for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(found), min(found), max(found)


WRONG = 0.01  # share of our own answers beyond which no aim is reached, however fast they were


def wrong(rounds: Rounds) -> float:
    """Share of the answers that were not right, as popular items instead of a model's."""
    return sum(one["wrong"] for one in rounds) / sum(one["asked"] for one in rounds)


Aim = tuple[str, str, Bar, bool]  # what, the aim, found, reached


def aims(found: Found) -> list[Aim]:
    rates, known = found.get("rates", {}), []
    right = all(wrong(sides[OURS]) <= WRONG for sides in rates.values())

    def add(what: str, aim: str, value: Bar, reached: Callable[[float], bool]) -> None:
        known.append((what, aim, value, reached(value[0]) and right))

    for peer, least in ((TORCH, 1.8), (ONNX, 1.2), (BENTOML, 3.5), (LITSERVE, 2.5)):
        for count in ("32", "64"):
            if count in rates:
                value = ratio(rates[count][OURS], rates[count][peer], "rate")
                add(f"requests/s over {peer}, {count} connections", f"at least {least:g} x",
                    value, lambda v, least=least: v >= least)  # fmt: skip
    for count in ("32", "64"):
        if count in rates:
            value = ratio(rates[count][OURS], rates[count][ONNX], "p99_ms")
            add(f"p99 over {ONNX}, {count} connections", "at most 0.7 x", value, lambda v: v <= 0.7)
    if "1" in rates:
        value = ratio(rates["1"][OURS], rates["1"][TORCH], "p50_ms")
        add(f"median latency over {TORCH}, 1 connection", "at most 1.4 x", value,
            lambda v: v <= 1.4)  # fmt: skip
    for count in ("32", "64"):
        if count in rates:
            value = ratio(rates[count][OURS], rates[count][INLINE], "rate")
            add(f"with the event store, all of it at hand, over histories sent, {count} "
                "connections", "at least 0.85 x", value, lambda v: v >= 0.85)  # fmt: skip
    return [*known, *store_aims(found["stores"])] if "stores" in found else known


def store_aims(stores: Found) -> list[Aim]:
    """Of stores whose events the service does not keep at hand."""
    known: list[Aim] = []
    for store, told in ((SQLITE, "an SQLite store that is read"), (REDIS, "a Redis store")):
        for count, sides in stores["rates"].items():
            if store in sides:
                value = ratio(sides[store], sides[INLINE_OF[store]], "rate")
                reached = value[0] >= 0.85 and wrong(sides[store]) <= WRONG
                known.append((f"with {told} over histories sent, {count} connections",
                              "at least 0.85 x", value, reached))  # fmt: skip
    return known


# --- the terminal, and the page


def table_of(found: Found) -> Table:
    """Medians."""
    table = Table("connections", "path", "requests/s", "p50 ms", "p99 ms", "CPU ms", "wrong",
                  box=None)  # fmt: skip
    lengths = {f"32, length {bucket}": sides for bucket, sides in found["lengths"].items()}
    for count, sides in {**found["rates"], **lengths}.items():
        for name, rounds in sides.items():
            cells = [number(spread(rounds, figure)[0]) for figure in FIGURES]
            table.add_row(count, name, *cells, f"{wrong(rounds):.1%}" if wrong(rounds) else "")
    return table


def aims_of(known: Sequence[Aim]) -> Table:
    table = Table("aim", "", "found", "spread", "", box=None, pad_edge=False)
    for what, aim, value, reached in known:
        table.add_row(what, aim, *ratio_cells(value), "reached" if reached else "missed")
    return table


def ratio_cells(bar: Bar) -> list[str]:
    return [f"{bar[0]:.2f}", f"{bar[1]:.2f} to {bar[2]:.2f}"]


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)


def figures_of(rounds: Rounds) -> list[str]:
    return [spread_of([one[figure] for one in rounds]) for figure in FIGURES]


def spread_of(values: Sequence[float]) -> str:
    return f"{number(statistics.median(values))} ({number(min(values))} to {number(max(values))})"


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
