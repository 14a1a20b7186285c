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

from ..backends.signatures import OPS
from .guard import BAND, SENTINEL

ARRAYS = ("empty", "from_host", "to_host")
PLAIN = ("image_ranges", "parallel", "workers", "set_workers", "fused", "set_precision")


def _sentinel(dtype: np.dtype) -> Any:
    return dtype.type(SENTINEL) if dtype.kind == "f" else dtype.type(1 if dtype.kind == "b" else 93)


class OnHost:
    """`device_ops` with NumPy arrays in and out; `variant` forces that row of the table of every op that has it.

    Calls that the variant refuses, and calls on float64, which no kernel knows, skip the test."""

    def __init__(self, device_ops: ModuleType, variant: str | None = None):
        self.device_ops, self.variant = device_ops, variant
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
        for name, key in keys.items():
            if key not in device:
                device[key] = self._guarded(arrays[name])
        if self.variant is not None and self.variant in self.table(op):
            given["variant"] = self.variant
        self._run(op, function, given | {name: device[key][1] for name, key in keys.items()})
        for name, key in keys.items():
            self._back(op, name, arrays[name], device[key][0])

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
        touched = np.flatnonzero(bands != _sentinel(array.dtype))
        if touched.size:
            first = int(touched[0])
            place = f"{BAND - first} before the start" if first < BAND else f"{first - BAND + 1} after the end"
            raise AssertionError(f"{op}: {name}: an element {place} of the device array was written")
        middle = host[BAND:BAND + array.size].reshape(array.shape)
        if array.flags.writeable:
            array[...] = middle
        elif array.tobytes() != middle.tobytes():
            raise AssertionError(f"{op}: wrote its input {name}")
