"""Convolution with groups, columns, stride and asymmetric padding (paper, sections 3.2 and 3.5)."""

from __future__ import annotations

import numpy as np

from .. import checks
from .parts import parts
from .relu import gated, relu_fprop


def padded(x, dims):
    """x (G, N, H, W, C) with its border of zeros: (G, N, H + before + after, W + before + after, C)."""
    return np.pad(x, ((0, 0), (0, 0), (dims.before, dims.after), (dims.before, dims.after), (0, 0)))


def inside(padded_x, dims):
    """The view of a padded array without its border."""
    return padded_x[:, :, dims.before:dims.before + dims.H, dims.before:dims.before + dims.W, :]


def tap(padded_x, r, s, dims):
    """The view (N, P, Q, C) of what tap (r, s) of the window meets at each output position, of one column."""
    return padded_x[:, r:r + dims.stride * (dims.P - 1) + 1:dims.stride, s:s + dims.stride * (dims.Q - 1) + 1:dims.stride, :]


def taps(dims):
    return [(r, s) for r in range(dims.R) for s in range(dims.S)]


def part_list(dims):
    return list(parts(dims.Gx, dims.C // dims.Gx, dims.Gy, dims.K // dims.Gy, dims.groups))


def conv_fprop(x: np.ndarray, w: np.ndarray, b: np.ndarray, y: np.ndarray, *, stride: int, pad: int | tuple[int, int], groups: int) -> None:
    """Cross-correlation with bias: the filters are not turned round (paper, section 3.5).

        y[n, p, q, k] = (P_0 + P_1 + ...) + b[k]
        P_g = sum over r, s, c of x[g, n, stride p - before + r, stride q - before + s, c] * w[k, r, s, c]

    Each column's product is complete before the columns are added, and the bias comes last.  With groups > 1 a map reads the
    channels of its own group only, and there is one product.

    x (Gx, N, H, W, C), w (K, R, S, C_group), b (K,) are read; y (Gy, N, P, Q, K / Gy) is written entirely.
    """
    dims = checks.conv("conv_fprop", x=x, w=w, b=b, y=y, stride=stride, pad=pad, groups=groups, outputs=("y",))
    wide = padded(x, dims)
    y[...] = 0
    for part in part_list(dims):
        filters = w[part.maps, :, :, part.inputs]
        product = sum(np.einsum("npqc,kc->npqk", tap(wide[part.gx, ..., part.channels], r, s, dims), filters[:, r, s, :], optimize=True)
                      for r, s in taps(dims))
        y[part.gy, ..., part.outputs] += product
    y += b.reshape(dims.Gy, 1, 1, 1, -1)


def conv_relu_fprop(x: np.ndarray, w: np.ndarray, b: np.ndarray, y: np.ndarray,
                    *, stride: int, pad: int | tuple[int, int], groups: int) -> None:
    """relu_fprop after conv_fprop: the fused op is defined as this composition."""
    checks.conv("conv_relu_fprop", x=x, w=w, b=b, y=y, stride=stride, pad=pad, groups=groups, outputs=("y",))
    conv_fprop(x, w, b, y, stride=stride, pad=pad, groups=groups)
    relu_fprop(y, y)


def conv_dgrad(dy: np.ndarray, w: np.ndarray, dx: np.ndarray, *, stride: int, pad: int | tuple[int, int], groups: int,
               gate: np.ndarray | None = None, scale: float = 1.0) -> None:
    """Gradient of the input: each output position sends dy * w back along its window.

        dx[n, stride p - before + r, stride q - before + s, c] += dy[n, p, q, k] * w[k, r, s, c]

    What falls on the border is dropped; dx of a column is D_0 + D_1 + ... over the output columns that read it.
    Rows of x that no window reaches get 0.  dy like y, w like conv_fprop's; dx, like x, is written entirely.  `gate`, of dx's shape,
    is the output of a ReLU below (and a dropout that scaled by `scale`), whose gradient is taken, too.
    """
    dims = checks.conv("conv_dgrad", x=dx, w=w, y=dy, stride=stride, pad=pad, groups=groups, outputs=("x",))
    checks.gate("conv_dgrad", gate, dx)
    dx[...] = 0
    for part in part_list(dims):
        filters = w[part.maps, :, :, part.inputs]
        wide = padded(np.zeros_like(dx[:1, ..., part.channels]), dims)
        for r, s in taps(dims):
            sent = np.einsum("npqk,kc->npqc", dy[part.gy, ..., part.outputs], filters[:, r, s, :], optimize=True)
            tap(wide[0], r, s, dims)[...] += sent
        dx[part.gx, ..., part.channels] += inside(wide, dims)[0]
    gated(gate, scale, dx)


def conv_wgrad(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, db: np.ndarray,
               *, stride: int, pad: int | tuple[int, int], groups: int, accumulate: bool = False) -> None:
    """Gradients of filters and biases, summed over images and positions (not averaged: dy carries the 1 / batch).

        dw[k, r, s, c] = sum over n, p, q of dy[n, p, q, k] * x[n, stride p - before + r, stride q - before + s, c]
        db[k] = sum over n, p, q of dy[n, p, q, k]

    `accumulate=True` adds them to what is there.
    """
    dims = checks.conv("conv_wgrad", x=x, w=dw, b=db, y=dy, stride=stride, pad=pad, groups=groups, outputs=("w", "b"))
    wide = padded(x, dims)
    if not accumulate:
        dw[...], db[...] = 0, 0
    for part in part_list(dims):
        for r, s in taps(dims):
            seen = tap(wide[part.gx, ..., part.channels], r, s, dims)
            dw[part.maps, r, s, part.inputs] += np.einsum("npqk,npqc->kc", dy[part.gy, ..., part.outputs], seen, optimize=True)
    db += dy.sum(axis=(1, 2, 3)).reshape(-1)            # (Gy, K / Gy), column 0's maps first
