"""A result -> one HTML page: no script, no network, light and dark.

headline (what was asked, what came of it) -> objectives and the search -> comparison -> phases of
a command -> latency, time, endpoints, history lengths -> faults, cost, what else was measured
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from client.load.compare import Comparison
from client.load.during import During
from client.load.objective import Found, Verdict
from client.load.report import PERCENTILES, Report, Second, Share
from client.load.result import Result
from recommender.report.charts import Dot, Point, Series, dots, intervals, lines, swatch
from recommender.report.markup import Node, Row, details, e, figure, html, table

_SHOWN = ("p50", "p95", "p99", "max")
_HELD, _MISSED, _LAST = 0, 1, 2  # colours, and so shapes, of a search's marks
_MOST_SECONDS = 240  # points of a line over time: more would be one black band
_NAMES = {"throughput": "throughput", "p50": "p50", "p95": "p95", "p99": "p99"}


def page(result: Result) -> str:
    report = result.report
    return html(
        f"recserve load: {_title(result)}",
        _headline(result),
        _search(result.search) if result.search else None,
        _compared(result.compare) if result.compare else None,
        _phases(result.during) if result.during else None,
        _latency(report) if report else None,
        _time(report, result.during) if report else None,
        _shares("By endpoint", "endpoint", report.by) if report else None,
        _shares("By length of the history", "history, up to", report.lengths) if report else None,
        _rest(result) if report else None,
    )


# --- what came of it


def _title(result: Result) -> str:
    if result.search:
        rate, aims = result.search.rate, result.search.aims
        if rate is None:
            return f"no rate holds {aims}"
        at_least = "at least " if result.search.missed is None else ""
        return f"{at_least}{rate:,.0f} requests/s hold {aims}"
    if result.compare:
        found = result.compare.ratios.get("throughput")
        return "B against A" if found is None else f"B does {found.median:.2f} times A's rate"
    assert result.report is not None
    p99 = result.report.latency_ms.get("p99")
    tail = "no answer" if p99 is None else f"p99 {_ms(p99)}"
    return f"{result.report.throughput:,.0f} right answers/s, {tail}"


def _headline(result: Result) -> Node:
    report = result.report
    return e(
        "header",
        e("p", "recserve load", class_="kicker"),
        e("h1", _title(result)),
        e("p", _asked(result), class_="lede"),
        e("p", _pace(report)) if report else None,
        e("p", f"No measurement: the generator could not keep up, {report.why_behind}.",
          class_="bad") if report and report.behind else None,
        _verdicts(result.verdicts) if result.verdicts else None,
    )  # fmt: skip


def _asked(result: Result) -> str:
    if result.compare:
        rounds = len(result.compare.rounds)
        return f"A is {result.compare.a}, B is {result.compare.b}; {rounds} rounds in turns."
    assert result.report is not None
    releases = ", ".join(map(str, result.report.releases)) or str(result.report.release)
    return f"{result.report.target}, release {releases}."


def _pace(report: Report) -> str:
    pace = (
        f"{report.concurrency} callers, each asking again when it was answered (a closed loop)"
        if report.offered_rate is None
        else f"{report.offered_rate:,.0f} requests/s due (an open loop); latency counts from the "
        "instant that a request was due"
    )
    return (
        f"{report.requests:,} requests in {report.elapsed_s:.1f} s: {pace}. {report.right:,} were "
        "answered, and the answer passed every check."
    )


def _verdicts(found: Sequence[Verdict]) -> Node:
    rows = [
        [one.objective, one.shown, e("td", "holds" if one.held else "missed",
                                     class_="good" if one.held else "bad")]
        for one in found
    ]  # fmt: skip
    return table(["objective", "reached", ""], rows)


# --- the search, the comparison, the command


def _search(found: Found) -> Node:
    marks = [
        Dot(
            x=trial.rate,
            y=max(trial.report.latency_ms["p99"], 0.01),
            colour=_LAST if trial.last else _HELD if trial.held else _MISSED,
            tip=f"{trial.rate:,.1f}/s: p99 {_ms(trial.report.latency_ms['p99'])}, "
            + ("holds" if trial.held else "missed"),
        )
        for trial in found.trials
        if trial.report.latency_ms
    ]
    chart = dots("p99 by rate", marks, axis="requests/s due", log=True, log_y=True)
    rows: list[Row] = [
        [
            f"{trial.rate:,.1f}",
            f"{trial.report.requests:,}",
            *(_ms(trial.report.latency_ms.get(p)) for p in ("p50", "p95", "p99")),
            f"{sum(trial.report.errors.values()) + sum(trial.report.wrong.values()):,}",
            f"{sum(trial.report.refused.values()):,}",
            _verdict(trial.held, trial.report.behind),
        ]
        for trial in found.trials
    ]
    header = ["requests/s", "requests", "p50", "p95", "p99", "faults", "refused", ""]
    return e(
        "section",
        e("h2", "The search"),
        e("p", found.said()),
        e("div", figure("p99 of every run", chart, "ms by rate, both by factors"),
          class_="charts") if marks else None,
        _legend([(_HELD, "holds"), (_MISSED, "missed"), (_LAST, "the long run at the end")]),
        details(f"All {len(found.trials)} runs", table(header, rows)),
    )  # fmt: skip


def _verdict(held: bool, behind: bool) -> Node:
    if behind:
        return e("td", "no measurement", class_="note")
    return e("td", "holds" if held else "missed", class_="good" if held else "bad")


def _compared(found: Comparison) -> Node:
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
         *(_ms(one.latency_ms.get(p)) for p in ("p50", "p95", "p99")),
         f"{one.requests - one.right:,}"]
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
            ["round", "right/s", "p50", "p95", "p99", "not right"], sides)),
    )  # fmt: skip


def _phases(found: During) -> Node:
    command = found.command
    rows: list[Row] = [
        [
            name,
            f"{one.elapsed_s:.1f} s",
            f"{one.throughput:,.0f}",
            *(_ms(one.latency_ms.get(p)) for p in _SHOWN),
            f"{sum(one.errors.values()) + sum(one.wrong.values()) - one.fallbacks:,}",
            f"{one.fallbacks:,}",
            f"{sum(one.refused.values()):,}",
        ]
        for name, one in found.phases.items()
    ]
    names = list(found.phases)
    series = [
        Series(name=p, colour=i, points=[_point(one.latency_ms.get(p))
                                         for one in found.phases.values()])
        for i, p in enumerate(("p50", "p95", "p99"))
    ]  # fmt: skip
    header = ["", "for", "right/s", *_SHOWN, "errors", "fallbacks", "refused"]
    return e(
        "section",
        e("h2", "Before, during and after"),
        e("p", e("code", command.line), f" ran from {command.began_s:.1f} s to "
               f"{command.ended_s:.1f} s and ended with ",
          e("span", f"exit code {command.code}", class_="bad" if command.code else "good"), "."),
        e("div", figure("Latency", intervals("Latency by phase", names, series), "ms"),
          class_="charts") if _known(series) else None,
        _legend([(0, "p50"), (1, "p95"), (2, "p99")]),
        table(header, rows),
        details("What it printed", e("pre", e("code", command.output)))
        if command.output else None,
    )  # fmt: skip


# --- the run itself


def _latency(report: Report) -> Node | None:
    if not report.latency_ms:
        return None
    at = [*PERCENTILES, "max"]
    series = [Series(name="all answers", points=[_point(report.latency_ms[p]) for p in at])]
    if len(report.by) > 1:
        series += [
            Series(name=name, colour=i, points=[_point(share.latency_ms.get(p)) for p in at])
            for i, (name, share) in enumerate(report.by.items(), 1)
            if share.latency_ms
        ]
    chart = lines("Latency", at, series, axis="percentile of the answers", log=True)
    sorted_out = [("mean", report.latency_ms["mean"]), *((p, report.latency_ms[p]) for p in at)]
    return e(
        "section",
        e("h2", "Latency"),
        e("div", figure("Latency distribution", chart, "ms, by factors"), class_="charts"),
        _legend([(one.colour, one.name) for one in series]) if len(series) > 1 else None,
        table([name for name, _ in sorted_out], [[_ms(ms) for _, ms in sorted_out]]),
    )


def _time(report: Report, during: During | None) -> Node | None:
    seconds = report.seconds
    if len(seconds) < 2:
        return None
    step = math.ceil(len(seconds) / _MOST_SECONDS)
    labels = [str(one.second) for one in seconds[::step]]
    edges: list[float] = []
    if during:
        edges = [during.command.began_s, during.command.ended_s]
    marked = [min(int(edge / step), len(labels) - 1) for edge in edges]
    took = [
        Series(
            name=name, colour=colour, points=[_worst(part, name) for part in _parts(seconds, step)]
        )
        for colour, name in enumerate(("p50", "p99"))
    ]
    fates = ["sent", "right", "refused", "errors"]
    rates = [
        Series(
            name=name, colour=colour, points=[_mean(part, name) for part in _parts(seconds, step)]
        )
        for colour, name in enumerate(fates)
        if name in ("sent", "right") or any(getattr(one, name) for one in seconds)
    ]
    note = "dashed: the command began and ended" if during else ""
    return e(
        "section",
        e("h2", "Over time"),
        e(
            "div",
            figure("Latency of each second", lines("Latency over time", labels, took, axis="seconds",
                   log=True, marked=marked), f"ms, by factors; {note}".rstrip("; "))
            if _known(took) else None,
            figure("Requests each second", lines("Requests over time", labels, rates,
                   axis="seconds", marked=marked), note),
            class_="charts",
        ),
        _legend([(one.colour, one.name) for one in took]),
        _legend([(one.colour, one.name) for one in rates]),
        e("p", "A request counts in the second in which it was due."
               + (f" Each point is the worst, or the mean, of {step} seconds." if step > 1 else ""),
          class_="soft"),
    )  # fmt: skip


def _parts(seconds: Sequence[Second], step: int) -> list[Sequence[Second]]:
    return [seconds[at : at + step] for at in range(0, len(seconds), step)]


def _worst(part: Sequence[Second], name: str) -> Point | None:
    took = [ms for one in part if (ms := getattr(one, f"{name}_ms")) is not None]
    return _point(max(took)) if took else None


def _mean(part: Sequence[Second], name: str) -> Point:
    mean = sum(getattr(one, name) for one in part) / len(part)
    return Point(mean=mean, low=mean, high=mean)


def _shares(
    title: str, column: str, shares: Mapping[str, Share] | Mapping[int, Share]
) -> Node | None:
    if len(shares) < 2:
        return None
    rows: list[Row] = [
        [str(name), f"{one.requests:,}", f"{one.requests - one.right:,}",
         *(_ms(one.latency_ms.get(p)) for p in _SHOWN)]
        for name, one in shares.items()
    ]  # fmt: skip
    series = [
        Series(name=p, colour=i, points=[_point(one.latency_ms.get(p)) for one in shares.values()])
        for i, p in enumerate(("p50", "p95", "p99"))
    ]
    names = [str(name) for name in shares]
    return e(
        "section",
        e("h2", title),
        e("div", figure("Latency", intervals(title, names, series), "ms"), class_="charts")
        if _known(series) else None,
        _legend([(0, "p50"), (1, "p95"), (2, "p99")]),
        table([column, "requests", "not right", *_SHOWN], rows),
    )  # fmt: skip


def _rest(result: Result) -> Node:
    report = result.report
    assert report is not None
    faults: list[Row] = [
        *([kind, f"{count:,}", "refused"] for kind, count in report.refused.items()),
        *([kind, f"{count:,}", "no answer"] for kind, count in report.errors.items()),
        *([kind, f"{count:,}", "wrong answer"] for kind, count in report.wrong.items()),
    ]
    lag = ", ".join(f"{name} {_ms(ms)}" for name, ms in report.lag_ms.items())
    return e(
        "section",
        e("h2", "What else was seen"),
        table(["fault", "requests", ""], faults) if faults else
        e("p", "No request was refused, and none went without a right answer."),
        e("p", result.cost.said()) if result.cost else None,
        e("p", f"The generator: {report.processes} process(es), {report.cpu_s:.1f} s of CPU time; "
               f"it sent late by {lag}." if lag else "The generator sent nothing."),
        e("p", f"{result.machine}, {result.at}.", class_="soft"),
    )  # fmt: skip


# --- small things


def _legend(marks: Sequence[tuple[int, str]]) -> Node:
    return e("ul", *(e("li", swatch(colour), name) for colour, name in marks), class_="legend")


def _point(ms: float | None) -> Point | None:
    return None if ms is None else Point(mean=max(ms, 0.01), low=max(ms, 0.01), high=max(ms, 0.01))


def _known(series: Sequence[Series]) -> bool:
    return any(point is not None for one in series for point in one.points)


def _ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"
