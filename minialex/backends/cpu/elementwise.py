"""What the ops without neighbours share: whole arrays as contiguous runs that fit the cache, and exact masks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .workers import over_images, scratch

RUN = 32768                                             # elements: a few arrays of this many stay in the second-level cache
_SIGNED = {np.dtype(np.float32): np.int32, np.dtype(np.float64): np.int64}


def runs(*arrays: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Arrays of one shape as matching flat pieces of at most RUN elements."""
    first = arrays[0]
    if first.ndim == 1 or all(array.flags.c_contiguous for array in arrays):
        flat = arrays if first.ndim == 1 else [array.reshape(-1) for array in arrays]
        for start in range(0, first.size, RUN):
            yield tuple(array[start:start + RUN] for array in flat)
    else:
        for rows in zip(*arrays, strict=True):
            yield from runs(*rows)


def each_run(function: Callable[..., None], *arrays: np.ndarray) -> None:
    """function(*pieces) over all runs of activations (G, N, ...), images split over the workers."""
    def block(start: int, stop: int) -> None:
        for pieces in runs(*(array[:, start:stop] for array in arrays)):
            function(*pieces)

    if arrays[0].ndim < 2:
        for pieces in runs(*arrays):
            function(*pieces)
    else:
        over_images(block, arrays[0].shape[1], arrays[0].size)


def masked(values: np.ndarray, kept: np.ndarray, out: np.ndarray) -> np.ndarray:
    """out = values where kept, else 0, without a branch and without a product (0 * inf is no 0); out may be values, and the
    content of `kept` (bool) is lost.  A mask of all bits or none takes the values' bits."""
    signed = _SIGNED[values.dtype]
    bits = scratch("mask bits", kept.shape, signed)
    np.negative(kept.view(np.int8), out=kept.view(np.int8))         # 1 -> -1: all bits, also after widening
    np.copyto(bits, kept.view(np.int8))
    np.bitwise_and(values.view(signed), bits, out=out.view(signed))
    return out
