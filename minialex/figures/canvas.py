"""Matplotlib without a display, and pictures written whole or not at all."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import files
from ..data.source import shown


@contextmanager
def canvas(path: str | Path, width: float, height: float, dpi: int = 110) -> Iterator:
    """Yields a figure of width x height inches; saves it as PNG at `path` on success."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    yield figure
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing", UserWarning)      # an emoji in a class's name: drawn as a box
        files.write(path, lambda file: figure.savefig(file, format="png", dpi=dpi))


def plain(text: str) -> str:
    """Text from outside (paths, names of classes) as matplotlib can draw it: one line, no formulas between dollar signs."""
    return shown(text).replace("$", r"\$")
