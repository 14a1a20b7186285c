"""Pictures as cells of pixels on the CPU, and back: one assignment for each pixel of a cell."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .. import checks


def cells_fprop(x: np.ndarray, y: np.ndarray, *, cell: int) -> None:
    """The cell x cell pixels of a cell are the channels of one position, row by row; 0 where a cell reaches beyond x."""
    checks.cells("cells_fprop", x=x, y=y, cell=cell, outputs=("y",))
    y[...] = 0
    for pixels, channels in _pairs(x, y, cell):
        channels[...] = pixels


def cells_bprop(dy: np.ndarray, dx: np.ndarray, *, cell: int) -> None:
    """The way back; what lies beyond dx is dropped."""
    checks.cells("cells_bprop", dx=dx, dy=dy, cell=cell, outputs=("dx",))
    for pixels, channels in _pairs(dx, dy, cell):
        pixels[...] = channels


def _pairs(x: np.ndarray, y: np.ndarray, cell: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For each pixel of a cell its places in x and in y."""
    C = x.shape[-1]
    for r in range(min(cell, x.shape[2])):
        for s in range(min(cell, x.shape[3])):
            pixels, first = x[:, :, r::cell, s::cell], (r * cell + s) * C
            yield pixels, y[:, :, :pixels.shape[2], :pixels.shape[3], first:first + C]
