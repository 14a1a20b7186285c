"""The paper's stochastic gradient descent (section 5)."""

from __future__ import annotations

import numpy as np

from .. import checks


def sgd_update(w: np.ndarray, v: np.ndarray, dw: np.ndarray,
               *, segments: tuple[tuple[int, int, float, float], ...], momentum: float) -> None:
    """v <- momentum v - decay rate w - rate dw;  w <- w + v, with the learning rate inside the velocity (paper, section 5).

    The usual library form keeps the rate outside v and moves w by rate * v: the two part ways as soon as the rate
    changes.  `segments` are (start, stop, rate, decay) of the flat arrays w, v, dw, which may have different rates;
    what no segment covers stays as it is.  w and v are updated, dw is read.
    """
    checks.sgd("sgd_update", w=w, v=v, dw=dw, segments=segments)
    for start, stop, rate, decay in segments:
        part = slice(start, stop)
        v[part] = momentum * v[part] - decay * rate * w[part] - rate * dw[part]
        w[part] += v[part]
