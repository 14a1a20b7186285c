"""Average pooling on the CPU: separable sums, divided by the number of inputs in each clipped window."""

from __future__ import annotations

import numpy as np

from .. import checks
from .pooling import each_piece, reduce_columns, reduce_rows, taps
from .workers import scratch


def avgpool_fprop(x: np.ndarray, y: np.ndarray, *, window: int, stride: int) -> None:
    """y = mean over each window; a window clipped at the border divides by what is left of it."""
    checks.pool("avgpool_fprop", x=x, y=y, window=window, stride=stride, outputs=("y",))
    counts = _counts(x, y, window, stride)

    def piece(x: np.ndarray, y: np.ndarray) -> None:
        rows = scratch("rows", (*y.shape[:-2], *x.shape[-2:]), x.dtype)
        reduce_rows(np.add, x, rows, window, stride)
        reduce_columns(np.add, rows, y, window, stride)
        np.divide(y, counts, out=y)

    each_piece(piece, x, y)


def avgpool_bprop(dy: np.ndarray, dx: np.ndarray, *, window: int, stride: int) -> None:
    """dx = sum over the windows that hold an input of dy / count."""
    checks.pool("avgpool_bprop", x=dx, y=dy, window=window, stride=stride, outputs=("x",))
    counts = _counts(dx, dy, window, stride)

    def piece(dx: np.ndarray, dy: np.ndarray) -> None:
        (H, W), (P, Q) = dx.shape[-3:-1], dy.shape[-3:-1]
        share = np.divide(dy, counts, out=scratch("share", dy.shape, dy.dtype))
        rows = scratch("rows", (*dx.shape[:-2], *dy.shape[-2:]), dx.dtype)
        rows.fill(0)
        for place, count in taps(H, P, window, stride):
            np.add(rows[..., place, :, :], share[..., :count, :, :], out=rows[..., place, :, :])
        dx[...] = 0
        for place, count in taps(W, Q, window, stride):
            np.add(dx[..., place, :], rows[..., :count, :], out=dx[..., place, :])

    each_piece(piece, dx, dy)


def _counts(x: np.ndarray, y: np.ndarray, window: int, stride: int) -> np.ndarray:
    """Inputs of each window (P, Q, 1)."""
    down, across = (np.minimum(window, extent - stride * np.arange(out)) for extent, out in zip(x.shape[2:4], y.shape[2:4], strict=True))
    return np.multiply.outer(down, across)[..., None].astype(x.dtype)
