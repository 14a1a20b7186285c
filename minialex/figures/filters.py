"""First-layer kernels as in the paper's figure 3: column a above, column b below."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .canvas import canvas


def mosaic(w: np.ndarray, across: int, gap: int = 1) -> np.ndarray:
    """Kernels (K, R, S, 3) as one RGB picture (H, W, 3) of floats 0..1; each kernel is stretched to its own range about 0."""
    K, R, S, _ = w.shape
    down = -(-K // across)
    picture = np.ones((down * (R + gap) + gap, across * (S + gap) + gap, 3))
    peak = np.abs(w).max(axis=(1, 2, 3), keepdims=True)
    scaled = 0.5 + 0.5 * w / np.where(peak > 0, peak, 1)
    for i, kernel in enumerate(scaled):
        top, left = (i // across) * (R + gap) + gap, (i % across) * (S + gap) + gap
        picture[top:top + R, left:left + S] = kernel
    return picture


def colourfulness(w: np.ndarray, columns: int = 1) -> np.ndarray:
    """Share of each kernel's energy that lies off the grey axis: w (K, R, S, 3) -> (columns, K / columns), 0 for a grey kernel, 1 for
    one without brightness (paper, section 6.1: one column becomes colour-agnostic, the other colour-specific)."""
    w = w.astype(np.float64)
    whole = (w**2).sum(axis=(1, 2, 3))
    grey = 3 * (w.mean(axis=3) ** 2).sum(axis=(1, 2))
    return (1 - grey / np.where(whole > 0, whole, 1)).clip(0, 1).reshape(columns, -1)


def filters(w: np.ndarray, path: str | Path, *, columns: int = 1) -> None:
    """Draws kernels w (K, R, S, 3); with two columns the first half above the second."""
    if w.shape[-1] != 3:
        raise ValueError(f"kernels of {w.shape[-1]} channels are no colour pictures")
    halves = np.split(w, columns)
    across = min(16, len(halves[0]))
    pictures = [mosaic(half, across) for half in halves]
    height = sum(p.shape[0] for p in pictures) / pictures[0].shape[1] * 7 + 0.4 * columns
    with canvas(path, 7, height) as figure:
        rows = figure.subplots(columns, 1, squeeze=False)[:, 0]
        for axes, picture, letter in zip(rows, pictures, "abcdefgh", strict=False):
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(f"column {letter}" if columns > 1 else "first-layer kernels", fontsize=9)
            axes.axis("off")
