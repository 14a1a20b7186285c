"""A compiled backend as the tests of the NumPy backends see one: ops that take NumPy arrays.

Each call copies its arrays to the device, between guard bands, runs the kernel and copies everything back, so one test
proves an op on all backends.  Device memory starts as NaN; what the kernel must not touch is compared afterwards.
"""

from __future__ import annotations

import inspect
import unittest
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from ..backends.checks import ACTIVATIONS
from ..backends.signatures import OPS
from ..bf16 import narrow, widen
from ..spec import BF16
from .guard import BAND, SENTINEL

ARRAYS = ("empty", "from_host", "to_host")
PLAIN = ("image_ranges", "parallel", "workers", "set_workers", "fused", "set_precision", "storage")
FLOATS_OF = {"loss_fprop": ("x", "p"), "loss_bprop": ("p",), "cells_fprop": ("x",), "cells_bprop": ("dy", "dx"), "joint_sum": ("p", "q")}


def as_read(kernels: Any, op: str, variant: str | None, arrays: dict[str, Any]) -> dict[str, Any]:
    """The host arrays of a call as a row of the op's table reads them: in precision "bf16" activations as bfloat16."""
    if variant not in kernels.variants(op) or kernels.precision_of(op, variant) != "bf16":
        return arrays
    return {name: narrow(a) if name in ("x", "dy") and isinstance(a, np.ndarray) else a for name, a in arrays.items()}


def _sentinel(dtype: np.dtype) -> Any:
    return dtype.type(SENTINEL) if dtype.kind == "f" else dtype.type(1 if dtype.kind == "b" else 93)


class OnHost:
    """`device_ops` with NumPy arrays in and out; `variant` forces that row of the table of every op that has it.

    `stored="uint16"` keeps the activations of each call as bfloat16 on the device: those that are read rounded, those that are written
    exact.  Of a row in precision "bf16", forced or set, what is read is bfloat16 in any case and what is written float32, unless told.

    Calls that the variant refuses, and calls on float64, which no kernel knows, skip the test."""

    def __init__(self, device_ops: ModuleType, variant: str | None = None, stored: str = "float32"):
        self.device_ops, self.variant, self.stored = device_ops, variant, stored
        self.kernels = device_ops.kernels

    def __getattr__(self, name: str) -> Callable:
        if name not in OPS:
            raise AttributeError(name)
        if name in PLAIN:
            return getattr(self.device_ops, name)
        return lambda *arguments, **options: self._call(name, *arguments, **options)

    def empty(self, shape: tuple[int, ...], dtype: str = "float32") -> np.ndarray:
        """NaN, or zeros where the type has none."""
        return np.full(shape, np.nan if np.dtype(dtype).kind == "f" else 0, dtype)

    def from_host(self, array: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """A copy."""
        if out is None:
            return np.array(array, order="C")
        out[...] = array
        return out

    def to_host(self, array: np.ndarray) -> np.ndarray:
        """A copy."""
        return np.array(array, order="C")

    def _call(self, op: str, *arguments: Any, **options: Any) -> None:
        function = getattr(self.device_ops, op)
        given = inspect.signature(function).bind(*arguments, **options).arguments
        arrays = {name: a for name, a in given.items() if isinstance(a, np.ndarray)}
        if any(a.dtype == np.float64 for a in arrays.values()):
            raise unittest.SkipTest("kernels compute in float32")
        device: dict[tuple, tuple[Any, Any]] = {}
        keys = {name: (a.__array_interface__["data"][0], a.shape, a.strides) for name, a in arrays.items()}
        stored = self._stored(op)
        for name, key in keys.items():
            if key not in device:
                device[key] = self._guarded(narrow(arrays[name]) if name in stored and arrays[name].dtype == np.float32 else arrays[name])
        if self.variant is not None and self.variant in self.table(op):
            given["variant"] = self.variant
        self._run(op, function, given | {name: device[key][1] for name, key in keys.items()})
        for name, key in keys.items():
            self._back(op, name, arrays[name], device[key][0])

    def _stored(self, op: str) -> tuple[str, ...]:
        """The arguments that lie on the device as bfloat16."""
        if self.stored == BF16:
            return tuple(name for name in ACTIVATIONS if name not in FLOATS_OF.get(op, ()))
        rows = {name for name in self.table(op) if self.kernels.precision_of(op, name) == "bf16"}
        forced = self.variant if self.variant in self.table(op) else None
        return ("x", "dy") if rows and (forced in rows or (forced is None and self.kernels.precision() == "bf16")) else ()

    def table(self, op: str) -> tuple[str, ...]:
        """The variants of an op; () for what is no kernel."""
        return self.kernels.variants(op) if op in self.kernels.extension.tables else ()

    def _run(self, op: str, function: Callable, arguments: dict[str, Any]) -> None:
        try:
            function(**arguments)
        except Exception as error:
            if self.variant is not None and f"variant {self.variant} does not run" in str(error):
                raise unittest.SkipTest(str(error)) from error
            raise

    def _guarded(self, array: np.ndarray) -> tuple[Any, Any]:
        """(whole, middle): device copies of the array between bands, and alone."""
        whole = np.full(array.size + 2 * BAND, _sentinel(array.dtype), array.dtype)
        whole[BAND:BAND + array.size] = array.ravel()
        device = self.device_ops.from_host(whole)
        return device, device[BAND:BAND + array.size].reshape(array.shape)

    def _back(self, op: str, name: str, array: np.ndarray, whole: Any) -> None:
        host = self.device_ops.to_host(whole)
        bands = np.concatenate([host[:BAND], host[BAND + array.size:]])
        touched = np.flatnonzero(bands != _sentinel(host.dtype))
        if touched.size:
            first = int(touched[0])
            place = f"{BAND - first} before the start" if first < BAND else f"{first - BAND + 1} after the end"
            raise AssertionError(f"{op}: {name}: an element {place} of the device array was written")
        middle = host[BAND:BAND + array.size].reshape(array.shape)
        if (narrow(array) if middle.dtype == BF16 and array.dtype != BF16 else array).tobytes() == middle.tobytes():
            return
        if array.flags.writeable:
            array[...] = middle if array.dtype == BF16 else widen(middle)
        else:
            raise AssertionError(f"{op}: wrote its input {name}")
