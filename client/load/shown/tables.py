"""A result -> what a terminal shows: the run's own table, then what was wanted besides it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from client.load.compare import Comparison
from client.load.during import During
from client.load.objective import Found, Verdict
from client.load.report import Report
from client.load.result import Result
from client.load.shown.asked import asked
from client.load.shown.table import table

HELD, MISSED = Text("holds", "green"), Text("missed", "red")
NONE = Text("no measurement", "yellow")


def tables(result: Result) -> Group:
    return Group(*_parts(result))


def _parts(result: Result) -> Iterator[RenderableType]:
    if result.search:
        yield _search(result.search)
        yield Text(result.search.said(), "bold")
    if result.compare:
        yield _compared(result.compare)
        for side, cost in result.costs.items():
            yield Text(f"{side.upper()}: {cost.said()}")
    if result.report:
        yield table(result.report)
    yield _asked(result)
    if result.report and result.report.behind:
        yield _behind(result.report, result.measured)
    if result.during:
        yield _phases(result.during)
        yield _command(result.during)
    if result.verdicts:
        yield _verdicts(result.verdicts)
    if result.cost:
        yield Text(result.cost.said())


def _asked(result: Result) -> Text:
    said = "; ".join(f"{name} {words}" for name, words in asked(result.plan, result.search).items())
    return Text(f"Asked: {said}. On {result.machine}, {result.at}.", "dim")


def _behind(found: Report, measured: bool) -> Text:
    if measured:
        why = f"The generator itself was slow ({found.why_behind}): latencies are at most too long."
        return Text(why, "yellow")
    return Text(
        f"No measurement: the generator could not keep up, {found.why_behind}. {found.remedy}",
        "bold red",
    )


def _search(found: Found) -> Table:
    rows = Table("due/s", "requests", box=None, pad_edge=False)
    for name in ("p50", "p95", "p99"):
        rows.add_column(f"{name} ms", justify="right")
    rows.add_column("not right", justify="right")
    rows.add_column("")
    for trial in found.trials:
        one = trial.report
        verdict = HELD if trial.held else NONE if trial.starved else MISSED
        rows.add_row(f"{trial.rate:,.1f}", f"{one.requests:,}", *_took(one.latency_ms),
                     f"{one.requests - one.right:,}", verdict)  # fmt: skip
    return rows


def _took(latency_ms: Mapping[str, float]) -> list[str]:
    return [f"{latency_ms[p]:.2f}" if p in latency_ms else "" for p in ("p50", "p95", "p99")]


def _compared(found: Comparison) -> Group:
    rows = Table("B by A", "median", "interval", "confidence", "", box=None, pad_edge=False)
    for name, one in found.ratios.items():
        ahead = "B" if (one.median > 1) == (name == "throughput") else "A"
        rows.add_row(name, f"{one.median:.3f}", f"{one.low:.3f} to {one.high:.3f}",
                     f"{one.confidence:.1%}", f"{ahead} is ahead" if one.clear else "")  # fmt: skip
    faults = sum(one.requests - one.right for pair in found.rounds for one in pair)
    said: list[Text | Table] = [Text(f"A {found.a}"), Text(f"B {found.b}"), rows]
    if faults:
        said.append(Text(f"{faults:,} requests without a right answer", "red"))
    runs = ((side, run) for pair in found.rounds for side, run in zip("AB", pair, strict=True))
    said += [
        Text(f"A run of {side} is no measurement: {run.why_behind}", "bold red")
        for side, run in runs
        if run.behind
    ]
    return Group(*said)


def _phases(found: During) -> Table:
    rows = Table("", "seconds", "right/s", box=None, pad_edge=False)
    for name in ("p50 ms", "p95 ms", "p99 ms", "errors", "fallbacks", "refused", "releases"):
        rows.add_column(name, justify="right")
    for name, one in found.phases.items():
        rows.add_row(name, f"{one.elapsed_s:.1f}", f"{one.throughput:,.0f}",
                     *_took(one.latency_ms), f"{one.failed:,}", f"{one.fallbacks:,}",
                     f"{sum(one.refused.values()):,}", one.answered_by)  # fmt: skip
    return rows


def _command(found: During) -> Group:
    one = found.command
    took = f"from {one.began_s:.1f} s to {one.ended_s:.1f} s"
    style = "red" if one.code else "green"
    said = [Text(f"{one.line}: exit code {one.code}, {took}", style)]
    if one.output:
        said.append(Text(one.output, "dim"))
    if "after" not in found.phases:
        said.append(Text("It outlived the run: ask for a longer --duration.", "yellow"))
    return Group(*said)


def _verdicts(found: Sequence[Verdict]) -> Table:
    rows = Table("objective", "reached", "", box=None, pad_edge=False)
    for one in found:
        rows.add_row(one.objective, one.shown, HELD if one.held else MISSED)
    return rows
