"""Sigmoid on the CPU: 1 / (1 + exp(-|x|)) and its complement, so that no exponential overflows."""

from __future__ import annotations

import numpy as np

from .. import checks
from .elementwise import each_run
from .workers import scratch


def sigmoid_fprop(x: np.ndarray, y: np.ndarray) -> None:
    """y = 1 / (1 + exp(-x)), the small tail kept; y may be x."""
    checks.elementwise("sigmoid_fprop", x=x, y=y, outputs=("y",))
    each_run(_fprop, x, y)


def _fprop(x: np.ndarray, y: np.ndarray) -> None:
    small = np.abs(x, out=scratch("sigmoid", x.shape, x.dtype))
    np.exp(np.negative(small, out=small), out=small)                    # exp(-|x|), at most 1
    numerator = scratch("numerator", x.shape, x.dtype)
    numerator.fill(1)
    np.copyto(numerator, small, where=np.less(x, 0, out=scratch("negative", x.shape, np.bool_)))
    np.divide(numerator, np.add(small, 1, out=small), out=y)            # x < 0: exp(x) / (1 + exp(x))


def sigmoid_bprop(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    """dx = dy * y * (1 - y); dx may be dy."""
    checks.elementwise("sigmoid_bprop", y=y, dy=dy, dx=dx, outputs=("dx",))
    each_run(_bprop, y, dy, dx)


def _bprop(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    slope = np.subtract(1, y, out=scratch("slope", y.shape, y.dtype))
    np.multiply(dy, np.multiply(slope, y, out=slope), out=dx)
