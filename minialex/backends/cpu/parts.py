"""Which channels of which column meet which filters: the geometry that conv and local share, and their im2col."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..checks import ConvDims
from .workers import zeroed

COLUMN_ELEMENTS = 1_600_000         # an im2col matrix of at most about 6 MB: larger ones only push others out of the cache


class Part(NamedTuple):
    """Filters `maps` (of all K) read `channels` of column gx, their `inputs`, and make `outputs` of column gy."""

    gx: int
    channels: slice
    inputs: slice
    gy: int
    outputs: slice
    maps: slice


@lru_cache(maxsize=256)
def parts(d: ConvDims) -> tuple[Part, ...]:
    """All products of a layer; those of one output column in the order of the input columns that it reads."""
    Cx, Ky, Cg, Kg = d.C // d.Gx, d.K // d.Gy, d.C // d.groups, d.K // d.groups
    if d.groups == 1:
        return tuple(Part(gx, slice(0, Cx), slice(gx * Cx, gx * Cx + Cx), gy, slice(0, Ky), slice(gy * Ky, gy * Ky + Ky))
                     for gx in range(d.Gx) for gy in range(d.Gy))
    result = []
    for g in range(d.groups):
        (gx, c), (gy, k) = divmod(g * Cg, Cx), divmod(g * Kg, Ky)
        result.append(Part(gx, slice(c, c + Cg), slice(0, Cg), gy, slice(k, k + Kg), slice(g * Kg, g * Kg + Kg)))
    return tuple(result)


def dense(array: np.ndarray) -> bool:
    """True where the images of one column follow each other without a gap, so that (n, H, W) reads as one axis of rows."""
    return array.shape[1] == 1 or array.strides[1] == array.itemsize * array.shape[2] * array.shape[3] * array.shape[4]


def pieces(d: ConvDims, channels: int, single: bool) -> list[tuple[int, int]]:
    """The images of a call as (start, stop), evenly cut so that one im2col matrix stays within COLUMN_ELEMENTS."""
    most = 1 if single else max(1, COLUMN_ELEMENTS // (d.P * d.Q * d.R * d.S * channels))
    size = -(-d.N // -(-d.N // most))
    return [(start, min(start + size, d.N)) for start in range(0, d.N, size)]


@lru_cache(maxsize=256)
def record(itemsize: int, count: int) -> np.dtype:
    """`count` neighbouring elements as one opaque item: NumPy then copies whole runs, not elements."""
    return np.dtype((np.void, itemsize * count))


def padded(x: np.ndarray, sources: list[tuple[int, slice]], start: int, stop: int, d: ConvDims) -> np.ndarray:
    """Images start:stop of the named (column, channels) of x, side by side with their border of zeros, contiguous."""
    if len(sources) == 1 and d.before == d.after == 0:
        gx, channels = sources[0]
        block = x[gx, start:stop, :, :, channels]
        if block.flags.c_contiguous:
            return block
    widths = [channels.stop - channels.start for _, channels in sources]
    border = d.before + d.after
    a = zeroed("padded", stop - start, (d.H + border, d.W + border, sum(widths)), x.dtype, (d.before, d.after))
    inner, c = a[:, d.before:d.before + d.H, d.before:d.before + d.W], 0
    for (gx, channels), width in zip(sources, widths, strict=True):
        np.copyto(inner[..., c:c + width], x[gx, start:stop, :, :, channels])
        c += width
    return a


def windows(a: np.ndarray, d: ConvDims, order: str) -> np.ndarray:
    """The window rows of padded images a (n, H', W', C) as items of S*C elements: (n, P, Q, R), or (P, Q, n, R) for order "local"."""
    n, _, _, C = a.shape
    image, row, pixel, _ = a.strides
    shape, strides = (n, d.P, d.Q, d.R), (image, row * d.stride, pixel * d.stride, row)
    if order == "local":
        shape, strides = (d.P, d.Q, n, d.R), (strides[1], strides[2], image, row)
    return np.ndarray(shape, record(a.itemsize, d.S * C), a, 0, strides)
