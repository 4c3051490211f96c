"""A result -> one HTML page: no script, no network, light and dark.

headline (what was asked, what came of it) -> objectives and the search -> comparison -> phases of
a command -> latency, time, endpoints, history lengths -> faults, cost, what else was measured ->
what was asked, to run it again
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from client.load.during import During
from client.load.report import PERCENTILES, Report, Second, Share
from client.load.result import Result
from client.load.shown.asked import asked
from client.load.shown.marks import SHOWN, known, legend, ms, point
from client.load.shown.sections import compared, phases, search, verdicts
from recommender.report.charts import Point, Series, intervals, lines
from recommender.report.markup import Node, Row, e, figure, html, table

_MOST_SECONDS = 240  # points of a line over time: more would be one black band


def page(result: Result) -> str:
    report = result.report
    return html(
        f"recserve load: {_title(result)}",
        _headline(result),
        search(result.search) if result.search else None,
        compared(result.compare) if result.compare else None,
        phases(result.during) if result.during else None,
        _latency(report) if report else None,
        _time(report, result.during) if report else None,
        _shares("By endpoint", "endpoint", report.by) if report else None,
        _shares("By length of the history", "history, up to", report.lengths) if report else None,
        _rest(result),
        _plan(result),
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
        if found is None:
            return "B against A"
        even = "" if found.clear else ", which is not told apart from it"
        return f"B does {found.median:.2f} times A's rate{even}"
    assert result.report is not None
    p99 = result.report.latency_ms.get("p99")
    tail = "no answer" if p99 is None else f"p99 {ms(p99)}"
    return f"{result.report.throughput:,.0f} right answers/s, {tail}"


def _headline(result: Result) -> Node:
    report = result.report
    return e(
        "header",
        e("p", "recserve load", class_="kicker"),
        e("h1", _title(result)),
        e("p", _asked(result), class_="lede"),
        e("p", _pace(report)) if report else None,
        e("p", f"No measurement: the generator could not keep up, {report.why_behind}. "
               f"{report.remedy}", class_="bad") if report and not result.measured else None,
        verdicts(result.verdicts) if result.verdicts else None,
    )  # fmt: skip


def _asked(result: Result) -> str:
    if result.compare:
        rounds = len(result.compare.rounds)
        return f"A is {result.compare.a}, B is {result.compare.b}; {rounds} rounds in turns."
    assert result.report is not None
    report = result.report
    return f"{report.target}, release {report.answered_by or report.release}."


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


# --- the run itself


def _latency(report: Report) -> Node | None:
    if not report.latency_ms:
        return None
    at = [*PERCENTILES, "max"]
    series = [Series(name="all answers", points=[point(report.latency_ms[p]) for p in at])]
    if len(report.by) > 1:
        series += [
            Series(name=name, colour=i, points=[point(share.latency_ms.get(p)) for p in at])
            for i, (name, share) in enumerate(report.by.items(), 1)
            if share.latency_ms
        ]
    chart = lines("Latency", at, series, axis="percentile of the answers", log=True)
    figures = [("mean", report.latency_ms["mean"]), *((p, report.latency_ms[p]) for p in at)]
    return e(
        "section",
        e("h2", "Latency"),
        e("div", figure("Latency distribution", chart, "ms, by factors"), class_="charts"),
        legend([(one.colour, one.name) for one in series]) if len(series) > 1 else None,
        table([name for name, _ in figures], [[ms(value) for _, value in figures]]),
    )


def _time(report: Report, during: During | None) -> Node | None:
    seconds = report.seconds
    if len(seconds) < 2 or not report.latency_ms:
        return None
    step = math.ceil(len(seconds) / _MOST_SECONDS)
    labels = [str(one.second) for one in seconds[::step]]
    edges: list[float] = []
    if during:
        edges = [during.command.began_s, during.command.ended_s]
    marked = [min(round(edge / step), len(labels) - 1) for edge in edges]
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
    over, by = "Latency over time", "Requests over time"
    note = "dashed: the command began and ended" if during else ""
    latency = lines(over, labels, took, axis="seconds", log=True, marked=marked)
    requests = lines(by, labels, rates, axis="seconds", marked=marked)
    each = f" Each point is the worst, or the mean, of {step} seconds." if step > 1 else ""
    return e(
        "section",
        e("h2", "Over time"),
        e(
            "div",
            e("div", figure("Latency of each second", latency, "ms, by factors"),
              legend([(one.colour, one.name) for one in took])),
            e("div", figure("Requests each second", requests, note),
              legend([(one.colour, one.name) for one in rates])),
            class_="charts",
        ),
        e("p", f"A request counts in the second in which it was due.{each}", class_="soft"),
    )  # fmt: skip


def _parts(seconds: Sequence[Second], step: int) -> list[Sequence[Second]]:
    return [seconds[at : at + step] for at in range(0, len(seconds), step)]


def _worst(part: Sequence[Second], name: str) -> Point | None:
    took = [value for one in part if (value := getattr(one, f"{name}_ms")) is not None]
    return point(max(took)) if took else None


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
         *(ms(one.latency_ms.get(p)) for p in SHOWN)]
        for name, one in shares.items()
    ]  # fmt: skip
    series = [
        Series(name=p, colour=i, points=[point(one.latency_ms.get(p)) for one in shares.values()])
        for i, p in enumerate(("p50", "p95", "p99"))
    ]
    names = [str(name) for name in shares]
    return e(
        "section",
        e("h2", title),
        e("div", figure("Latency", intervals(title, names, series), "ms"), class_="charts")
        if known(series) else None,
        legend([(0, "p50"), (1, "p95"), (2, "p99")]),
        table([column, "requests", "not right", *SHOWN], rows),
    )  # fmt: skip


def _rest(result: Result) -> Node | None:
    report = result.report
    if report is None:
        return _costs(result)
    faults: list[Row] = [
        *([kind, f"{count:,}", "refused"] for kind, count in report.refused.items()),
        *([kind, f"{count:,}", "no answer"] for kind, count in report.errors.items()),
        *([kind, f"{count:,}", "wrong answer"] for kind, count in report.wrong.items()),
    ]
    if report.unsent:
        faults.append(["the generator gave up", f"{report.unsent:,}", "not measured"])
    apart = {"refusals": report.refused_ms, "fallbacks": report.fallback_ms}
    took: list[Row] = [
        [name, *(ms(found[p]) for p in SHOWN)] for name, found in apart.items() if found
    ]
    return e(
        "section",
        e("h2", "What else was seen"),
        table(["fault", "requests", ""], faults) if faults else
        e("p", "No request was refused, and none went without a right answer."),
        table(["latency apart", *SHOWN], took) if took else None,
        e("p", result.cost.said()) if result.cost else None,
        e("p", _generator(report)),
    )  # fmt: skip


def _costs(result: Result) -> Node | None:
    """Of both sides of a comparison."""
    said = [e("p", f"{side.upper()}: {cost.said()}") for side, cost in result.costs.items()]
    return e("section", e("h2", "What it cost"), *said) if said else None


def _plan(result: Result) -> Node:
    rows: list[Row] = [
        [name, e("td", words, class_="words")]
        for name, words in asked(result.plan, result.search).items()
    ]
    return e(
        "section",
        e("h2", "What was asked"),
        table(["setting", ""], rows),
        e("p", f"{result.machine}, {result.at}.", class_="soft"),
    )


def _generator(report: Report) -> str:
    late = ", ".join(f"{name} {ms(value)}" for name, value in report.lag_ms.items())
    processes = "one process" if report.processes == 1 else f"{report.processes} processes"
    adds = ", ".join(f"{name} {ms(value)}" for name, value in report.adds_ms.items())
    said = (
        f"The generator: {processes}, {report.cpu_s:.1f} s of CPU time, busy for "
        f"{min(report.busy, 1):.0%} of the time"
    )
    if report.offered_rate is None:
        return f"{said}."
    return f"{said}; it sent late by {late}, which adds to the latency: {adds or 'nothing known'}."
