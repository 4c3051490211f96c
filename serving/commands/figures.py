"""A report of `recserve evaluate` in the terminal: one row a model, the best figures in bold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

    from recommender.protocols import Report

SHOWN = ("ndcg@10", "hr@10")  # fits 80 columns; the page has all figures


def print_report(report: Report) -> None:
    from rich.console import Console

    console = Console()
    for group in report.queries:
        console.print(_table(report, group))
    console.print("± is half a 95% interval.")


def _table(report: Report, group: str) -> Table:
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
        title=f"{report.protocol}, {group}: {report.queries[group]:,} queries"
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
