"""The sum of a joint layer on the CPU (paper, section 3.2): two passes over pieces that stay in the cache."""

from __future__ import annotations

import numpy as np

from .. import checks
from .workers import over_images


def joint_sum(p: np.ndarray, q: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y = (p + q) + b: the columns' products first, the bias last; b may be None, y may be p or q."""
    checks.joint("joint_sum", p=p, q=q, b=b, y=y)
    biases = None if b is None else b.reshape(y.shape[0], *(1,) * (y.ndim - 2), y.shape[-1])

    def block(start: int, stop: int) -> None:
        for image in range(start, stop):                # one at a time: the second pass finds its sums in the cache
            total = y[:, image:image + 1]
            np.add(p[:, image:image + 1], q[:, image:image + 1], out=total)
            if biases is not None:
                np.add(total, biases, out=total)

    over_images(block, y.shape[1], y.size)
