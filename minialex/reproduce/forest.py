"""Differences with their intervals beside the paper's, as a small drawing inside the page."""

from __future__ import annotations

import math
from html import escape

from ..data.source import shown
from .markdown import number
from .result import Row

WIDTH, LEFT, LINE, TOP = 720, 300, 26, 8
SIGNED = ("points", "nats")


def forest(rows: list[Row]) -> str:
    """An SVG of the rows that state a difference and have an interval: the mean as a dot, the interval as a bar, the paper's own
    difference as a diamond, and a line at 0.  "" where there is none.  One drawing for each unit."""
    drawn = []
    for unit in SIGNED:
        chosen = [row for row in rows if row.unit == unit and row.measured and row.measured.low is not None]
        if chosen:
            drawn.append(_drawing(chosen, unit))
    return "\n".join(drawn)


def _drawing(rows: list[Row], unit: str) -> str:
    golds = [row.gold for row in rows if isinstance(row.gold, (int, float))]
    values = [0.0, *golds, *(end for row in rows for end in (row.measured.low, row.measured.high))]
    low, high = min(values), max(values)
    pad = 0.06 * (high - low or 1.0)
    low, high = low - pad, high + pad
    bottom = TOP + LINE * len(rows)

    def x(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - 12) * (value - low) / (high - low), 1)

    parts = []
    for tick in _ticks(low, high):
        parts.append(f'<line class="axis" x1="{x(tick)}" x2="{x(tick)}" y1="{bottom}" y2="{bottom + 4}"/>'
                     f'<text x="{x(tick)}" y="{bottom + 16}" text-anchor="middle">{number(tick)}</text>')
    parts.append(f'<line class="zero" x1="{x(0)}" x2="{x(0)}" y1="{TOP}" y2="{bottom}"/>')
    for i, row in enumerate(rows):
        y, one = TOP + LINE * (i + 0.5), row.measured
        name = shown(row.what)
        parts.append(f'<text x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(name if len(name) < 58 else name[:57] + "…")}</text>'
                     f'<line class="bar" x1="{x(one.low)}" x2="{x(one.high)}" y1="{y}" y2="{y}"/>'
                     f'<circle class="dot" cx="{x(one.mean)}" cy="{y}" r="5"/>')
        if isinstance(row.gold, (int, float)):
            g = x(row.gold)
            parts.append(f'<path class="gold" d="M{g - 6} {y} L{g} {y - 6} L{g + 6} {y} L{g} {y + 6} Z"/>')
    legend = f"{unit}; dot and bar: measured, 95 % interval" + ("; diamond: the paper’s network" if golds else "")
    parts.append(f'<text x="{LEFT}" y="{bottom + 34}">{legend}</text>')
    label = "; ".join(f"{shown(row.what)}: {number(row.measured.mean)} {unit}" for row in rows)
    return (f'<svg viewBox="0 0 {WIDTH} {bottom + 42}" role="img" aria-label="{escape(label)}">'
            f'<line class="axis" x1="{LEFT}" x2="{WIDTH - 12}" y1="{bottom}" y2="{bottom}"/>{"".join(parts)}</svg>')


def _ticks(low: float, high: float) -> list[float]:
    """Up to eight round numbers between."""
    ten = 10 ** math.floor(math.log10(high - low))
    step = next(s for s in (ten / 5, ten / 2, ten, 2 * ten) if (high - low) / s <= 8)
    first = math.ceil(low / step)
    return [round(k * step, 10) for k in range(first, math.floor(high / step) + 1)]
