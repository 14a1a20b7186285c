"""Overlapping max-pooling (paper, section 3.4)."""

from __future__ import annotations

import numpy as np

from .. import checks
from .relu import gated


def widened(x, y, window, stride, value):
    """A copy of x continued with `value` below and to the right, so that the last windows are whole."""
    rows, columns = (max(0, stride * (y.shape[axis] - 1) + window - x.shape[axis]) for axis in (2, 3))
    return np.pad(x, ((0, 0), (0, 0), (0, rows), (0, columns), (0, 0)), constant_values=value)


def taps(wide, y, window, stride):
    """For each place of the window, in row order, the view (shape of y) of what the windows have there."""
    P, Q = y.shape[2:4]
    for r in range(window):
        for s in range(window):
            yield wide[:, :, r:r + stride * (P - 1) + 1:stride, s:s + stride * (Q - 1) + 1:stride, :]


def maxpool_fprop(x: np.ndarray, y: np.ndarray, *, window: int, stride: int) -> None:
    """y[p, q] = the maximum of x over window x window from (stride p, stride q) on, clipped at the border.

    The extents of y are rounded up (spec.pool_extent), where Caffe agrees and most libraries round down.  What lies beyond the
    border is no zero: it is not there, so windows of negative values have a negative maximum.

    x (G, N, H, W, C) is read; y (G, N, P, Q, C) is written entirely.
    """
    checks.pool("maxpool_fprop", x=x, y=y, window=window, stride=stride, outputs=("y",))
    y[...] = -np.inf
    for seen in taps(widened(x, y, window, stride, -np.inf), y, window, stride):
        y[...] = np.maximum(y, seen)


def maxpool_bprop(x: np.ndarray, y: np.ndarray, dy: np.ndarray, dx: np.ndarray, *, window: int, stride: int, ties: str,
                  relu: bool = False) -> None:
    """dx[i] = the sum of dy over the windows whose maximum is at i.

    ties="first": of several equal maxima the first in row order gets the gradient.  ties="all": each of them gets all of
    it (the 2012 program).  Windows overlap, so one input may win several of them.  relu=True: x came out of a ReLU, and dx is
    the gradient before that: dx where x > 0, else 0.
    """
    checks.ties("maxpool_bprop", ties)
    checks.pool("maxpool_bprop", x=x, y=y, dy=dy, dx=dx, window=window, stride=stride, outputs=("dx",))
    wide = widened(x, y, window, stride, -np.inf)
    dwide = np.zeros_like(wide)
    taken = np.zeros(y.shape, bool)
    for seen, sent in zip(taps(wide, y, window, stride), taps(dwide, y, window, stride), strict=True):
        wins = seen == y
        if ties == "first":
            wins &= ~taken
            taken |= wins
        sent[...] += np.where(wins, dy, 0)
    dx[...] = dwide[:, :, :x.shape[2], :x.shape[3], :]
    if relu:
        gated(x, 1.0, dx)
