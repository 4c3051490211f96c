"""A report -> what a terminal shows: the figures, then a line for each kind of fault."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rich.console import Group
from rich.table import Table
from rich.text import Text

from client.load.report import Report, Share

SHOWN = ("mean", "p50", "p95", "p99", "max")


def table(found: Report) -> Group:
    pace = Table("requests", box=None, pad_edge=False)
    row = [f"{found.requests:,}"]
    if found.offered_rate is None:
        pace.add_column("callers")
        row.append(str(found.concurrency))
    else:
        pace.add_column("due/s")
        row.append(f"{found.offered_rate:,.0f}")
    pace.add_column("seconds")
    pace.add_column("right/s")
    row += [f"{found.elapsed_s:.1f}", f"{found.throughput:,.0f}"]
    for name in SHOWN if found.latency_ms else ():
        pace.add_column(f"{name} ms", justify="right")
        row.append(f"{found.latency_ms[name]:.2f}")
    pace.add_row(*row)
    shown: list[Text | Table] = [
        Text(f"{found.target}, release {found.answered_by or found.release}"),
        pace,
    ]
    if len(found.by) > 1:
        shown.append(_shares("endpoint", found.by))
    if len(found.lengths) > 1:
        shown.append(_shares("history", found.lengths))
    return Group(*shown, *_lines(found))


def _shares(title: str, shares: Mapping[str, Share] | Mapping[int, Share]) -> Table:
    rows = Table(title, "requests", "right", box=None, pad_edge=False)
    for name in ("p50", "p95", "p99"):
        rows.add_column(f"{name} ms", justify="right")
    for of, share in shares.items():
        took = [
            f"{share.latency_ms[p]:.2f}" if share.latency_ms else "" for p in ("p50", "p95", "p99")
        ]
        rows.add_row(str(of), f"{share.requests:,}", f"{share.right:,}", *took)
    return rows


def _lines(found: Report) -> Iterator[Text]:
    for kind, count in found.refused.items():
        late = found.refused_ms["p99"]
        yield Text(f"{count:,} refused: {kind} (p99 of refusals {late:.1f} ms)", "yellow")
    for kind, count in found.errors.items():
        yield Text(f"{count:,} without an answer: {kind}", "red")
    if found.fallbacks:
        yield Text(f"p99 of fallbacks {found.fallback_ms['p99']:.1f} ms", "red")
    for kind, count in found.wrong.items():
        yield Text(f"{count:,} answered wrongly: {kind}", "red")
    yield Text(_generator(found), "dim")


def _generator(found: Report) -> str:
    processes = "" if found.processes == 1 else f", in {found.processes} processes,"
    said = f"The generator{processes} used {found.cpu_s:.1f} s of CPU time"
    said += f", and was busy for {min(found.busy, 1):.0%} of the time"
    if found.lag_ms and found.offered_rate is not None:
        said += f"; it sent 99% of them at most {found.lag_ms['p99']:.2f} ms late"
        if found.adds_ms:
            said += f", which adds {found.adds_ms['p99']:.2f} ms to the p99"
    return f"{said}."
