"""Response normalisation across channels with the max-pool behind it on the CPU: one op after the other, a few images at a time.

What lies between the two stays in the thread's scratch memory instead of the net's.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .. import checks
from .lrn import lrn_bprop, lrn_fprop
from .maxpool import maxpool_bprop, maxpool_fprop
from .pooling import ELEMENTS
from .relu import relu_bprop
from .workers import over_images, scratch


def lrn_maxpool_fprop(x: np.ndarray, y: np.ndarray, *, n: int, k: float, alpha: float, beta: float, window: int, stride: int) -> None:
    """y = maxpool(lrn(x))."""
    checks.norm_pool("lrn_maxpool_fprop", n=n, x=x, y=y, window=window, stride=stride, outputs=("y",))

    def block(start: int, stop: int) -> None:
        for xs, ys in _images(start, stop, x, y):
            between = scratch("between", xs.shape, x.dtype)
            lrn_fprop(xs, between, n=n, k=k, alpha=alpha, beta=beta)
            maxpool_fprop(between, ys, window=window, stride=stride)

    over_images(block, x.shape[1], x.size)


def lrn_maxpool_bprop(x: np.ndarray, y: np.ndarray, dy: np.ndarray, dx: np.ndarray, *, n: int, k: float, alpha: float, beta: float,
                      window: int, stride: int, ties: str, relu: bool) -> None:
    """dx through the pool and the norm, whose y is computed again; relu=True multiplies it by (x > 0)."""
    checks.ties("lrn_maxpool_bprop", ties)
    checks.norm_pool("lrn_maxpool_bprop", n=n, x=x, y=y, dy=dy, dx=dx, window=window, stride=stride, outputs=("dx",))

    def block(start: int, stop: int) -> None:
        for xs, ys, dys, dxs in _images(start, stop, x, y, dy, dx):
            between, dbetween = (scratch(name, xs.shape, x.dtype) for name in ("between", "dbetween"))
            lrn_fprop(xs, between, n=n, k=k, alpha=alpha, beta=beta)
            maxpool_bprop(between, ys, dys, dbetween, window=window, stride=stride, ties=ties)
            lrn_bprop(xs, dbetween, dxs, n=n, k=k, alpha=alpha, beta=beta)
            if relu:
                relu_bprop(xs, dxs, dxs)

    over_images(block, x.shape[1], x.size)


def _images(start: int, stop: int, *arrays: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Matching activations of as many images as the pools take at a time."""
    G, _, H, W, C = arrays[0].shape
    step = max(1, ELEMENTS // (G * H * W * C))
    for a in range(start, stop, step):
        yield [array[:, a:min(a + step, stop)] for array in arrays]
