"""Locally connected layer: a convolution whose filters differ from position to position (the CIFAR-10 networks)."""

from __future__ import annotations

import numpy as np

from .. import checks
from .conv import inside, padded, part_list, tap, taps
from .relu import gated


def local_fprop(x: np.ndarray, w: np.ndarray, b: np.ndarray, y: np.ndarray,
                *, stride: int, pad: int | tuple[int, int], groups: int) -> None:
    """As conv_fprop with w (P, Q, K, R, S, C_group) and b (P, Q, K): position (p, q) has filters and biases of its own."""
    dims = checks.conv("local_fprop", x=x, w=w, b=b, y=y, stride=stride, pad=pad, groups=groups, outputs=("y",), local=True)
    wide = padded(x, dims)
    y[...] = 0
    for part in part_list(dims):
        filters = w[:, :, part.maps, :, :, part.inputs]
        product = sum(np.einsum("npqc,pqkc->npqk", tap(wide[part.gx, ..., part.channels], r, s, dims), filters[:, :, :, r, s, :])
                      for r, s in taps(dims))
        y[part.gy, ..., part.outputs] += product
    for gy, maps in enumerate(np.split(b, dims.Gy, axis=2)):
        y[gy] += maps


def local_dgrad(dy: np.ndarray, w: np.ndarray, dx: np.ndarray, *, stride: int, pad: int | tuple[int, int], groups: int,
                gate: np.ndarray | None = None, scale: float = 1.0) -> None:
    """As conv_dgrad, each position sending back through its own filters."""
    dims = checks.conv("local_dgrad", x=dx, w=w, y=dy, stride=stride, pad=pad, groups=groups, outputs=("x",), local=True)
    checks.gate("local_dgrad", gate, dx)
    dx[...] = 0
    for part in part_list(dims):
        filters = w[:, :, part.maps, :, :, part.inputs]
        wide = padded(np.zeros_like(dx[:1, ..., part.channels]), dims)
        for r, s in taps(dims):
            sent = np.einsum("npqk,pqkc->npqc", dy[part.gy, ..., part.outputs], filters[:, :, :, r, s, :])
            tap(wide[0], r, s, dims)[...] += sent
        dx[part.gx, ..., part.channels] += inside(wide, dims)[0]
    gated(gate, scale, dx)


def local_wgrad(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, db: np.ndarray,
                *, stride: int, pad: int | tuple[int, int], groups: int, accumulate: bool = False) -> None:
    """As conv_wgrad, but nothing is shared between positions: the sums run over the images alone."""
    dims = checks.conv("local_wgrad", x=x, w=dw, b=db, y=dy, stride=stride, pad=pad, groups=groups, outputs=("w", "b"), local=True)
    wide = padded(x, dims)
    if not accumulate:
        dw[...], db[...] = 0, 0
    for part in part_list(dims):
        for r, s in taps(dims):
            seen = tap(wide[part.gx, ..., part.channels], r, s, dims)
            dw[:, :, part.maps, r, s, part.inputs] += np.einsum("npqk,npqc->pqkc", dy[part.gy, ..., part.outputs], seen)
    db += np.concatenate(list(dy.sum(axis=1)), axis=2)  # Gy arrays (P, Q, K / Gy), column 0's maps first
