"""What was measured -> docs/benchmarks.json -> docs/benchmarks.md and its plots.

The JSON holds every round; each command of the benchmark puts its own part there, and the page is
written anew from all parts that there are.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.table import Table
from serving_paths import BENTOML, LITSERVE, ONNX, OURS, TORCH, Path_
from serving_plots import Bar, bars

from recommender.release import Release

INLINE = "recserve, histories sent"
PACKAGES = ("fastapi", "uvicorn", "uvloop", "httptools", "pydantic", "bentoml", "litserve", "torch",
            "onnxruntime", "tritonclient", "nvidia-pytriton", "numpy")  # fmt: skip
FILE = "benchmarks.json"
Found = dict[str, Any]
Rounds = Sequence[dict[str, float]]


def about(release: Release, paths: Sequence[Path_]) -> Found:
    models = [
        line.partition(":")[2].strip()
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    buckets = [release.limits.bucket(int(n)) for n in release.users.lengths]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "kernel": platform.release(),
        "python": platform.python_version(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {name: version(name) for name in PACKAGES},
        "items": release.items,
        "users": len(release.users),
        "buckets": {str(b): buckets.count(b) for b in release.limits.length_buckets},
        "paths": {path.name: {"about": path.about, "settings": dict(path.settings)}
                  for path in paths},
    }  # fmt: skip


def keep(docs: Path, **parts: Any) -> None:
    """These parts anew, the others as they were."""
    path = docs / FILE
    before = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**before, **parts}, indent=1) + "\n")


# --- figures of rounds


def spread(rounds: Rounds, figure: str) -> Bar:
    values = [one[figure] for one in rounds]
    return statistics.median(values), min(values), max(values)


def ratio(ours: Rounds, theirs: Rounds, figure: str) -> Bar:
    """Of each round, since both sides of it met the same neighbours."""
    found = [a[figure] / b[figure] for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(found), min(found), max(found)


Aim = tuple[str, str, Bar | None, bool | None]  # what, the aim, found, reached


def aims(found: Found) -> list[Aim]:
    rates, known = found.get("rates", {}), []

    def add(what: str, aim: str, value: Bar, reached: Callable[[float], bool]) -> None:
        known.append((what, aim, value, reached(value[0])))

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
            add(f"requests/s with the event store over histories sent, {count} connections",
                "at least 0.85 x", value, lambda v: v >= 0.85)  # fmt: skip
    return known


# --- the terminal


def table_of(found: Found) -> Table:
    table = Table("connections", "path", "requests/s", "p50 ms", "p99 ms", "CPU ms a request",
                  box=None, pad_edge=False)  # fmt: skip
    for count, sides in found["rates"].items():
        for name, rounds in sides.items():
            table.add_row(count, name, *_figures(rounds))
    for bucket, sides in found["lengths"].items():
        for name, rounds in sides.items():
            table.add_row(f"32, length {bucket}", name, *_figures(rounds))
    return table


def aims_of(found: Found) -> Table:
    table = Table("aim", "", "found", "spread", "", box=None, pad_edge=False)
    for what, aim, value, reached in aims(found):
        table.add_row(what, aim, *_ratio(value), "reached" if reached else "missed")
    return table


def _figures(rounds: Rounds) -> list[str]:
    return [_spread(spread(rounds, name)) for name in ("rate", "p50_ms", "p99_ms", "cpu_ms")]


def _spread(bar: Bar) -> str:
    return f"{_n(bar[0])} ({_n(bar[1])} to {_n(bar[2])})"


def _ratio(bar: Bar) -> list[str]:
    return [f"{bar[0]:.2f}", f"{bar[1]:.2f} to {bar[2]:.2f}"]


def _n(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# --- the page


def write(docs: Path) -> None:
    """docs/benchmarks.md, and docs/benchmarks-*.svg beside it."""
    found = json.loads((docs / FILE).read_text())
    tried = docs / "benchmarks-settings.json"
    parts = ["# Beside other servers"]
    if "rates" in found:
        parts = [
            _head(found),
            _compared(found),
            *_plots(found, docs),
            _by_connections(found),
            _lengths(found),
        ]
    if tried.exists():
        parts.append(_settings(json.loads(tried.read_text())))
    parts += [told for name, tell in (("soak", _soak), ("overload", _overload))
              if name in found for told in (tell(found[name]),)]  # fmt: skip
    parts.append(FAIR)
    (docs / "benchmarks.md").write_text("\n\n".join(part.strip() for part in parts) + "\n")


HEAD = """
# Beside other servers

Written by `make bench` from docs/benchmarks.json: figures of one machine, none of them a promise.
The same trained release, the same requests and the same work for each: a JSON body checked, the
user's history, features and seen items looked up, the contract's tensors at the right length, the
graph, titles and categories in the answer. Before anything is measured, {same} requests must have
the same items from all of them. One is awake at a time; the load generator
([load-testing.md](load-testing.md)) runs on the same cores and checks every answer.
"""


def _head(found: Found) -> str:
    m = found["about"]
    held = ", ".join(f"{count:,} of up to {b}" for b, count in m["buckets"].items() if count)
    rows = [
        ("CPU", f"{m['cpu']}, {m['cores']} cores, load {m['load_before']:.1f} before it began"),
        ("kernel, Python", f"{m['kernel']}, {m['python']}"),
        ("versions", ", ".join(f"{name} {number}" for name, number in m["versions"].items())),
        ("release", f"{m['items']:,} items, {m['users']:,} users; lengths of histories: {held}"),
        ("date", m["date"]),
    ]
    return HEAD.format(same=found["how"]["same"]).strip() + "\n\n" + _table(("", ""), rows)


def _compared(found: Found) -> str:
    rows = [
        (what, aim, *_ratio(value), "yes" if reached else "**no**")
        for what, aim, value, reached in aims(found)
    ]
    how = found["how"]
    told = (
        f"Medians of {how['rounds']} rounds of {how['seconds']:g} s, whose order turns round; a "
        "ratio is taken within a round, and its spread is the lowest and the highest of them. Our "
        f"store holds the newest {how['events_of_a_user']} events of each user "
        f"({how['events']:,}), which every request reads."
    )
    return f"## The aims\n\n{told}\n\n" + _table(
        ("ours", "aim", "found", "spread", "reached"), rows
    )


def _plots(found: Found, docs: Path) -> list[str]:
    told = []
    for name, title, unit, figure in (
        ("rate", "Requests a second", "requests/s", "rate"),
        ("p99", "The slowest of a hundred", "p99, ms", "p99_ms"),
        ("cpu", "CPU time of a request, all processes of the server", "ms", "cpu_ms"),
    ):
        groups = {
            f"{count} connection{'s' if count != '1' else ''}": {
                path: spread(rounds, figure) for path, rounds in sides.items() if path != INLINE
            }
            for count, sides in found["rates"].items()
        }
        (docs / f"benchmarks-{name}.svg").write_text(bars(title, unit, groups))
        told.append(f"![{title}, by connections and path; the table below has the same figures]"
                    f"(benchmarks-{name}.svg)")  # fmt: skip
    return told


COLUMNS = ("path", "requests/s", "p50, ms", "p99, ms", "CPU, ms a request")


def _by_connections(found: Found) -> str:
    parts = ["## By connections"]
    for count, sides in found["rates"].items():
        rows = [(name, *_figures(rounds)) for name, rounds in sides.items()]
        parts += [f"{count} connection{'s' if count != '1' else ''}:", _table(COLUMNS, rows)]
    paths = found["about"]["paths"]
    told = [
        f"- **{name}**: {path['about']}"
        + "".join(f"; {key} {value}" for key, value in path["settings"].items())
        for name, path in paths.items()
    ]
    return "\n\n".join([*parts, "\n".join(told)])


def _lengths(found: Found) -> str:
    parts = [
        "## By length of history",
        "Users of one length bucket alone, 32 connections. What the mix above is made of.",
    ]
    for bucket, sides in found["lengths"].items():
        ours = sides[OURS]
        rows = [
            (name, *_figures(rounds), _ratio(ratio(ours, rounds, "rate"))[0])
            for name, rounds in sides.items()
        ]
        parts += [f"Bucket {bucket}:", _table((*COLUMNS, "ours, requests/s"), rows)]
    return "\n\n".join(parts)


SETTINGS = """
## What each peer was tried with

`python benchmarks/serving_settings.py REPOSITORY`, 32 connections, all settings of a peer in turns.
Above, each runs with the one that served most (of those within 3% of it, with the lowest p99).
WORKERS: processes; POOL 1: a thread pool instead of the event loop; THREADS: of the graph, within
an operator; BATCH: at most; LONGEST_MS: BentoML's bound on latency, by which it batches; WAIT_S:
how long LitServe waits for a batch to fill; API_SERVERS: its HTTP processes; ZMQ: its faster queue;
OPTIMIZED: TorchScript's profiling executor.
"""


def _settings(tried: Found) -> str:
    rows = [
        (peer, ", ".join(f"{k} {v}" for k, v in one["settings"].items()), _n(one["rate"]),
         _n(one["p99_ms"]))
        for peer, all_of_it in tried.items()
        for one in all_of_it
    ]  # fmt: skip
    return SETTINGS.strip() + "\n\n" + _table(("peer", "settings", "requests/s", "p99, ms"), rows)


def _soak(s: Found) -> str:
    rows = [
        ("p99", "at most 25 ms", f"{s['p99_ms']:.1f} ms", s["p99_ms"] <= 25),
        ("errors", "none", f"{s['errors']} of {s['requests']:,}", s["errors"] == 0),
        ("memory, last tenth over the second one", "within 3%", f"{s['growth']:+.1%}",
         abs(s["growth"]) <= 0.03),
        ("the generator kept up", "", s["why_behind"] or "yes", not s["why_behind"]),
    ]  # fmt: skip
    told = (
        f"`make bench-soak`: {s['minutes']:g} minutes of Poisson arrivals at {s['rate']:,.0f}/s, "
        f"{s['share']:.0%} of the {s['capacity']:,.0f}/s that 64 connections reached just before. "
        f"Memory of all processes: {s['memory_mb'][0]:,.0f} MB at first, "
        f"{s['memory_mb'][-1]:,.0f} MB at the end. {_where(s)}"
    )
    return f"## Ten minutes at 70%\n\n{told}\n\n{_checked(rows)}"


def _overload(s: Found) -> str:
    refused = s["refused_ms"].get("p99", 0.0)  # nothing refused: nobody waited for it
    rows = [
        ("accepted: slowest of a thousand", f"within the deadline of {s['deadline_ms']} ms",
         f"{s['accepted_ms']['p99.9']:.0f} ms", s["accepted_ms"]["p99.9"] <= s["deadline_ms"]),
        ("refused with 429: slowest of a hundred", "within 50 ms", f"{refused:.0f} ms",
         refused <= 50),
        ("right answers a second, of capacity", "at least 80%", f"{s['goodput']:.0%}",
         s["goodput"] >= 0.8),
        ("neither right nor refused", "none", f"{s['errors']} of {s['requests']:,}",
         s["errors"] == 0),
        ("normal again", "within 5 s", f"after {s['normal_s']} s" if s["normal_s"] is not None
         else "not within the run", s["normal_s"] is not None and s["normal_s"] <= 5),
        ("the generator kept up", "", s["why_behind"] or "yes", not s["why_behind"]),
    ]  # fmt: skip
    told = (
        f"`make bench-overload`: {s['factor']:g} x the {s['capacity']:,.0f}/s of 64 connections "
        f"for {s['seconds']:g} s, half of it before and after. {_where(s)}"
    )
    return f"## Overload\n\n{told}\n\n{_checked(rows)}"


def _where(s: Found) -> str:
    m = s["machine"]
    return f"{m['cpu']}, {m['cores']} cores, load {m['load_before']:.1f} before, {m['date']}."


def _checked(rows: Sequence[tuple[str, str, str, bool]]) -> str:
    told = [(what, aim, found, "yes" if reached else "**no**")
            for what, aim, found, reached in rows]  # fmt: skip
    return _table(("", "aim", "found", "reached"), told)


FAIR = """
## How it is fair, and where it is not

- Peers get what we gave ourselves: no access log, metrics or tracing, garbage frozen once all is
  loaded, uvloop and httptools, answers encoded by msgspec where the server lets the handler send
  bytes (BentoML and its batched APIs do not), and settings that were tried on this machine.
- Peers keep neither events nor blocked items, have no deadline, fallback, rate, variants or
  metrics, and know two fields of a body of twelve. That is to their advantage.
- LitServe compresses what is longer than 1,000 bytes, unless told otherwise; it is told.
- BentoML's batched APIs take lists, so a few lines of ASGI make a list of each body.
- Each is a small program in `benchmarks/peers/`. Should you know a better setting, please say.
"""


def _table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(str(cell) for cell in line)} |" for line in lines)
