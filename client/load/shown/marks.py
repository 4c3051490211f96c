"""What the sections of the page of a load test share: marks, milliseconds, legends."""

from __future__ import annotations

from collections.abc import Sequence

from recommender.report.charts import Point, Series, swatch
from recommender.report.markup import Node, e

SHOWN = ("p50", "p95", "p99", "max")


def legend(marks: Sequence[tuple[int, str]]) -> Node:
    return e("ul", *(e("li", swatch(colour), name) for colour, name in marks), class_="legend")


def point(value: float | None) -> Point | None:
    """Of an axis by factors, which has no 0."""
    if value is None:
        return None
    value = max(value, 0.01)
    return Point(mean=value, low=value, high=value)


def known(series: Sequence[Series]) -> bool:
    return any(point is not None for one in series for point in one.points)


def ms(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"
