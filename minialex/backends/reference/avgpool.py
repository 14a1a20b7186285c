"""Average pooling (the CIFAR-10 networks)."""

from __future__ import annotations

import numpy as np

from .. import checks
from .maxpool import taps, widened


def _count(x, y, window, stride):
    """Inputs in each window, the clipped ones having fewer: (1, 1, P, Q, 1)."""
    ones = np.ones((1, 1, *x.shape[2:4], 1), x.dtype)
    return sum(taps(widened(ones, y, window, stride, 0), y, window, stride))


def avgpool_fprop(x: np.ndarray, y: np.ndarray, *, window: int, stride: int) -> None:
    """y[p, q] = the mean of x over window x window from (stride p, stride q) on; a clipped window divides by its own count.

    x (G, N, H, W, C) is read; y (G, N, P, Q, C), extents rounded up as in maxpool, is written entirely.
    """
    checks.pool("avgpool_fprop", x=x, y=y, window=window, stride=stride, outputs=("y",))
    y[...] = sum(taps(widened(x, y, window, stride, 0), y, window, stride)) / _count(x, y, window, stride)


def avgpool_bprop(dy: np.ndarray, dx: np.ndarray, *, window: int, stride: int) -> None:
    """Each window hands dy / count to every input it holds; dx sums over the windows that hold it."""
    checks.pool("avgpool_bprop", x=dx, y=dy, window=window, stride=stride, outputs=("x",))
    dwide = np.zeros_like(widened(dx, dy, window, stride, 0))
    for sent in taps(dwide, dy, window, stride):
        sent[...] += dy / _count(dx, dy, window, stride)
    dx[...] = dwide[:, :, :dx.shape[2], :dx.shape[3], :]
