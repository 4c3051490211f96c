"""A report of `recserve evaluate` in the terminal: one row a model, the best figures in bold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from recommender.protocols import Report
    from recommender.seeds import Seeds

SHOWN = ("ndcg@10", "hr@10")  # fits 80 columns; the page has all figures


def print_report(report: Report, title: str = "") -> None:
    """`title` comes after the protocol's name."""
    from rich.console import Console

    console = Console()
    for group in filter(report.queries.get, report.queries):
        console.print(_table(report, group, title))
    console.print("± is half a 95% interval.")


def print_seeds(found: Seeds) -> None:
    """The first model's figures, a row a seed."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    from recommender.protocols import METRIC

    metric = METRIC[found.mean.protocol]
    first = next(iter(found.mean.models))
    groups = [group for group, count in found.mean.queries.items() if count]
    table = Table("seed", *groups, title=f"{metric} of {first}, by seed",
                  title_justify="left", box=SIMPLE_HEAD)  # fmt: skip
    for seed, report in found.each.items():
        table.add_row(str(seed), *(_short(report.models[first][g][metric]) for g in groups))
    Console().print(table)


def _table(report: Report, group: str, title: str) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from recommender.protocols import METRIC

    figures = {model: groups[group] for model, groups in report.models.items()}
    first = next(iter(figures))
    metrics = [*dict.fromkeys([METRIC[report.protocol], *SHOWN])][: len(SHOWN)]
    shown = [metric for metric in (*metrics, "coverage@10") if metric in figures[first]]
    best = {metric: max(of[metric]["mean"] for of in figures.values()) for metric in shown}
    gaps = report.against if group == "all" else {}

    def cell(of: Mapping[str, Any], metric: str) -> str:
        text = _short(of[metric])
        return f"[bold]{text}[/]" if of[metric]["mean"] == best[metric] else text

    table = Table(
        "model",
        *shown,
        *([f"{first} minus it"] if gaps else []),
        title=f"{report.protocol}{title}, {group}: {report.queries[group]:,} queries"
        + (f"; differences in {METRIC[report.protocol]} by paired bootstrap" if gaps else ""),
        title_justify="left",
        box=SIMPLE_HEAD,
    )
    for column in table.columns[1:]:
        column.no_wrap = True
    for model, of in figures.items():
        gap = [_short(gaps[model])] if model in gaps else []
        table.add_row(model, *(cell(of, metric) for metric in shown), *gap)
    return table


def _short(figure: Mapping[str, float]) -> str:
    from recommender.metrics import with_half

    return with_half(figure).replace("0.", ".")
