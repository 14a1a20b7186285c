"""The update of the paper's section 5 on the CPU, in runs of fixed length shared among the workers."""

from __future__ import annotations

import numpy as np

from .. import checks
from .workers import over_chunks, scratch

RUN = 131072                # elements: long enough that two workers do not queue for the interpreter between passes
RUNS = 8                    # of one item of work


def sgd_update(w: np.ndarray, v: np.ndarray, dw: np.ndarray, *, segments: tuple[tuple[int, int, float, float], ...],
               momentum: float) -> None:
    """v = momentum v - decay rate w - rate dw;  w = w + v: the rate inside the velocity, where most libraries keep it outside.

    Elements outside all segments stay as they are.
    """
    checks.sgd("sgd_update", w=w, v=v, dw=dw, segments=segments)
    todo = [(a, min(a + RUN, stop), rate, decay) for start, stop, rate, decay in segments for a in range(start, stop, RUN)]

    def chunk(first: int, last: int) -> None:
        for start, stop, rate, decay in todo[first:last]:
            _update(w[start:stop], v[start:stop], dw[start:stop], rate, decay, momentum)

    over_chunks(chunk, len(todo), RUNS)


def _update(w, v, dw, rate: float, decay: float, momentum: float) -> None:
    term = scratch("term", w.shape, w.dtype)
    np.multiply(v, momentum, out=v)
    if decay:
        np.subtract(v, np.multiply(w, decay * rate, out=term), out=v)
    np.subtract(v, np.multiply(dw, rate, out=term), out=v)
    np.add(w, v, out=w)
