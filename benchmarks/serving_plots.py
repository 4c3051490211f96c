"""Figures -> SVG files with bars, readable on a light and on a dark page, with no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, LEFT, RIGHT, BAR, GAP, TOP = 720, 128, 64, 15, 14, 52
COLOURS = ("#2f81f7", "#e08a1e", "#2ea043", "#a371f7", "#e5534b")  # of middle lightness
STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 } .t { font-size: 14px; font-weight: 600 }
.g { stroke: #8c959f; stroke-opacity: .35 } .w { stroke: #1f2328; stroke-opacity: .7 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .w { stroke: #e6edf3 } }
"""
Bar = tuple[float, float, float]  # median, lowest, highest


def bars(title: str, unit: str, groups: Mapping[str, Mapping[str, Bar]]) -> str:
    """Groups of one bar a series, with the spread as a line on it; from zero."""
    names = list(next(iter(groups.values())))
    top = max(high for group in groups.values() for _, _, high in group.values()) or 1.0
    ticks = _ticks(top)
    scale = (WIDTH - LEFT - RIGHT) / max(top, ticks[-1])
    height = TOP + sum(len(group) * BAR + GAP for group in groups.values()) + 24
    parts = [f'<text class="t" x="0" y="16">{escape(title)}</text>', *_legend(names)]
    for tick in ticks:
        x = LEFT + tick * scale
        parts.append(f'<line class="g" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" '
                     f'y2="{height - 20}"/>')  # fmt: skip
        parts.append(f'<text x="{x:.1f}" y="{height - 6}" text-anchor="middle">{tick:,g}</text>')
    parts.append(f'<text x="{WIDTH}" y="{height - 6}" text-anchor="end">{escape(unit)}</text>')
    y = float(TOP)
    for label, group in groups.items():
        middle = y + len(group) * BAR / 2 + 4
        parts.append(f'<text x="{LEFT - 8}" y="{middle:.1f}" text-anchor="end">'
                     f"{escape(label)}</text>")  # fmt: skip
        for name, bar in group.items():
            parts += _bar(name, label, bar, unit, y, scale, COLOURS[names.index(name)])
            y += BAR
        y += GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>{''.join(parts)}</svg>\n"
    )


def _bar(
    name: str, label: str, bar: Bar, unit: str, y: float, scale: float, colour: str
) -> list[str]:
    middle, low, high = bar
    end, line = LEFT + middle * scale, y + BAR / 2 - 0.5
    told = f"{name}, {label}: {_number(middle)} {unit} ({_number(low)} to {_number(high)})"
    return [
        f'<rect x="{LEFT}" y="{y:.1f}" width="{middle * scale:.1f}" height="{BAR - 2}" '
        f'fill="{colour}"><title>{escape(told)}</title></rect>',
        f'<line class="w" x1="{LEFT + low * scale:.1f}" x2="{LEFT + high * scale:.1f}" '
        f'y1="{line:.1f}" y2="{line:.1f}"/>',
        f'<text x="{max(end, LEFT + high * scale) + 5:.1f}" y="{y + BAR - 3:.1f}">'
        f"{_number(middle)}</text>",
    ]


def _legend(names: Sequence[str]) -> list[str]:
    parts, x = [], 0
    for name, colour in zip(names, COLOURS, strict=False):
        parts.append(f'<rect x="{x}" y="26" width="11" height="11" fill="{colour}"/>'
                     f'<text x="{x + 16}" y="36">{escape(name)}</text>')  # fmt: skip
        x += 34 + 7 * len(name)
    return parts


def _ticks(top: float) -> list[float]:
    """0 and at most five round numbers above it."""
    step = next(
        unit * 10**power
        for power in range(-3, 7)
        for unit in (1, 2, 5)
        if top / (unit * 10**power) <= 5
    )
    return [step * i for i in range(int(top / step + 1e-9) + 1)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
