"""Pictures with their five most probable labels as bars (the paper's figure 4, left)."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .canvas import canvas, plain

Example = tuple[np.ndarray, str | None, list[tuple[str, float]]]


def predictions(examples: list[Example], path: str | Path) -> None:
    """Draws (picture (H, W, 3) uint8, right label or None, [(label, probability), ...]) four across; the right label's bar is red."""
    across = min(4, len(examples))
    down = -(-len(examples) // across)
    with canvas(path, 2.6 * across, 3.9 * down) as figure:
        grid = figure.subplots(2 * down, across, squeeze=False, height_ratios=[3, 2] * down)
        for axes in grid.flat:
            axes.axis("off")
        for i, (picture, right, ranked) in enumerate(examples):
            image, bars = grid[2 * (i // across), i % across], grid[2 * (i // across) + 1, i % across]
            image.imshow(picture)
            image.set_title(_short(right) if right else "", fontsize=9)
            bars.set_axis_on()
            names, values = [_short(name) for name, _ in ranked], [value for _, value in ranked]
            colours = ["tab:red" if right is not None and name == right else "tab:blue" for name, _ in ranked]
            bars.barh(range(len(ranked)), values, color=colours, alpha=0.5)
            for row, name in enumerate(names):
                bars.text(0.02, row, name, va="center", fontsize=8)
            bars.set_xlim(0, 1)
            bars.set_ylim(len(ranked) - 0.5, -0.5)
            bars.set_xticks([])
            bars.set_yticks([])


def _short(name: str, limit: int = 24) -> str:
    return plain(name if len(name) <= limit else name[:limit - 1] + "…")
