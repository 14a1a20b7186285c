"""Feature maps: what the kernels of a layer make of one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .canvas import canvas, plain
from .filters import tiled


def maps(picture: np.ndarray, values: np.ndarray, path: str | Path, *, layer: str, title: str = "") -> None:
    """Draws picture (H, W, 3) uint8 and beside it the maps `values` (G, H, W, C) of a layer, column a above column b; one scale for all
    of them, so that a weak map is dark."""
    columns, H, W, C = values.shape
    across = int(np.ceil(np.sqrt(2 * C / columns)))
    high = float(np.percentile(values, 99.8)) or 1.0
    low = min(0.0, float(np.percentile(values, 0.2)))
    pictures = [tiled(column.transpose(2, 0, 1), across, gap=max(1, H // 16)) for column in values]
    height = sum(p.shape[0] for p in pictures) / pictures[0].shape[1] * 7.4 + 0.3 * columns + 0.5
    with canvas(path, 10.2, max(2.6, height), dpi=120) as figure:
        figure.suptitle(plain(title or f"{layer}: {columns * C} maps of {H} x {W}"), fontsize=10)
        grid = figure.add_gridspec(columns, 2, width_ratios=[2, 7.4])
        axes = figure.add_subplot(grid[:, 0])
        axes.imshow(picture)
        axes.set_title("what the network sees", fontsize=9)
        axes.axis("off")
        for g, one in enumerate(pictures):
            axes = figure.add_subplot(grid[g, 1])
            shown = axes.imshow(one, cmap=_cmap(), vmin=low, vmax=max(high, low + 1e-12), interpolation="nearest")
            axes.set_title(f"column {'abcdefgh'[g]}" if columns > 1 else plain(layer), fontsize=9)
            axes.axis("off")
        figure.colorbar(shown, ax=figure.axes[1:], fraction=0.03, pad=0.01, label="value")


def _cmap():
    from matplotlib import colormaps
    return colormaps["magma"].with_extremes(bad="white")
