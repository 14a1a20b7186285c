"""Response normalisation over a square of the same map (the 2012 program's third norm layer; the CIFAR-10 networks)."""

from __future__ import annotations

import numpy as np

from .. import checks


def _square_sum(a, n):
    """At each position the sum of a over the n x n square centred on it, in the same map, clipped at the border."""
    radius = n // 2
    H, W = a.shape[2:4]
    wide = np.pad(a, ((0, 0), (0, 0), (radius, radius), (radius, radius), (0, 0)))
    return sum(wide[:, :, i:i + H, j:j + W, :] for i in range(n) for j in range(n))


def spatial_norm_fprop(x: np.ndarray, y: np.ndarray, *, n: int, k: float, alpha: float, beta: float) -> None:
    """y = x * scale^-beta with scale = k + alpha * sum of x^2 over the n x n square of the same map.

    alpha multiplies the plain sum: the program's .001 of a 5 x 5 square is passed as .001 / 25.  A square clipped at the border
    is not rescaled.  Channels do not meet here (lrn.py is the layer where they do).

    x (G, N, H, W, C) is read; y, of its shape and not x itself, is written entirely.
    """
    checks.norm("spatial_norm_fprop", x=x, y=y, n=n, outputs=("y",))
    scale = k + alpha * _square_sum(x * x, n)
    y[...] = x * scale**-beta


def spatial_norm_bprop(x: np.ndarray, dy: np.ndarray, dx: np.ndarray, *, n: int, k: float, alpha: float, beta: float) -> None:
    """dx[j] = dy[j] scale[j]^-beta - 2 alpha beta x[j] * sum of dy[i] x[i] scale[i]^(-beta-1) over the square of j."""
    checks.norm("spatial_norm_bprop", x=x, dy=dy, dx=dx, n=n, outputs=("dx",))
    scale = k + alpha * _square_sum(x * x, n)
    through_scale = _square_sum(dy * x * scale**(-beta - 1), n)
    dx[...] = dy * scale**-beta - 2 * alpha * beta * x * through_scale
