"""First-layer kernels as in the paper's figure 3: column a above, column b below."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .canvas import canvas, plain


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


def tiled(pictures: np.ndarray, across: int, gap: int = 1) -> np.ndarray:
    """Pictures (K, H, W) as one (rows, columns) array of floats, NaN between them."""
    K, H, W = pictures.shape
    whole = np.full((-(-K // across) * (H + gap) + gap, across * (W + gap) + gap), np.nan)
    for i, picture in enumerate(pictures):
        top, left = (i // across) * (H + gap) + gap, (i % across) * (W + gap) + gap
        whole[top:top + H, left:left + W] = picture
    return whole


def filters(w: np.ndarray, path: str | Path, *, columns: int = 1) -> None:
    """Draws kernels w (K, R, S, 3); with two columns the first half above the second.  Each column says how colourful it is."""
    if w.shape[-1] != 3:
        raise ValueError(f"kernels of {w.shape[-1]} channels are no colour pictures")
    halves = np.split(w, columns)
    across = min(16, len(halves[0]))
    shares = [f"colourfulness {100 * own.mean():.0f} % ± {100 * own.std():.0f} %" for own in colourfulness(w, columns)]
    titles = [f"column {letter}: {share}" if columns > 1 else f"{len(w)} first-layer kernels: {share}"
              for letter, share in zip("abcdefgh", shares, strict=False)]
    note = "colourfulness: share of a kernel's energy off the grey axis, mean ± standard deviation over kernels"
    _draw([mosaic(half, across) for half in halves], titles, path, note)


def deeper(w: np.ndarray, path: str | Path, *, columns: int = 1, channel: int | None = None, layer: str = "") -> None:
    """Draws one input channel of each kernel w (K, R, S, C) in grey, stretched to its own range about 0 (grey): channel `channel`, or
    (None) of each kernel the channel of most energy."""
    chosen = np.full(len(w), channel) if channel is not None else (w.astype(np.float64) ** 2).sum(axis=(1, 2)).argmax(axis=1)
    slices = w[np.arange(len(w)), :, :, chosen]
    halves = np.split(np.repeat(slices[..., None], 3, axis=3), columns)
    across = min(24, len(halves[0]))
    which = f"input channel {channel}" if channel is not None else "the input channel of most energy"
    titles = [f"{layer}, column {letter}" if columns > 1 else f"{layer}: {len(w)} kernels" for letter in "abcdefgh"[:columns]]
    note = f"of each kernel {which} of {w.shape[3]}; black negative, white positive"
    _draw([mosaic(half, across) for half in halves], titles, path, note)


def _draw(pictures: list[np.ndarray], titles: list[str], path: str | Path, note: str) -> None:
    height = sum(p.shape[0] for p in pictures) / pictures[0].shape[1] * 7 + 0.4 * len(pictures) + 0.3
    with canvas(path, 7, height) as figure:
        rows = figure.subplots(len(pictures), 1, squeeze=False)[:, 0]
        for axes, picture, title in zip(rows, pictures, titles, strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(plain(title), fontsize=9)
            axes.axis("off")
        figure.supxlabel(note, fontsize=7, color="0.35")
