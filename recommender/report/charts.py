"""Numbers -> inline SVG that needs no script: lines by cut-off or epoch, intervals by row.

Charts are drawn 360 units wide, so that their text stays readable on a phone. Colours are
the page's (`.s0`, `.s1`, ... in page.css); a mark of another shape for each series says the
same without colour, and every mark carries its value as a tooltip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from recommender.report.markup import Node, e

WIDTH, SIDE, VALUE = 360, 6, 48  # units: of a chart, of its margins, of the values at the right
TOP, BOTTOM, LEFT, HEIGHT = 12, 34, 38, 230  # of a line chart
LABEL, LINE, GAP = 15, 13, 9  # heights in an interval chart: a row's label, a series, between rows
LETTER, LETTERS = 6.2, 28  # of a label beside its mark: width of one, how many at most
COLOURS = 8  # of page.css

_Scale = Callable[[float], float]  # a value -> its place


@dataclass(frozen=True, kw_only=True)
class Point:
    mean: float
    low: float
    high: float

    def text(self, sign: str = "") -> str:
        if self.low == self.high:
            return f"{self.mean:{sign}.4g}"
        return f"{self.mean:{sign}.4f}, 95% interval {self.low:{sign}.4f} to {self.high:{sign}.4f}"


@dataclass(frozen=True, kw_only=True)
class Series:
    """One family. None where it has no value."""

    name: str
    points: Sequence[Point | None]
    colour: int = 0


@dataclass(frozen=True)
class _Axis:
    """Values -> 0 to 1; by factors with `log`."""

    ticks: Sequence[float]
    log: bool = False

    @classmethod
    def of(cls, low: float, high: float, most: int, *, log: bool = False) -> _Axis:
        return cls(_factors(low, high, most) if log else _ticks(low, high, most), log)

    def share(self, value: float) -> float:
        first, last, value = self.ticks[0], self.ticks[-1], max(value, self.ticks[0])
        if self.log:
            first, last, value = math.log(first), math.log(last), math.log(value)
        return (value - first) / (last - first)


def _up(axis: _Axis) -> tuple[_Scale, list[Node]]:
    """Of the vertical axis of a chart: where a value lies, and the grid."""

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - axis.share(value) * (HEIGHT - BOTTOM - TOP)

    grid = [
        part
        for tick in axis.ticks
        for part in (
            e("line", x1=LEFT, x2=WIDTH - SIDE, y1=y(tick), y2=y(tick), class_="grid"),
            e("text", _number(tick), x=LEFT - 5, y=y(tick) + 4, text_anchor="end"),
        )
    ]
    return y, grid


def lines(
    title: str,
    labels: Sequence[str],
    series: Sequence[Series],
    *,
    axis: str,
    from_zero: bool = True,
    log: bool = False,
    marked: Sequence[int] = (),
) -> Node:
    """Values over the evenly spaced `labels`; a dashed line at those `marked`. With `log` (all
    values above 0) they go up by factors."""
    known = [p for one in series for p in one.points if p is not None]
    low = 0.0 if from_zero and not log else min(p.low for p in known)
    y, parts = _up(_Axis.of(low, max(p.high for p in known), 5, log=log))
    across = (WIDTH - LEFT - 12) / max(1, len(labels) - 1)

    def x(i: int) -> float:
        return LEFT + i * across

    every = -(-len(labels) // 8)  # as many labels as fit
    for i in range(0, len(labels), every):
        parts.append(e("text", labels[i], x=x(i), y=HEIGHT - BOTTOM + 15, text_anchor="middle"))
    middle = (LEFT + WIDTH) / 2
    parts.append(e("text", axis, x=middle, y=HEIGHT - 4, text_anchor="middle", class_="axis"))
    top, bottom = TOP, HEIGHT - BOTTOM
    parts += [e("line", x1=x(i), x2=x(i), y1=top, y2=bottom, class_="zero") for i in marked]
    for one in series:
        parts.append(_line(one, labels, [x(i) for i in range(len(labels))], y))
    return _svg(title, f"{axis}: {', '.join(labels)}", HEIGHT, parts)


def _line(one: Series, labels: Sequence[str], x: Sequence[float], y: _Scale) -> Node:
    found = [(i, p) for i, p in enumerate(one.points) if p is not None]
    low = [f"{x[i]:.1f},{y(p.low):.1f}" for i, p in found]
    high = [f"{x[i]:.1f},{y(p.high):.1f}" for i, p in found]
    path = " ".join(f"{x[i]:.1f},{y(p.mean):.1f}" for i, p in found)
    parts: list[Node | None] = [
        e("polygon", points=" ".join(low + high[::-1]), class_="band") if low != high else None,
        e("polyline", points=path, class_="line"),
    ]
    if len(found) <= 12:
        parts += [
            _mark(one.colour, x[i], y(p.mean), f"{one.name}, {labels[i]}: {p.text()}")
            for i, p in found
        ]
    return e("g", *parts, class_=f"s{one.colour % COLOURS}")


def intervals(
    title: str,
    rows: Sequence[str],
    series: Sequence[Series],
    *,
    difference: bool = False,
    even: float | None = None,
) -> Node:
    """A row per label, in it a mark with its interval per series; a dashed line at 0 for
    differences, or at `even`, where neither side is ahead.

    The label stands above its marks, or beside it where no row has more than one.
    """
    known = [p for one in series for p in one.points if p is not None]
    beside = len(known) <= len(rows)
    even = 0.0 if difference else even
    least = 0.0 if even is None else even
    low = min(least, min(p.low for p in known))
    axis = _Axis.of(low, max(low if even is None else even, max(p.high for p in known)), 4)
    left = SIDE + (LETTER * min(LETTERS, max(map(len, rows))) if beside else 6)

    def x(value: float) -> float:
        return left + axis.share(value) * (WIDTH - VALUE - 6 - left)

    marks: list[Node] = []
    height = float(SIDE)
    for row, label in enumerate(rows):
        cut = label if len(label) <= LETTERS or not beside else f"{label[: LETTERS - 1]}…"
        marks.append(e("text", cut, x=0 if beside else SIDE, y=height + 11, class_="label"))
        height += 0 if beside else LABEL
        for one in series:
            point = one.points[row]
            if point is not None:
                marks.append(_interval(one, label, point, x, height + LINE / 2, difference))
                height += LINE
        height += GAP
    grid: list[Node] = []
    if even is not None:
        grid.append(e("line", x1=x(even), x2=x(even), y1=0, y2=height, class_="zero"))
    for tick in axis.ticks:
        if even is None or abs(tick - even) > 1e-12:
            grid.append(e("line", x1=x(tick), x2=x(tick), y1=0, y2=height, class_="grid"))
        grid.append(e("text", _number(tick), x=x(tick), y=height + 13, text_anchor="middle"))
    return _svg(title, "; ".join(rows), height + 18, [*grid, *marks])


def _interval(one: Series, label: str, p: Point, x: _Scale, y: float, difference: bool) -> Node:
    value = f"{p.mean:.3f}" if abs(p.mean) < 10 else f"{p.mean:,.1f}"
    if difference:
        value = f"{p.mean:+.4f}".replace("-", "−")
    tip = ", ".join(name for name in (one.name, label) if name)
    return e(
        "g",
        e("line", x1=x(p.low), x2=x(p.high), y1=y, y2=y, class_="whisker"),
        _mark(one.colour, x(p.mean), y, f"{tip}: {p.text('+' if difference else '')}"),
        e("text", value, x=WIDTH, y=y + 4, text_anchor="end"),
        class_=f"s{one.colour % COLOURS}",
    )


@dataclass(frozen=True, kw_only=True)
class Dot:
    x: float
    y: float
    tip: str
    colour: int = 0


def dots(
    title: str, found: Sequence[Dot], *, axis: str, log: bool = False, log_y: bool = False
) -> Node:
    """A mark for each pair of values; with `log`, `log_y` (all values above 0) an axis goes by
    factors."""
    spread = [math.log10(dot.x) if log else dot.x for dot in found]
    across = _ticks(min(spread), max(spread), 4)
    lowest, highest = min(dot.y for dot in found), max(dot.y for dot in found)
    y, parts = _up(_Axis.of(lowest, highest, 5, log=log_y))

    def x(value: float) -> float:
        share = (value - across[0]) / (across[-1] - across[0])
        return LEFT + 8 + share * (WIDTH - LEFT - 28)

    for tick in across:
        label = f"{10**tick:.3g}" if log else _number(tick)
        parts.append(e("text", label, x=x(tick), y=HEIGHT - BOTTOM + 15, text_anchor="middle"))
    middle = (LEFT + WIDTH) / 2
    parts.append(e("text", axis, x=middle, y=HEIGHT - 4, text_anchor="middle", class_="axis"))
    for dot, place in zip(found, spread, strict=True):
        mark = _mark(dot.colour, x(place), y(dot.y), dot.tip)
        parts.append(e("g", mark, class_=f"s{dot.colour % COLOURS}"))
    return _svg(title, f"{len(found)} marks by {axis}", HEIGHT, parts)


def swatch(colour: int) -> Node:
    """A series' mark for the legend, beside its name in words."""
    mark = _mark(colour, 7, 7, None)
    return e("svg", mark, viewBox="0 0 14 14", class_=f"swatch s{colour % COLOURS}",
             aria_hidden="true")  # fmt: skip


def _mark(colour: int, x: float, y: float, tip: str | None) -> Node:
    title = e("title", tip) if tip else None
    match colour % 4:
        case 0:
            return e("circle", title, cx=x, cy=y, r=4, class_="mark")
        case 1:
            return e("rect", title, x=x - 3.5, y=y - 3.5, width=7, height=7, class_="mark")
        case 2:
            corners = (
                f"{x:.1f},{y - 4.5:.1f} {x - 4.5:.1f},{y + 3.5:.1f} {x + 4.5:.1f},{y + 3.5:.1f}"
            )
        case _:
            corners = (
                f"{x:.1f},{y - 5:.1f} {x + 5:.1f},{y:.1f} {x:.1f},{y + 5:.1f} {x - 5:.1f},{y:.1f}"
            )
    return e("polygon", title, points=corners, class_="mark")


def _svg(title: str, description: str, height: float, parts: Sequence[Node]) -> Node:
    return e("svg", e("title", title), e("desc", description), *parts,
             viewBox=f"0 0 {WIDTH} {height:.0f}", role="img", aria_label=title)  # fmt: skip


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers, `most` steps apart at most, from `low` or below to `high` or above."""
    span = high - low or abs(high) or 1.0
    magnitude = 10.0 ** math.floor(math.log10(span / most))
    for factor in (1, 2, 2.5, 5, 10, 20):
        step = magnitude * factor
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
        if last - first <= most:
            break
    return [step * i for i in range(first, max(last, first + 1) + 1)]


def _factors(low: float, high: float, most: int) -> list[float]:
    """The same by factors: powers of ten, with 2 and 5 between them where there is room."""
    for digits in ((1, 2, 5), (1, 3), (1,)):
        first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
        steps = [digit * 10.0**power for power in range(first, last + 1) for digit in digits]
        below = max(i for i, step in enumerate(steps) if step <= low * (1 + 1e-9))
        above = next((i for i, step in enumerate(steps) if step >= high), len(steps) - 1)
        ticks = steps[below : max(above, below + 1) + 1]
        if len(ticks) <= most + 1:
            break
    return ticks


def _number(value: float) -> str:
    """Without trailing zeros, and with a true minus."""
    return f"{value:.4f}".rstrip("0").rstrip(".").replace("-", "−") if abs(value) > 1e-9 else "0"
