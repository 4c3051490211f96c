"""A contest's entries -> a table in the terminal, JSON, and a page of plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from autoscaling import judge
from autoscaling.cluster import Setting, StartUp
from autoscaling.contest import Entry, Others
from autoscaling.hpa import SYNC_S, Spec
from autoscaling.judge import Verdict
from rich.table import Table

from recommender.contract import Array
from recommender.report.charts import Point, Series, lines, swatch
from recommender.report.markup import Node, e, html
from recommender.report.sections import figure, table

POINTS = 96  # of a chart
HEADER = ("", "replica hours", "by oracle's", "in time", "in good intervals", "mean queue, ms",
          "p99, ms", "worst p99, ms", "most pods", "turns in 10 min")  # fmt: skip
CHECKS = ("share of capacity", "requests/s", "client late (p99), ms", "queue, us: measured",
          "model", "p50, ms: measured", "model", "p99, ms: measured", "model")  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Study:
    """All that a report shows."""

    entries: tuple[Entry, ...]
    others: Others  # ours on other days, start-ups, sizes
    rates: Array
    setting: Setting
    ours: Spec
    objective_s: float
    early_hours: float
    price: float | None  # of a pod's hour
    about: str  # the day, in words
    crowd_at_s: float | None


def cells(name: str, v: Verdict) -> tuple[str, ...]:
    return (
        name, f"{v.replica_hours:.1f}", f"{v.cost:.2f}", f"{v.in_time:.2%}",
        f"{v.in_good_time:.2%}", f"{v.queue_ms:.2f}", f"{v.p99_ms:.1f}", f"{v.worst_p99_ms:.0f}",
        str(v.most), str(v.changes),
    )  # fmt: skip


def terminal(study: Study) -> list[Table]:
    first, second = Table(*HEADER, box=None), Table(*HEADER, box=None)
    for one in study.entries:
        first.add_row(*cells(one.name, one.verdict))
    for name, verdict in study.others.items():
        second.add_row(*cells(f"ours, {name}", verdict))
    return [first, second] if study.others else [first]


def checks(study: Study) -> Table:
    shown = Table(*CHECKS, box=None)
    for row in _check_rows(study):
        shown.add_row(*row)
    return shown


def _check_rows(study: Study) -> list[list[str]]:
    return [
        [f"{one.share:.0%}", f"{one.rate:,.0f}", f"{one.late_ms:.1f}",
         f"{one.queue_us[0]:,.0f}", f"{one.queue_us[1]:,.0f}",
         *(f"{value:.1f}" for value in (*one.p50_ms, *one.p99_ms))]
        for one in study.setting.service.checks
    ]  # fmt: skip


def as_json(study: Study) -> dict[str, Any]:
    return {
        "objective_ms": study.objective_s * 1e3,
        "day": study.about,
        "service": asdict(study.setting.service),
        "start_up": asdict(study.setting.start_up),
        "settings": {one.name: {**asdict(one.verdict), "holds": one.verdict.holds,
                                "spec": asdict(one.spec) if one.spec else None}
                     for one in study.entries},
        "oracle_that_pays_for_starts_hours": study.early_hours,
        "ours_elsewhere": {
            name: {**asdict(v), "holds": v.holds} for name, v in study.others.items()
        },
    }  # fmt: skip


# --- the page


def page(study: Study) -> str:
    v = study.entries[0].verdict
    title = "Ours holds" if v.holds else "Ours does not hold"
    return html(
        f"Autoscaling: {title}",
        e(
            "header",
            e("p", "recserve · make bench-autoscaling", class_="kicker"),
            e("h1", f"{title} its objective"),
            e("p", f"{v.in_time:.2%} of requests within {study.objective_s * 1e3:g} ms (at least "
              f"{judge.IN_TIME:.1%}), at {v.cost:.2f} times the oracle's replicas (at most "
              f"{judge.COST}), {v.changes} changes of direction in any ten minutes (at most "
              f"{judge.CHANGES}).", class_="lede"),
            e("p", f"A simulation. {study.about} {machine(study)}"),
        ),
        _plots(study, "The day", 0, len(study.rates)),
        _crowd(study),
        _figures(study),
        _validation(study),
    )  # fmt: skip


def machine(study: Study) -> str:
    service = study.setting.service
    return (
        f"Service times of {service.model} on {service.machine} ({service.taken}): a batch of 1 "
        f"takes {service.batch_s[0] * 1e3:.1f} ms, one of {service.max_batch} "
        f"{service.batch_s[-1] * 1e3:.1f} ms, so a pod can do {service.capacity:,.0f} requests/s. "
        f"{_started(study.setting.start_up)}"
    )


def _started(took: StartUp) -> str:
    return (
        f"A pod starts in {took.pending_s:g} s (node, image, release) and {took.load_s:.1f} s "
        f"(Triton, models, warm-up), is seen ready up to {took.probe_s:g} s later and gets its "
        f"full share of traffic {took.spread_s:g} s after that."
    )


def _drawn(study: Study) -> list[Entry]:
    """Few enough for one chart: ours, scaling on CPU and on the duty cycle as usual, the oracle."""
    return [one for one in study.entries if "alone" not in one.name and "best" not in one.name]


def _crowd(study: Study) -> Node | None:
    if study.crowd_at_s is None:
        return None
    begin = max(0, int(study.crowd_at_s) - 300)
    return _plots(study, "The flash crowd", begin, min(len(study.rates), begin + 3600))


def _plots(study: Study, title: str, begin: int, end: int) -> Node:
    step = max(SYNC_S, (end - begin) // POINTS // SYNC_S * SYNC_S)
    edges = np.arange(begin, end - step + 1, step)
    labels = [f"{t // 3600:02d}:{t % 3600 // 60:02d}" for t in edges.tolist()]
    drawn = _drawn(study)

    def over(values: Array) -> list[Point | None]:
        found: list[Point | None] = []
        for t in edges.tolist():
            part = values[t // SYNC_S : (t + step) // SYNC_S]
            found.append(
                Point(mean=float(part.mean()), low=float(part.min()), high=float(part.max()))
            )
        return found

    def chart(
        name: str, values: Sequence[Array], note: str, objective: float | None = None
    ) -> Node:
        series = [
            Series(name=one.name, points=over(array), colour=i)
            for i, (one, array) in enumerate(zip(drawn, values, strict=True))
        ]
        if objective is not None:
            line = Point(mean=objective, low=objective, high=objective)
            series.append(Series(name="objective", points=[line] * len(edges), colour=7))
        return figure(name, lines(name, labels, series, axis="time of day"), note)

    came = study.rates[: len(study.rates) // SYNC_S * SYNC_S].reshape(-1, SYNC_S).mean(axis=1)
    traffic = Series(name="requests", points=over(came), colour=7)
    outcomes = [one.outcome for one in drawn]
    marks = [e("li", swatch(i), one.name) for i, one in enumerate(drawn)]
    return e(
        "section",
        e("h2", title),
        e("p", f"Lines are means of {step} s; bands reach from the lowest to the highest interval "
          f"of {SYNC_S} s in them."),
        e("ul", *marks, class_="legend"),
        e("div",
          figure("Requests/s", lines("Requests/s", labels, [traffic], axis="time of day")),
          chart("Replicas", [o.replicas for o in outcomes], "paid for, ready or not"),
          chart("Queue time, ms", [o.wait_s * 1e3 for o in outcomes], "mean of a request"),
          chart("p99, ms", [judge.p99s(o, study.setting) * 1e3 for o in outcomes],
                "who left took the deadline", study.objective_s * 1e3),
          class_="charts"),
    )  # fmt: skip


def _figures(study: Study) -> Node:
    rows = [list(cells(one.name, one.verdict)) for one in study.entries]
    header = list(HEADER)
    if study.price is not None:
        header.append("cost a day")
        for row, one in zip(rows, study.entries, strict=True):
            row.append(f"{one.verdict.replica_hours * study.price:,.2f}")
    by_oracle = study.entries[0].verdict.replica_hours / study.early_hours
    parts: list[Node | None] = [
        e("h2", "Every figure"),
        e("p", "In time: the share of requests answered within the objective. In good intervals: "
          f"the share that came in intervals of {SYNC_S} s whose p99 kept it. The oracle has the "
          "fewest pods in each interval at which p99 keeps the objective, knows the future, and "
          "its pods are there at once and unpaid while they start; against one that starts them "
          f"early and pays for that, ours costs {by_oracle:.2f}."),
        table(header, rows),
    ]  # fmt: skip
    if study.others:
        elsewhere = [cells(name, v) for name, v in study.others.items()]
        parts += [e("h3", "Ours elsewhere"), table(HEADER, elsewhere)]
    return e("section", *parts)


def _validation(study: Study) -> Node | None:
    rows = _check_rows(study)
    if not rows:
        return None
    return e(
        "section",
        e("h2", "The model of the queue against the real Triton"),
        e("p", "Open loops of single rows, the same arrivals for both. The client shares the "
          "machine: its own lateness counts into the measured latencies."),
        table(CHECKS, rows),
    )  # fmt: skip
