"""The plots of a report's page, each with its figures as a table beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from recommender.metrics import Estimate
from recommender.report.charts import Point, Series, intervals, lines, swatch
from recommender.report.markup import Node, Row, details, e, figure, table
from recommender.report.measure import Study

_METRICS = {"ndcg": "NDCG", "hr": "Hit rate", "recall": "Recall", "mrr": "MRR"}

_SLICES = {
    "history length": "the events that were known of the user at the request",
    "target popularity": "targets of one part at a time. Head: the most popular items that share "
    "a third of all training events; middle: the next third; tail: the rest",
    "group": "warm: users with an event in the training part before validation",
}


def signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


def shown(value: Estimate) -> str:
    return f"{value.mean:.4f} ± {value.half:.4f}"


def command(text: str) -> Node:
    return e("pre", e("code", text), tabindex=0)  # scrolls, by keyboard too


def data_digest(digest: str) -> Node:
    told = e("code", "recserve data check DIR --json")
    return e("p", "Data digest ", e("code", digest), ": ", told, " prints that of a folder.")


def named(metric: str) -> str:
    """`ndcg@10` as a heading."""
    name, _, k = metric.partition("@")
    return f"{_METRICS.get(name, name)}@{k}"


def point(value: Estimate) -> Point:
    """As drawn: no metric lies outside 0 and 1, whatever its interval says."""
    low, high = max(0.0, value.mean - value.half), min(1.0, value.mean + value.half)
    return Point(mean=value.mean, low=low, high=high)


def legend(study: Study) -> Node:
    items = [e("li", swatch(i), family) for i, family in enumerate(study.models)]
    return e("ul", *items, class_="legend")


def overview(study: Study) -> Node:
    cutoffs, families = study.figures.cutoffs, list(study.models)
    metrics = [m for m in _METRICS if not (m == "recall" and _one_target(study))]
    rows: list[Row] = []
    for family in families:
        coverage = study.models[family]["all"].get("coverage@10")
        seconds = study.training.get(family, {}).get("seconds")
        values = [shown(cutoffs[family][metric][10]) for metric in metrics]
        covered = f"{coverage['mean']:.1%}" if coverage else "–"
        rows.append([family, *values, covered, f"{seconds:,} s" if seconds is not None else "–"])
    charts = []
    for metric in ("ndcg", "hr"):
        points = [point(cutoffs[family][metric][10]) for family in families]
        chart = intervals(f"{_METRICS[metric]}@10 of every model", families, _one_a_row(points))
        charts.append(figure(f"{_METRICS[metric]}@10", chart, "with 95% intervals"))
    header = ["model", *(f"{_METRICS[metric]}@10" for metric in metrics), "coverage@10", "training"]
    note = (
        "Mean over all test queries ± half a 95% interval. Coverage: the share of the catalogue "
        "that stands among anybody's first ten."
    )
    return e(
        "section",
        e("h2", "Every model at a glance"),
        e("div", *charts, class_="charts"),
        table(header, rows),
        e("p", note, class_="soft"),
    )


def against(study: Study) -> Node | None:
    """Paired bootstrap of the first family against every other."""
    compared = study.figures.comparisons
    if not compared:
        return None
    first = compared[0].first
    charts: list[Node] = []
    rows: list[Row] = []
    for metric in dict.fromkeys(c.metric for c in compared):
        found = [c for c in compared if c.metric == metric]
        name = f"{_METRICS[metric.split('@')[0]]}@10"
        points = [Point(mean=c.difference, low=c.low, high=c.high) for c in found]
        labels = [f"minus {c.other}" for c in found]
        title = f"{name}: {first} minus every other"
        chart = intervals(title, labels, _one_a_row(points, first=1), difference=True)
        charts.append(figure(f"{name} of {first}", chart, "right of the dashed line: better"))
        for c in found:
            verdict = e("td", "no")
            if c.significant:
                ahead = c.difference > 0
                text, colour = ("yes, ahead", "good") if ahead else ("yes, behind", "bad")
                verdict = e("td", text, class_=colour)
            between = f"{signed(c.low)} to {signed(c.high)}"
            rows.append([f"{name} minus {c.other}", signed(c.difference), between,
                         f"{c.above:.1%}", verdict])  # fmt: skip
    header = [f"{first}'s", "difference", "95% interval", "ahead in resamples", "significant"]
    return e(
        "section",
        e("h2", f"{first} against every other"),
        e("p", "Paired bootstrap: the same queries for both, drawn anew 2,000 times."),
        e("div", *charts, class_="charts"),
        table(header, rows),
    )


def _one_a_row(points: Sequence[Point], first: int = 0) -> list[Series]:
    """A series for each row, of a colour of its own: the row's label is its name."""
    return [
        Series(
            name="", colour=first + i, points=[p if i == j else None for j in range(len(points))]
        )
        for i, p in enumerate(points)
    ]


def _one_target(study: Study) -> bool:
    """Then recall is the hit rate."""
    return study.targets == study.queries["all"]


def by_cutoff(study: Study) -> Node:
    cutoffs = study.figures.cutoffs
    ks = [str(k) for k in next(iter(cutoffs.values()))["ndcg"]]
    charts, tables = [], []
    for metric, name in _METRICS.items():
        if metric == "recall" and _one_target(study):
            continue
        series = [
            Series(name=family, points=[point(v) for v in by_metric[metric].values()], colour=i)
            for i, (family, by_metric) in enumerate(cutoffs.items())
        ]
        chart = lines(f"{name} by cut-off", ks, series, axis="cut-off k")
        charts.append(figure(f"{name}@k", chart))
        rows: list[Row] = [
            [family, *(shown(v) for v in by_metric[metric].values())]
            for family, by_metric in cutoffs.items()
        ]
        tables.append(table([name, *(f"@{k}" for k in ks)], rows))
    note = " Every query has one target: recall is the hit rate." if _one_target(study) else ""
    return e(
        "section",
        e("h2", "By cut-off"),
        e("p", f"The first k answers alone count. Bands are 95% intervals.{note}"),
        legend(study),
        e("div", *charts, class_="charts"),
        details("As tables", *tables),
    )


def sliced(study: Study) -> Node:
    parts = {name: slices for name, slices in study.figures.slices.items() if len(slices) > 1}
    charts, tables = [], []
    for name, slices in parts.items():
        labels = [f"{s.name} ({s.queries:,} queries)" for s in slices]
        series = [
            Series(name=family, points=[point(s.models[family]) for s in slices], colour=i)
            for i, family in enumerate(study.models)
        ]
        chart = intervals(f"NDCG@10 by {name}", labels, series)
        charts.append(figure(f"By {name}", chart, _SLICES[name]))
        rows: list[Row] = [
            [label, *(shown(v) for v in s.models.values())]
            for label, s in zip(labels, slices, strict=True)
        ]
        tables.append(table([name, *study.models], rows))
    return e(
        "section",
        e("h2", "For whom, and for what"),
        e("p", "NDCG@10 of parts of the test queries, with 95% intervals."),
        legend(study),
        e("div", *charts, class_="charts"),
        details("As tables", *tables),
    )


def families(study: Study) -> Node:
    return e(
        "section",
        e("h2", "Model by model"),
        e("div", *(_family(study, family) for family in study.models), class_="models"),
    )


def _family(study: Study, family: str) -> Node:
    """What one run did while training, what its signals pay, and what it recommends most."""
    training = study.training.get(family, {})
    colour = list(study.models).index(family)
    parts: list[Node] = []
    if curve := training.get("curve"):
        parts.append(_curve(family, curve, training.get("epochs"), colour))
    ablation: Sequence[Mapping[str, Any]] = training.get("ablation", ())
    kinds = list(dict.fromkeys(one["kind"] for one in ablation))
    for kind in kinds:
        of_kind = sorted(
            (one for one in ablation if one["kind"] == kind), key=lambda one: one["difference"]
        )
        parts.append(e("div", _ablation(family, kind, of_kind, colour)))
    if kinds:
        signals = _signals(ablation, kinds, training["cost"])
        parts.append(e("div", signals, *_alone(training["alone"])))
    elif "curve" in training and not study.config["mixer"]["ablate"]:
        parts.append(_no_ablation(study))
    wide = "wide" if parts else None
    parts.append(_most_shown(study, family))
    title = e("h3", swatch(colour), family)
    anchor = f"model-{family.replace(' ', '-')}"
    return e("section", title, e("div", *parts, class_="charts"), id=anchor, class_=wide)


def _most_shown(study: Study, family: str) -> Node:
    rows: list[Row] = [
        [e("td", item.title or item.item_id, class_="words"), f"{item.share:.1%}",
         f"{item.events:,}"]
        for item in study.figures.most_shown[family]
    ]  # fmt: skip
    if not rows:
        return e("p", "It recommended nothing at all.", class_="bad")
    return e(
        "div",
        e("p", e("b", "Recommended most"), " and to how many, among the first ten", class_="soft"),
        table(["item", "of queries", "events in training"], rows),
    )


def _curve(family: str, curve: Sequence[float], epochs: int | None, colour: int) -> Node:
    points = [Point(mean=v, low=v, high=v) for v in curve]
    chosen = [epochs - 1] if epochs and epochs <= len(curve) else []
    chart = lines(f"Learning curve of {family}", [str(i + 1) for i in range(len(curve))],
                  [Series(name=family, points=points, colour=colour)],
                  axis="epoch", from_zero=False, marked=chosen)  # fmt: skip
    taken = f"best after epoch {epochs} (dashed)" if chosen else ""
    return figure("NDCG@10 on the held-out part", chart, taken)


def _ablation(family: str, kind: str, ablation: Sequence[Mapping[str, Any]], colour: int) -> Node:
    points = [
        Point(mean=one["difference"], low=one["difference"] - one["half"],
              high=one["difference"] + one["half"])
        for one in ablation
    ]  # fmt: skip
    chart = intervals(
        f"NDCG@10 of {family} without a signal, less NDCG@10 with all: {kind}",
        [one["signal"] for one in ablation],
        [Series(name=family, points=points, colour=colour)],
        difference=True,
    )
    note = "NDCG@10 without it less NDCG@10 with all, held-out"
    return figure(f"A signal left out: {kind}", chart, note)


def _no_ablation(study: Study) -> Node:
    """In the place of what each signal pays: the mixer would be trained once more for each."""
    title = e("b", "By signal left out")
    text = ": not measured in this report, since it takes a mixer for each signal. It comes by:"
    return e("div", e("p", title, text, class_="soft"), command(study.ablation))


def _signals(
    ablation: Sequence[Mapping[str, Any]], kinds: Sequence[str], cost: Mapping[str, float]
) -> Node:
    left_out = {(one["signal"], one["kind"]): one for one in ablation}
    rows: list[Row] = [
        [signal, *(_gap(left_out[signal, kind]) for kind in kinds), f"{cost[signal]:.1f}"]
        for signal in dict.fromkeys(one["signal"] for one in ablation)
    ]
    return details("Signals as a table", table(["without", *kinds, "µs a row"], rows))


def _alone(alone: Sequence[Mapping[str, Any]]) -> tuple[Node, Node]:
    rows: list[Row] = [[one["kind"], f"{one['ndcg@10']:.4f}", _gap(one)] for one in alone]
    title = e("p", e("b", "A mixer for one kind of question alone"), class_="soft")
    return title, table(["", "NDCG@10", "less the one for all"], rows)


def _gap(one: Mapping[str, Any]) -> str:
    return f"{signed(one['difference'])} ± {one['half']:.4f}"
