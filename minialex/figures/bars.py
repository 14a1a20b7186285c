"""Horizontal bars with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .arms import COLOURS
from .canvas import canvas, plain


def bars(rows: Sequence[tuple[str, float, float | None, float | None]], path: str | Path, *, xlabel: str, title: str = "") -> None:
    """Draws (label, mean, low, high); low and high are None where one seed leaves no interval."""
    with canvas(path, 6.4, 1.3 + 0.5 * len(rows), dpi=120) as figure:
        axes = figure.subplots()
        axes.set_title(plain(title), fontsize=10)
        for row, (_, mean, low, high) in enumerate(rows):
            axes.barh(row, mean, height=0.6, color=COLOURS[0], alpha=0.55)
            if low is not None and high is not None:
                axes.plot([low, high], [row, row], color="0.15", linewidth=2)
            axes.text(0, row, f"  {mean:.1f}", va="center", fontsize=9)
        axes.set_yticks(range(len(rows)), [plain(label) for label, *_ in rows])
        axes.invert_yaxis()
        axes.set_xlabel(plain(xlabel))
        axes.margins(x=0.03)
        axes.grid(axis="x", alpha=0.3)
        axes.set_axisbelow(True)
