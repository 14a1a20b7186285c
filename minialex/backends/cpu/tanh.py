"""Tanh on the CPU: NumPy's own, in runs that stay in the cache."""

from __future__ import annotations

import numpy as np

from .. import checks
from .elementwise import each_run
from .workers import scratch


def tanh_fprop(x: np.ndarray, y: np.ndarray) -> None:
    """y = tanh(x); y may be x."""
    checks.elementwise("tanh_fprop", x=x, y=y, outputs=("y",))
    each_run(lambda x, y: np.tanh(x, out=y), x, y)


def tanh_bprop(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    """dx = dy * (1 - y^2); dx may be dy."""
    checks.elementwise("tanh_bprop", y=y, dy=dy, dx=dx, outputs=("dx",))
    each_run(_bprop, y, dy, dx)


def _bprop(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    slope = np.multiply(y, y, out=scratch("slope", y.shape, y.dtype))
    np.multiply(dy, np.subtract(1, slope, out=slope), out=dx)
