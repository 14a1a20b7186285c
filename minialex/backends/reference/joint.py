"""The sum of a joint layer whose two columns' products were made apart (paper, section 3.2)."""

from __future__ import annotations

import numpy as np

from .. import checks


def joint_sum(p: np.ndarray, q: np.ndarray, b: np.ndarray | None, y: np.ndarray) -> None:
    """y = (p + q) + b, in this order: the columns first, the bias last, as in the fprops.

    p, q, y are (G, N, F) or (G, N, H, W, C); channel c of column g gets b[g * C + c].  b (G * C,) may be None: nothing is
    added.  y may be p or q.
    """
    checks.joint("joint_sum", p=p, q=q, b=b, y=y)
    y[...] = p + q
    if b is not None:
        y += b.reshape(y.shape[0], *(1,) * (y.ndim - 2), y.shape[-1])
