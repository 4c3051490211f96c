"""What was wanted besides the run -> sections of the page: objectives, the search, the comparison,
the phases of a command."""

from __future__ import annotations

from collections.abc import Sequence

from client.load.compare import Comparison
from client.load.during import During
from client.load.objective import Found, Trial, Verdict
from client.load.shown.marks import SHOWN, known, legend, ms, point
from recommender.report.charts import Dot, Point, Series, dots, intervals
from recommender.report.markup import Node, Row, details, e, figure, table

_HELD, _MISSED, _LAST = 0, 1, 2  # colours, and so shapes, of a search's marks


def verdicts(found: Sequence[Verdict]) -> Node:
    rows: list[Row] = [
        [one.objective, one.shown, e("td", "holds" if one.held else "missed",
                                     class_="good" if one.held else "bad")]
        for one in found
    ]  # fmt: skip
    return table(["objective", "reached", ""], rows)


def search(found: Found) -> Node:
    marks = [
        Dot(
            x=trial.rate,
            y=max(trial.report.latency_ms["p99"], 0.01),
            colour=_LAST if trial.last else _HELD if trial.held else _MISSED,
            tip=f"{trial.rate:,.1f}/s: p99 {ms(trial.report.latency_ms['p99'])}, "
            + ("holds" if trial.held else "missed"),
        )
        for trial in found.trials
        if trial.report.latency_ms
    ]
    chart = dots("p99 by rate", marks, axis="requests/s due", log_y=True)
    rows: list[Row] = [
        [
            f"{trial.rate:,.1f}",
            f"{trial.report.requests:,}",
            *(ms(trial.report.latency_ms.get(p)) for p in ("p50", "p95", "p99")),
            f"{trial.report.failed + trial.report.fallbacks:,}",
            f"{sum(trial.report.refused.values()):,}",
            _verdict(trial),
        ]
        for trial in found.trials
    ]
    header = ["requests/s", "requests", "p50", "p95", "p99", "faults", "refused", ""]
    return e(
        "section",
        e("h2", "The search"),
        e("p", found.said()),
        e("div", figure("p99 of every run", chart, "ms, by factors"),
          class_="charts") if marks else None,
        legend([(_HELD, "holds"), (_MISSED, "missed"), (_LAST, "the long run at the end")]),
        details(f"All {len(found.trials)} runs", table(header, rows)),
    )  # fmt: skip


def _verdict(trial: Trial) -> Node:
    if trial.starved:
        return e("td", "no measurement", class_="note")
    held = trial.held
    return e("td", "holds" if held else "missed", class_="good" if held else "bad")


def compared(found: Comparison) -> Node:
    names = list(found.ratios)
    points = [Point(mean=r.median, low=r.low, high=r.high) for r in found.ratios.values()]
    rows: list[Row] = []
    for name, one in found.ratios.items():
        ahead = (one.median > 1) == (name == "throughput")
        verdict = e("td", "even, or not told apart")
        if one.clear:
            verdict = e("td", "B is ahead" if ahead else "A is ahead",
                        class_="good" if ahead else "bad")  # fmt: skip
        span = f"{one.low:.3f} to {one.high:.3f}"
        rows.append([name, f"{one.median:.3f}", span, f"{one.confidence:.1%}", verdict])
    series = [Series(name="B by A", points=points)]
    chart = intervals("B's figures by A's", names, series, even=1.0) if points else None
    sides: list[Row] = [
        [f"{number + 1}{side}", f"{one.throughput:,.0f}",
         *(ms(one.latency_ms.get(p)) for p in ("p50", "p95", "p99")),
         f"{one.requests - one.right:,}", e("td", one.why_behind, class_="note words")]
        for number, pair in enumerate(found.rounds)
        for side, one in zip("AB", pair, strict=True)
    ]  # fmt: skip
    header = ["B by A", "median", "interval", "confidence", ""]
    return e(
        "section",
        e("h2", "B against A"),
        e("p", "Each round asked both, in an order that turned round, and gave one ratio of each "
               "figure; the interval of their median is exact, by order statistics. A throughput "
               "above 1 speaks for B, a latency above 1 for A."),
        e("div", figure("Ratios", chart, "the dashed line is even"), class_="charts")
        if chart is not None else None,
        table(header, rows),
        details("Every round", table(
            ["round", "right/s", "p50", "p95", "p99", "not right", "no measurement"], sides)),
    )  # fmt: skip


def phases(found: During) -> Node:
    command = found.command
    rows: list[Row] = [
        [
            name,
            f"{one.elapsed_s:.1f} s",
            f"{one.throughput:,.0f}",
            *(ms(one.latency_ms.get(p)) for p in SHOWN),
            f"{one.failed:,}",
            f"{one.fallbacks:,}",
            f"{sum(one.refused.values()):,}",
            one.answered_by,
        ]
        for name, one in found.phases.items()
    ]
    names = list(found.phases)
    series = [
        Series(name=p, colour=i, points=[point(one.latency_ms.get(p))
                                         for one in found.phases.values()])
        for i, p in enumerate(("p50", "p95", "p99"))
    ]  # fmt: skip
    header = ["", "for", "right/s", *SHOWN, "errors", "fallbacks", "refused", "releases"]
    return e(
        "section",
        e("h2", "Before, during and after"),
        e("p", e("code", command.line), f" ran from {command.began_s:.1f} s to "
               f"{command.ended_s:.1f} s and ended with ",
          e("span", f"exit code {command.code}", class_="bad" if command.code else "good"), "."),
        e("div", figure("Latency", intervals("Latency by phase", names, series), "ms"),
          class_="charts") if known(series) else None,
        legend([(0, "p50"), (1, "p95"), (2, "p99")]),
        table(header, rows),
        details("What it printed", e("pre", e("code", command.output)))
        if command.output else None,
    )  # fmt: skip
