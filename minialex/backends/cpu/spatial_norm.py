"""Response normalisation over a square of the same map on the CPU: separable sums over zero-bordered images."""

from __future__ import annotations

import math

import numpy as np

from .. import checks
from .pooling import each_piece
from .sums import divide_by_power, scale, window_sum
from .workers import scratch, zeroed

PIECE = 131072              # elements in work at a time: large enough that two workers do not queue for the interpreter


def spatial_norm_fprop(x: np.ndarray, y: np.ndarray, *, n: int, k: float, alpha: float, beta: float) -> None:
    """y = x * s^-beta with s = k + alpha * sum of x^2 over the n x n square around, clipped at the border."""
    checks.norm("spatial_norm_fprop", x=x, y=y, n=n, outputs=("y",))

    def images(x: np.ndarray, y: np.ndarray) -> None:
        divide_by_power(x, _scale(x, n, k, alpha), beta, y)

    each_piece(images, x, y, elements=PIECE)


def spatial_norm_bprop(x: np.ndarray, dy: np.ndarray, dx: np.ndarray, *, n: int, k: float, alpha: float, beta: float) -> None:
    """dx = dy * s^-beta - 2 alpha beta x * sum over the square of dy x s^(-beta-1); s is computed again from x."""
    checks.norm("spatial_norm_bprop", x=x, dy=dy, dx=dx, n=n, outputs=("dx",))

    def images(x: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
        s = _scale(x, n, k, alpha)
        divide_by_power(dy, s, beta, dx)
        through = scratch("through", x.shape, x.dtype)
        np.multiply(dx, x, out=through)
        np.multiply(_around(np.divide, through, s, n), x, out=through)
        np.multiply(through, 2 * alpha * beta, out=through)
        np.subtract(dx, through, out=dx)

    each_piece(images, x, dy, dx, elements=PIECE)


def _scale(x: np.ndarray, n: int, k: float, alpha: float) -> np.ndarray:
    return scale(_around(np.multiply, x, x, n), k, alpha, scratch("s", x.shape, x.dtype))


def _around(ufunc: np.ufunc, a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """Sums of ufunc(a, b), images (..., H, W, C), over n x n pixels around each: a view of scratch memory that the next call overwrites."""
    *images, H, W, C = a.shape
    wide = zeroed("square", math.prod(images), (H + n - 1, W + n - 1, C), a.dtype, n)
    bordered = wide.reshape(*images, *wide.shape[1:])
    ufunc(a, b, out=bordered[..., n // 2:n // 2 + H, n // 2:n // 2 + W, :])
    down = window_sum(wide.reshape(-1), n, wide.strides[1] // a.itemsize, "down")
    return np.ndarray(a.shape, a.dtype, window_sum(down, n, C, "across"), 0, bordered.strides)
