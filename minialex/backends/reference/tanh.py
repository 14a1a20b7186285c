"""Tanh, the saturating unit that the paper compares with (section 3.1, figure 1)."""

from __future__ import annotations

import numpy as np

from .. import checks


def tanh_fprop(x: np.ndarray, y: np.ndarray) -> None:
    """y = tanh(x).  y may be x."""
    checks.elementwise("tanh_fprop", x=x, y=y, outputs=("y",))
    y[...] = np.tanh(x)


def tanh_bprop(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    """dx = dy (1 - y^2), from y alone.  dx may be dy."""
    checks.elementwise("tanh_bprop", y=y, dy=dy, dx=dx, outputs=("dx",))
    dx[...] = dy * (1 - y * y)
