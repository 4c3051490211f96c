"""docs/benchmarks.json -> docs/benchmarks.md and its plots: every part that was measured so far."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from serving_figures import (
    FILE,
    INLINE,
    INLINE_OF,
    REDIS,
    Found,
    aims,
    figures_of,
    ratio,
    ratio_cells,
    spread,
    table,
)
from serving_page_settings import own_of, told_of, tried_of
from serving_paths import OURS
from serving_plots import bars


def write(docs: Path) -> None:
    """docs/benchmarks.md, and docs/benchmarks-*.svg beside it."""
    found = json.loads((docs / FILE).read_text())
    tried = docs / "benchmarks-settings.json"
    parts = ["# Beside other servers"]
    if "rates" in found:
        parts = [
            _head(found),
            _compared(found),
            _earlier(found),
            *_plots(found, docs),
            _by_connections(found),
            _lengths(found),
        ]
    if "stores" in found:
        parts.append(_stores(found["stores"]))
    settings = json.loads(tried.read_text()) if tried.exists() else {}
    if settings:
        parts.append(tried_of(settings))
    parts.append(own_of(settings, found.get("spinning")))
    alone = (("soak", _soak), ("overload", _overload), ("overload_apart", _overload_apart))
    parts += [tell(found[name]) for name, tell in alone if name in found]
    if "rates" in found:
        parts.append(FAIR)
    (docs / "benchmarks.md").write_text("\n\n".join(part.strip() for part in parts if part) + "\n")


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
    return HEAD.format(same=found["how"]["same"]).strip() + "\n\n" + table(("", ""), rows)


def _compared(found: Found) -> str:
    rows = [
        (what, aim, *ratio_cells(value), "yes" if reached else "**no**")
        for what, aim, value, reached in aims(found)
    ]
    how = found["how"]
    told = (
        f"Medians of {how['rounds']} rounds of {how['seconds']:g} s, whose order turns round; a "
        "ratio is taken within a round, and its spread is the lowest and the highest of them. Our "
        f"store holds the newest {how['events_of_a_user']} events of each user "
        f"({how['events']:,}), which every request reads: from what the service keeps at hand, "
        "where they all fit."
    )
    if "stores" in found:
        told += " The last rows are of stores that it has to read ([below](#the-event-store))."
    told = " ".join((told, *_wrong(found)))
    head = ("ours", "aim", "found", "spread", "reached")
    return f"## The aims\n\n{told}\n\n" + table(head, rows)


def _earlier(found: Found) -> str:
    """The same ratios in the runs before this one, newest first; nothing where there was none."""
    others = found.get("earlier", ())
    if not others:
        return ""
    told = "What the runs before found, newest first, each at its hour and with the code of then."
    head = ("ours", *(f"{one['cpu']}, {one['cores']} cores, {one['date']}" for one in others))
    rows = [
        (what, *(f"{one['aims'][what]:.2f}" if what in one["aims"] else "–" for one in others))
        for what, *_ in aims(found)
    ]
    return f"### In earlier runs\n\n{told}\n\n" + table(head, rows)


def _wrong(found: Found) -> list[str]:
    """What was not answered, or not rightly; nothing, as a rule."""
    counts: dict[str, list[int]] = {}
    behind: dict[str, list[bool]] = {}
    for sides in (*found["rates"].values(), *found["lengths"].values()):
        for name, rounds in sides.items():
            total = counts.setdefault(name, [0, 0])
            total[0] += sum(int(one["wrong"]) for one in rounds)
            total[1] += sum(int(one["asked"]) for one in rounds)
            behind.setdefault(name, []).extend(bool(one["behind"]) for one in rounds)
    told = [
        f"Of {asked:,} answers of {name}, {wrong:,} were not right."
        for name, (wrong, asked) in counts.items()
        if wrong
    ]
    if waited := sum(map(sum, behind.values())):
        runs = ", ".join(f"{sum(all_of_it)} of {name}" for name, all_of_it in behind.items())
        told.append(
            f"In {waited} runs the generator had no core to spare ({runs}): their latencies are "
            "partly its own."
        )
    return told


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
        rows = [(name, *figures_of(rounds)) for name, rounds in sides.items()]
        parts += [f"{count} connection{'s' if count != '1' else ''}:", table(COLUMNS, rows)]
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
            (name, *figures_of(rounds), ratio_cells(ratio(ours, rounds, "rate"))[0])
            for name, rounds in sides.items()
        ]
        parts += [f"Bucket {bucket}:", table((*COLUMNS, "ours, requests/s"), rows)]
    return "\n\n".join(parts)


STORES = """
## The event store

`python benchmarks/serving_stores.py REPOSITORY`: users that the release does not know, each with
the newest events of one that it knows, {users:,} users and {events:,} events; of an SQLite store
the service keeps {at_hand:,} events at hand, of Redis none. So whoever asks is read from the
store; with the history sent, the same users are asked for and nothing is read. Medians of {rounds}
rounds of {seconds:g} s; CPU is that of the service and Triton, without the redis-server's. Answers
for which the store was late are counted as not right: {late}. {redis} {where}
"""


def _stores(s: Found) -> str:
    names = {name for sides in s["rates"].values() for name in sides} - set(INLINE_OF.values())
    late = {name: sum(int(one["wrong"]) for sides in s["rates"].values() for one in sides[name])
            for name in sorted(names)}  # fmt: skip
    redis = f"Redis {s['redis']}, every write synced." if s["redis"] else f"No {REDIS}: none here."
    told = STORES.strip().format(
        **{key: s[key] for key in ("users", "events", "at_hand", "rounds", "seconds")},
        late=", ".join(f"{count:,} ({name})" for name, count in late.items()),
        redis=redis,
        where=_where(s),
    )
    parts = [told]
    for count, sides in s["rates"].items():
        rows = [(name, *figures_of(rounds)) for name, rounds in sides.items()]
        parts += [f"{count} connections:", table(COLUMNS, rows)]
    return "\n\n".join(parts)


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


def _overload_apart(s: Found) -> str:
    """With cores of its own the generator takes nothing from those who answer."""
    return _overload(s, title="Overload, the generator on cores of its own", options=" APART=1")


def _overload(s: Found, title: str = "Overload", options: str = "") -> str:
    refused = s["refused_ms"].get("p99", 0.0)  # nothing refused: nobody waited for it
    rows = [
        ("accepted: slowest of a thousand", f"within the deadline of {s['deadline_ms']} ms",
         f"{s['accepted_ms']['p99.9']:.0f} ms", s["accepted_ms"]["p99.9"] <= s["deadline_ms"]),
        ("the same of a hundred, in the worst second", f"within {s['deadline_ms']} ms",
         f"{s['worst_ms']:.0f} ms", s["worst_ms"] <= s["deadline_ms"]),
        ("refused with 429: slowest of a hundred", "within 50 ms", f"{refused:.0f} ms",
         refused <= 50),
        ("right answers a second, of capacity", "at least 80%", f"{s['goodput']:.0%}",
         s["goodput"] >= 0.8),
        ("neither right, refused nor popular items", "none",
         f"{s['errors']} of {s['requests']:,}", s["errors"] == 0),
        ("normal again", "within 5 s", f"after {s['normal_s']} s" if s["normal_s"] is not None
         else "not within the run", s["normal_s"] is not None and s["normal_s"] <= 5),
        ("the generator kept up", "", s["why_behind"] or "yes", not s["why_behind"]),
    ]  # fmt: skip
    told = (
        f"`make bench-overload{options}`: {s['factor']:g} x the {s['capacity']:,.0f}/s of 64 "
        f"connections for {s['seconds']:g} s, half of it before and after. Popular items instead "
        f"of a model's answer: {s['fallbacks']:,}. {_where(s)}"
    )
    return f"## {title}\n\n{told}\n\n{_checked(rows)}"


def _where(s: Found) -> str:
    m = s["machine"]
    ours = m["paths"].get(OURS, {}).get("settings")  # older figures are of the defaults
    under = f" Ours under {told_of(ours)}." if ours else ""
    return (
        f"{m['cpu']}, {m['cores']} cores, load {m['load_before']:.1f} before, {m['date']}.{under}"
    )


def _checked(rows: Sequence[tuple[str, str, str, bool]]) -> str:
    told = [(what, aim, found, "yes" if reached else "**no**")
            for what, aim, found, reached in rows]  # fmt: skip
    return table(("", "aim", "found", "reached"), told)


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
