"""ReLU on the CPU (paper, section 3.1): one pass forward, a comparison and a mask backward."""

from __future__ import annotations

import numpy as np

from .. import checks
from .elementwise import each_run, masked
from .workers import over_images, scratch


def relu_fprop(x: np.ndarray, y: np.ndarray) -> None:
    """y = max(x, 0), NaN stays NaN; y may be x."""
    checks.elementwise("relu_fprop", x=x, y=y, outputs=("y",))
    if x.ndim < 2:
        np.maximum(x, 0, out=y)
    else:
        over_images(lambda start, stop: np.maximum(x[:, start:stop], 0, out=y[:, start:stop]), x.shape[1], x.size)


def relu_bprop(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    """dx = dy where y > 0, else 0; dx may be dy."""
    checks.elementwise("relu_bprop", y=y, dy=dy, dx=dx, outputs=("dx",))
    each_run(_bprop, y, dy, dx)


def gated(gate: np.ndarray | None, scale: float, dx: np.ndarray) -> None:
    """What dgrad does at its end: dx = dx * scale where gate > 0, else 0; nothing without a gate."""
    if gate is None:
        return
    if scale != 1:
        each_run(lambda dx: np.multiply(dx, scale, out=dx), dx)
    each_run(_bprop, gate, dx, dx)


def _bprop(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    masked(dy, np.greater(y, 0, out=scratch("relu", y.shape, np.bool_)), dx)
