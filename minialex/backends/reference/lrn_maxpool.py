"""Response normalisation across channels with the max-pool behind it: what the kernels do in one trip, here one after the other."""

from __future__ import annotations

import numpy as np

from .. import checks
from .lrn import lrn_bprop, lrn_fprop
from .maxpool import maxpool_bprop, maxpool_fprop
from .relu import gated


def lrn_maxpool_fprop(x: np.ndarray, y: np.ndarray, *, n: int, k: float, alpha: float, beta: float, window: int, stride: int) -> None:
    """y = maxpool(lrn(x)): x (G, N, H, W, C) is read; y (G, N, P, Q, C) is written entirely."""
    checks.norm_pool("lrn_maxpool_fprop", n=n, x=x, y=y, window=window, stride=stride, outputs=("y",))
    between = np.empty_like(x)
    lrn_fprop(x, between, n=n, k=k, alpha=alpha, beta=beta)
    maxpool_fprop(between, y, window=window, stride=stride)


def lrn_maxpool_bprop(x: np.ndarray, y: np.ndarray, dy: np.ndarray, dx: np.ndarray, *, n: int, k: float, alpha: float, beta: float,
                      window: int, stride: int, ties: str, relu: bool) -> None:
    """dx through the pool and the norm, which is computed again from x.

    relu=True: x came out of a ReLU, and dx is the gradient before that: dx where x > 0, else 0.
    """
    checks.ties("lrn_maxpool_bprop", ties)
    checks.norm_pool("lrn_maxpool_bprop", n=n, x=x, y=y, dy=dy, dx=dx, window=window, stride=stride, outputs=("dx",))
    between, dbetween = np.empty_like(x), np.empty_like(x)
    lrn_fprop(x, between, n=n, k=k, alpha=alpha, beta=beta)
    maxpool_bprop(between, y, dy, dbetween, window=window, stride=stride, ties=ties)
    lrn_bprop(x, dbetween, dx, n=n, k=k, alpha=alpha, beta=beta)
    if relu:
        gated(x, 1.0, dx)
