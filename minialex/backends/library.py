"""Linear layers by the array library's matrix product (cuBLAS behind CuPy), beside the kernels: a variant that runs where it is named.

`choose` never takes it: a library orders its sums by the shape, so its bits differ with batch and placement.  `xp` is the array
module; the tests prove the same lines with NumPy.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any

from ..spec import BF16, DTypeError, LayoutError, ShapeError
from .compiled import Compiled, Memory

VARIANT = "cublas"


def _parts(x, y, groups: int) -> Iterator[tuple[int, int, slice, slice, bool]]:
    """(column of y, column of x, rows of w, columns of w, first of its sum for y) of each product, in the order of the sums."""
    F, K = x.shape[2], y.shape[2]
    for g in range(y.shape[0]):
        for i in [g] if groups > 1 else range(x.shape[0]):
            start = 0 if groups > 1 else i * F
            yield g, i, slice(g * K, g * K + K), slice(start, start + F), groups > 1 or i == 0


def _add_product(xp: ModuleType, a, b, out, first: bool) -> None:
    if first and out.flags.c_contiguous:
        xp.matmul(a, b, out=out)
    else:
        out[...] = xp.matmul(a, b) if first else out + xp.matmul(a, b)


def linear_fprop(xp: ModuleType, groups: int, x, w, b, y, relu: bool, dropout) -> None:
    """y = (P_0 + P_1 + ...) + b, or of that the ReLU."""
    if dropout is not None:
        raise ShapeError(f"linear_relu_fprop: variant {VARIANT} draws no dropout; call dropout_fprop behind it, or name no variant")
    for g, i, rows, inputs, first in _parts(x, y, groups):
        _add_product(xp, x[i], w[rows, inputs].T, y[g], first)
    if b is not None:
        y += b.reshape(y.shape[0], 1, -1)
    if relu:
        xp.maximum(y, 0, out=y)


def linear_dgrad(xp: ModuleType, groups: int, dy, w, dx, gate, scale: float) -> None:
    """dx of a column is D_0 + D_1 + ... over the output columns; times `scale` where the gate is open, else 0."""
    for g, i, rows, inputs, _ in _parts(dx, dy, groups):
        _add_product(xp, dy[g], w[rows, inputs], dx[i], groups > 1 or g == 0)
    if gate is not None:
        dx[...] = xp.where(gate > 0, dx * dx.dtype.type(scale), dx.dtype.type(0))


def linear_wgrad(xp: ModuleType, groups: int, x, dy, dw, db, accumulate: bool) -> None:
    for g, i, rows, inputs, _ in _parts(x, dy, groups):
        _add_product(xp, dy[g].T, x[i], dw[rows, inputs], not accumulate)
    total = dy.sum(axis=1).reshape(db.shape)
    db[...] = db + total if accumulate else total


PRODUCTS = {"linear_fprop": linear_fprop, "linear_dgrad": linear_dgrad, "linear_wgrad": linear_wgrad}


class WithLibrary(Compiled):
    """The kernels, and for linear layers one more variant of `Memory.xp`."""

    def __init__(self, extension: ModuleType, memory: Memory):
        super().__init__(extension, memory)
        self._xp: ModuleType = memory.xp

    def variants(self, op: str) -> tuple[str, ...]:
        names = super().variants(op)
        return (*names[:-1], VARIANT, names[-1]) if op in PRODUCTS else names

    def precision_of(self, op: str, variant: str) -> str:
        return "float32" if variant == VARIANT else super().precision_of(op, variant)

    def _ring(self, op: str, dims: Iterable, *arguments: Any, variant: str | None) -> None:
        if variant != VARIANT or op not in PRODUCTS:
            super()._ring(op, dims, *arguments, variant=variant)
            return
        if os.environ.get("CUPY_TF32", "0") != "0":
            raise ShapeError(f"{op}: variant {VARIANT} does not run in float32 while CUPY_TF32 is set; unset it")
        for array in arguments:
            if hasattr(array, "shape") and not isinstance(array, self._xp.ndarray):
                raise LayoutError(f"{op}: an array is a {type(array).__name__}, not of this device; make it with ops.from_host")
            if str(getattr(array, "dtype", "")) == BF16:
                raise DTypeError(f"{op}: variant {VARIANT} takes activations of float32, not of bfloat16")
        with self.memory.current():
            PRODUCTS[op](self._xp, tuple(dims)[-1], *arguments)
