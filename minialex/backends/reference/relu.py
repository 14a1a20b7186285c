"""ReLU (paper, section 3.1)."""

from __future__ import annotations

import numpy as np

from .. import checks


def relu_fprop(x: np.ndarray, y: np.ndarray) -> None:
    """y = max(0, x).  NaN stays NaN, so that a diverged run cannot hide behind a ReLU.  y may be x."""
    checks.elementwise("relu_fprop", x=x, y=y, outputs=("y",))
    y[...] = np.maximum(x, 0)


def gated(gate: np.ndarray | None, scale: float, dx: np.ndarray) -> None:
    """What dgrad does at its end: dx = dx * scale where gate > 0, else 0; nothing without a gate."""
    if gate is not None:
        dx[...] = np.where(gate > 0, dx * scale, 0)


def relu_bprop(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    """dx = dy where y > 0, else 0: at the kink, too, nothing passes.  dx may be dy."""
    checks.elementwise("relu_bprop", y=y, dy=dy, dx=dx, outputs=("dx",))
    dx[...] = np.where(y > 0, dy, 0)
