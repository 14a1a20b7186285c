"""What the ops with neighbours in a map share: pieces of images; and both poolings, which inputs the windows' taps meet along one axis."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np

from .workers import over_images

ELEMENTS = 1 << 19              # of x in work at a time


@lru_cache(maxsize=256)
def taps(extent: int, out: int, window: int, stride: int) -> tuple[tuple[slice, int], ...]:
    """For each tap t of the window: the inputs t, t + stride ... it meets, and how many of the `out` windows that are."""
    result = []
    for t in range(min(window, extent)):
        count = min(out, -(-(extent - t) // stride))
        result.append((slice(t, t + (count - 1) * stride + 1, stride), count))
    return tuple(result)


def each_piece(function: Callable[..., None], *arrays: np.ndarray, elements: int = ELEMENTS) -> None:
    """function(*pieces), each piece some images (n or columns, n, H, W, C) of `elements` or one: all columns at once if small."""
    G, N, H, W, C = arrays[0].shape

    def block(start: int, stop: int) -> None:
        if G * (stop - start) * H * W * C <= elements:
            function(*(array[:, start:stop] for array in arrays))
            return
        step = max(1, elements // (H * W * C))
        for g in range(G):
            for a in range(start, stop, step):
                function(*(array[g, a:min(a + step, stop)] for array in arrays))

    over_images(block, N, arrays[0].size)


def reduce_rows(ufunc: np.ufunc, x: np.ndarray, out: np.ndarray, window: int, stride: int) -> None:
    """out (..., P, W, C) = ufunc over the windows' rows of x (..., H, W, C)."""
    _reduce(ufunc, [(x[..., rows, :, :], out[..., :count, :, :]) for rows, count in taps(x.shape[-3], out.shape[-3], window, stride)])


def reduce_columns(ufunc: np.ufunc, x: np.ndarray, out: np.ndarray, window: int, stride: int) -> None:
    """out (..., H, Q, C) = ufunc over the windows' columns of x (..., H, W, C)."""
    _reduce(ufunc, [(x[..., columns, :], out[..., :count, :]) for columns, count in taps(x.shape[-2], out.shape[-2], window, stride)])


def _reduce(ufunc: np.ufunc, pairs) -> None:
    first = pairs[0][0]                                     # tap 0 meets every window
    if len(pairs) > 1 and pairs[1][0].shape == first.shape:
        ufunc(first, pairs[1][0], out=pairs[1][1])
        pairs = pairs[2:]
    else:
        np.copyto(pairs[0][1], first)
        pairs = pairs[1:]
    for seen, out in pairs:
        ufunc(out, seen, out=out)
