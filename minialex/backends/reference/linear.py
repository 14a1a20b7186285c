"""Fully connected layer (paper, sections 3.2 and 3.5)."""

from __future__ import annotations

import numpy as np

from .. import checks
from .dropout import dropout_fprop
from .parts import parts
from .relu import gated, relu_fprop


def _parts(x, y, groups):
    return parts(x.shape[0], x.shape[2], y.shape[0], y.shape[2], groups)


def linear_fprop(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray, *, groups: int) -> None:
    """y[n] = (P_0 + P_1 + ...) + b with P_g = x[g, n] w_g^T, the columns in order, the bias last.

    groups=1 reads all columns (the paper's "both"); groups = columns reads the own column only.
    x (Gx, N, F), w (K, inputs of one group), b (K,) or None are read; y (Gy, N, K / Gy) is written entirely.
    """
    checks.linear("linear_fprop", x=x, w=w, b=b, y=y, groups=groups, outputs=("y",))
    y[...] = 0
    for part in _parts(x, y, groups):
        y[part.gy, :, part.outputs] += x[part.gx, :, part.channels] @ w[part.maps, part.inputs].T
    if b is not None:
        y += b.reshape(y.shape[0], 1, -1)


def linear_relu_fprop(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray, *, groups: int,
                      dropout: dict | None = None) -> None:
    """relu_fprop after linear_fprop, and dropout_fprop with the arguments `dropout` after both."""
    checks.linear("linear_relu_fprop", x=x, w=w, b=b, y=y, groups=groups, outputs=("y",))
    linear_fprop(x, w, b, y, groups=groups)
    relu_fprop(y, y)
    if dropout is not None:
        maps = y[:, :, None, None]
        dropout_fprop(maps, maps, **dropout)


def linear_dgrad(dy: np.ndarray, w: np.ndarray, dx: np.ndarray, *, groups: int, gate: np.ndarray | None = None, scale: float = 1.0) -> None:
    """dx = dy w; a column of x read by several output columns gets D_0 + D_1 + ... in their order.  `gate` as conv_dgrad's."""
    checks.linear("linear_dgrad", x=dx, w=w, y=dy, groups=groups, outputs=("x",))
    checks.gate("linear_dgrad", gate, dx)
    dx[...] = 0
    for part in _parts(dx, dy, groups):
        dx[part.gx, :, part.channels] += dy[part.gy, :, part.outputs] @ w[part.maps, part.inputs]
    gated(gate, scale, dx)


def linear_wgrad(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, db: np.ndarray, *, groups: int, accumulate: bool = False) -> None:
    """dw = dy^T x and db = sum of dy, over the images (not averaged: dy carries the 1 / batch).

    `accumulate=True` adds them to what is there.
    """
    checks.linear("linear_wgrad", x=x, w=dw, b=db, y=dy, groups=groups, outputs=("w", "b"))
    if not accumulate:
        dw[...], db[...] = 0, 0
    for part in _parts(x, dy, groups):
        dw[part.maps, part.inputs] += dy[part.gy, :, part.outputs].T @ x[part.gx, :, part.channels]
    db += dy.sum(axis=1).reshape(-1)
