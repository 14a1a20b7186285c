"""Response normalisation over a square of the same map on the CPU: separable sums over one zero-bordered image."""

from __future__ import annotations

import numpy as np

from .. import checks
from .sums import divide_by_power, scale, window_sum
from .workers import over_images, scratch, zeroed


def spatial_norm_fprop(x: np.ndarray, y: np.ndarray, *, n: int, k: float, alpha: float, beta: float) -> None:
    """y = x * s^-beta with s = k + alpha * sum of x^2 over the n x n square around, clipped at the border."""
    checks.norm("spatial_norm_fprop", x=x, y=y, n=n, outputs=("y",))

    def image(x: np.ndarray, y: np.ndarray) -> None:
        divide_by_power(x, _scale(x, n, k, alpha), beta, y)

    _each_image(image, x, y)


def spatial_norm_bprop(x: np.ndarray, dy: np.ndarray, dx: np.ndarray, *, n: int, k: float, alpha: float, beta: float) -> None:
    """dx = dy * s^-beta - 2 alpha beta x * sum over the square of dy x s^(-beta-1); s is computed again from x."""
    checks.norm("spatial_norm_bprop", x=x, dy=dy, dx=dx, n=n, outputs=("dx",))

    def image(x: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
        s = _scale(x, n, k, alpha)
        divide_by_power(dy, s, beta, dx)
        np.divide(np.multiply(dx, x, out=scratch("term", x.shape, x.dtype)), s, out=s)
        through = _around(s, n)
        np.multiply(np.multiply(through, x, out=through), 2 * alpha * beta, out=through)
        np.subtract(dx, through, out=dx)

    _each_image(image, x, dy, dx)


def _each_image(function, *arrays: np.ndarray) -> None:
    def block(start: int, stop: int) -> None:
        for g in range(arrays[0].shape[0]):
            for image in range(start, stop):
                function(*(array[g, image] for array in arrays))

    over_images(block, arrays[0].shape[1], arrays[0].size)


def _scale(x: np.ndarray, n: int, k: float, alpha: float) -> np.ndarray:
    return scale(_around(np.multiply(x, x, out=scratch("squares", x.shape, x.dtype)), n), k, alpha)


def _around(a: np.ndarray, n: int) -> np.ndarray:
    """Sums of a (H, W, C) over n x n pixels around each, in scratch memory that the next call overwrites."""
    H, W, C = a.shape
    wide = zeroed("square", 1, (H + n - 1, W + n - 1, C), a.dtype, n)[0]
    np.copyto(wide[n // 2:n // 2 + H, n // 2:n // 2 + W], a)
    row = (W + n - 1) * C
    columns = scratch("down", (H * row,), a.dtype)
    np.copyto(columns, window_sum(wide.reshape(-1), n, row)[:H * row])     # window_sum's own memory is needed again
    across = window_sum(columns, n, C)
    result = scratch("around", (H, W, C), a.dtype)
    np.copyto(result, np.ndarray((H, W, C), a.dtype, across, 0, (row * a.itemsize, C * a.itemsize, a.itemsize)))
    return result
