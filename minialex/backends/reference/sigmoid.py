"""Sigmoid, the other saturating unit of section 3.1."""

from __future__ import annotations

import numpy as np

from .. import checks


def sigmoid_fprop(x: np.ndarray, y: np.ndarray) -> None:
    """y = 1 / (1 + exp(-x)).  y may be x.

    For x < 0 it is exp(x) / (1 + exp(x)), the same number: so the exponential never overflows and small values of y keep all
    their digits.
    """
    checks.elementwise("sigmoid_fprop", x=x, y=y, outputs=("y",))
    small = np.exp(-np.abs(x))                          # in (0, 1]
    y[...] = np.where(x < 0, small, 1) / (1 + small)


def sigmoid_bprop(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    """dx = dy y (1 - y), from y alone.  dx may be dy."""
    checks.elementwise("sigmoid_bprop", y=y, dy=dy, dx=dx, outputs=("dx",))
    dx[...] = dy * y * (1 - y)
