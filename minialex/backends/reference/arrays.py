"""Arrays and blocks of images: the oracle keeps NumPy arrays and does everything in one piece, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ...spec import MiniAlexError, ShapeError
from .. import checks


def empty(shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
    """A new array; floats are filled with NaN, so that a value nobody wrote shows itself.  Other types are zeros."""
    return np.full(shape, np.nan if np.issubdtype(np.dtype(dtype), np.floating) else 0, dtype)


def from_host(array: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """A contiguous copy of a NumPy array, or `out` with the values of `array`, which must have its shape and type.

    Never a view: as on a device, later changes to `array` are not seen.
    """
    if out is None:
        return np.array(array, order="C")
    checks.shape("from_host", "array", array, out.shape)
    checks.dtype("from_host", "array", array, str(out.dtype))
    out[...] = array
    return out


def to_host(array: np.ndarray) -> np.ndarray:
    """A contiguous copy as a NumPy array."""
    return np.array(array, order="C")


def image_ranges(N: int, size: int = 0) -> tuple[tuple[tuple[int, int], ...], ...]:
    """One range of one block of all images."""
    if N < 1:
        raise ShapeError(f"image_ranges: a batch of {N} images; give at least one")
    return (((0, N),),)


def parallel(function: Callable[[int, Any], object], items: Iterable) -> None:
    """function(0, item) for each item, in order."""
    for item in items:
        function(0, item)


def workers() -> int:
    """Always 1."""
    return 1


def set_workers(n: int) -> None:
    """Accepted and without effect: the oracle is serial."""
    if n < 1:
        raise MiniAlexError(f"set_workers: {n} workers; at least one is needed")


def sum_partials(partials: np.ndarray, out: np.ndarray) -> None:
    """out = the sum of the rows of partials (ranges, size): neighbours are added until one row is left.

    An odd last row waits for the next round.  The tree depends on the number of rows alone.
    """
    checks.rank("sum_partials", partials=partials, want=2)
    checks.floats("sum_partials", partials=partials, out=out)
    checks.shape("sum_partials", "out", out, (partials.shape[1],))
    checks.separate("sum_partials", {"out": out}, {"partials": partials})
    rows = list(partials)
    while len(rows) > 1:
        pairs = [a + b for a, b in zip(rows[0::2], rows[1::2], strict=False)]
        rows = pairs + rows[2 * len(pairs):]
    out[...] = rows[0]
