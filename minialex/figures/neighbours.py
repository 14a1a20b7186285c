"""Queries with their nearest pictures (the paper's figure 4, right)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .canvas import canvas, plain

Found = tuple[np.ndarray, str, bool]            # picture (H, W, 3) uint8, its class, whether that is the query's


def neighbours(rows: Sequence[tuple[np.ndarray, Sequence[tuple[str, Sequence[Found]]]]], path: str | Path, *, title: str = "") -> None:
    """Draws (query, [(way of searching, its nearest pictures), ...]): the query in the first column, a line for each way beside it;
    a picture of the query's class has a green frame, one of another a grey frame."""
    ways = max(len(lines) for _, lines in rows)
    across = 1 + max(len(found) for _, lines in rows for _, found in lines)
    with canvas(path, 1.15 * across + 1.2, 1.32 * ways * len(rows) + 0.4, dpi=110) as figure:
        figure.suptitle(plain(title), fontsize=10)
        grid = figure.subplots(ways * len(rows), across, squeeze=False)
        for axes in grid.flat:
            axes.set_xticks([])
            axes.set_yticks([])
            for spine in axes.spines.values():
                spine.set_visible(False)
        for i, (query, lines) in enumerate(rows):
            for j, (way, found) in enumerate(lines):
                line = grid[i * ways + j]
                if j == 0:
                    line[0].imshow(query)
                    line[0].set_title("query", fontsize=7, pad=2)
                line[0].set_ylabel(plain(way).replace(" ", "\n"), fontsize=7, rotation=0, ha="right", va="center")
                for axes, (picture, name, same) in zip(line[1:], found, strict=False):
                    axes.imshow(picture)
                    axes.set_title(plain(name if len(name) <= 20 else name[:19] + "…"), fontsize=6, pad=2)
                    for spine in axes.spines.values():
                        spine.set(visible=True, color="#009E73" if same else "0.75", linewidth=2.5 if same else 1)
