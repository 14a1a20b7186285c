"""Local response normalisation across channels (paper, section 3.3)."""

from __future__ import annotations

import numpy as np

from .. import checks


def _window_sum(a, n):
    """At each channel the sum of a over the n channels centred on it, clipped at the ends of the column.

    Each sum is added afresh: a running sum that adds the next and subtracts the last cancels (1e4 leaving the window
    turns what is left into 0 in float32).
    """
    radius = n // 2
    wide = np.pad(a, ((0, 0),) * 4 + ((radius, radius),))
    return sum(wide[..., d:d + a.shape[-1]] for d in range(n))


def lrn_fprop(x: np.ndarray, y: np.ndarray, *, n: int, k: float, alpha: float, beta: float) -> None:
    """y[c] = x[c] / scale[c]^beta with scale[c] = k + alpha * sum of x[j]^2 over the window of c (paper, section 3.3).

    window(c): the n channels centred on c, clipped to the column.  alpha multiplies the plain sum (Caffe and the 2012
    program divide it by n, which is the layer's business), and a clipped window is not rescaled.  A column is an array
    of its own, so no window crosses its border.

    x (G, N, H, W, C) is read; y, of its shape and not x itself, is written entirely.
    """
    checks.norm("lrn_fprop", x=x, y=y, n=n, outputs=("y",))
    scale = k + alpha * _window_sum(x * x, n)
    y[...] = x * scale**-beta


def lrn_bprop(x: np.ndarray, dy: np.ndarray, dx: np.ndarray, *, n: int, k: float, alpha: float, beta: float) -> None:
    """dx[j] = dy[j] scale[j]^-beta - 2 alpha beta x[j] * sum of dy[c] x[c] scale[c]^(-beta-1) over all c whose window holds j.

    These c are window(j) itself, as n is odd.  The scale is computed again from x, not saved.
    """
    checks.norm("lrn_bprop", x=x, dy=dy, dx=dx, n=n, outputs=("dx",))
    scale = k + alpha * _window_sum(x * x, n)
    through_scale = _window_sum(dy * x * scale**(-beta - 1), n)
    dx[...] = dy * scale**-beta - 2 * alpha * beta * x * through_scale
