"""Local response normalisation on the CPU (paper, section 3.3): runs of pixels, neighbours by shifted additions."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .. import checks
from .parts import dense, record
from .sums import divide_by_power, scale, window_sum
from .workers import over_images, scratch, zeroed

CHUNK = 131072              # elements: small enough for the cache, large enough that two workers do not queue for the interpreter


def lrn_fprop(x: np.ndarray, y: np.ndarray, *, n: int, k: float, alpha: float, beta: float) -> None:
    """y = x * s^-beta with s = k + alpha * sum of x^2 over the n channels around, clipped to the column."""
    checks.norm("lrn_fprop", x=x, y=y, n=n, outputs=("y",))

    def block(start: int, stop: int) -> None:
        for xs, ys in _pixels(n, x[:, start:stop], y[:, start:stop]):
            divide_by_power(xs, _scale(xs, n, k, alpha), beta, ys)

    over_images(block, x.shape[1], x.size)


def lrn_bprop(x: np.ndarray, dy: np.ndarray, dx: np.ndarray, *, n: int, k: float, alpha: float, beta: float) -> None:
    """dx = dy * s^-beta - 2 alpha beta x * sum over the window of dy x s^(-beta-1); s is computed again from x."""
    checks.norm("lrn_bprop", x=x, dy=dy, dx=dx, n=n, outputs=("dx",))

    def block(start: int, stop: int) -> None:
        for xs, dys, dxs in _pixels(n, x[:, start:stop], dy[:, start:stop], dx[:, start:stop]):
            s = _scale(xs, n, k, alpha)
            divide_by_power(dys, s, beta, dxs)                              # dy s^-beta, both terms' factor
            np.divide(np.multiply(dxs, xs, out=scratch("term", xs.shape, xs.dtype)), s, out=s)
            through = _around(s, n)
            np.multiply(np.multiply(through, xs, out=through), 2 * alpha * beta, out=through)
            np.subtract(dxs, through, out=dxs)

    over_images(block, x.shape[1], x.size)


def _pixels(n: int, *arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Matching (pixels, C) pieces of activations."""
    C = arrays[0].shape[4]
    step = max(1, CHUNK // (C + n - 1))
    whole = all(dense(array) for array in arrays)
    for g in range(arrays[0].shape[0]):
        columns = [array[g] for array in arrays]
        for rows in [columns] if whole else zip(*columns, strict=True):
            rows = [a.reshape(-1, C) for a in rows]
            for start in range(0, rows[0].shape[0], step):
                yield tuple(a[start:start + step] for a in rows)


def _scale(x: np.ndarray, n: int, k: float, alpha: float) -> np.ndarray:
    sums = _around(np.multiply(x, x, out=scratch("squares", x.shape, x.dtype)), n)
    return scale(sums, k, alpha, sums)


def _around(a: np.ndarray, n: int) -> np.ndarray:
    """Sums of a (pixels, C) over n channels around each, in scratch memory that the next call overwrites.

    Pixels are copied, whole runs of channels at a time, into rows with n - 1 zeros between them: then one flat addition
    serves all pixels and no window reaches the next one.
    """
    M, C = a.shape
    run = record(a.itemsize, C)
    wide = zeroed("lrn", M, (C + n - 1,), a.dtype, key=n)
    np.copyto(np.ndarray((M,), run, wide, (n // 2) * a.itemsize, wide.strides[:1]), a.view(run)[:, 0])
    sums = window_sum(wide.reshape(-1), n)
    result = scratch("around", (M, C), a.dtype)
    np.copyto(result.view(run)[:, 0], np.ndarray((M,), run, sums, 0, wide.strides[:1]))
    return result
