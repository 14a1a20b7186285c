"""Weights, updates and gradients of layers while they learn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .arms import COLOURS
from .canvas import canvas, plain

PANELS = (("w", "mean |w|"), ("dw", "mean |dw|, the update of a step"), ("ratio", "mean |dw| / mean |w|"), ("gradient", "mean |gradient|"))


def statistics(rows: Sequence[dict], path: str | Path, *, title: str = "") -> None:
    """Draws rows of statistics.jsonl: the weights of every layer (biases stay in the file), one line a layer, on logarithmic axes."""
    names = [name for name in rows[-1]["layers"] if name.endswith(".w")]
    with canvas(path, 9.6, 6.2, dpi=120) as figure:
        figure.suptitle(plain(title), fontsize=10)
        grid = figure.subplots(2, 2, sharex=True)
        for axes, (kind, label) in zip(grid.flat, PANELS, strict=True):
            for i, name in enumerate(names):
                points = [(row["step"], value) for row in rows if (value := row["layers"].get(name, {}).get(kind))]     # a logarithm of 0
                style = "-" if i < len(COLOURS) else "--"
                axes.plot(*zip(*points, strict=True) if points else ([], []), style, color=COLOURS[i % len(COLOURS)], linewidth=1.4,
                          marker="." if len(points) < 3 else None, label=plain(name.removesuffix(".w")))
            if any(line.get_xdata().size for line in axes.lines):
                axes.set_yscale("log")
            axes.set_title(label, fontsize=9, loc="left")
            axes.grid(alpha=0.3)
        for axes in grid[1]:
            axes.set_xlabel("step")
        handles, labels = grid[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=min(8, len(names)), fontsize=8, frameon=False)
