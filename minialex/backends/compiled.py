"""The ops of the two compiled backends, emulated and cuda: check the arguments, ring the doorbell of the kernel.

One class for both, since the kernels are the same files; what differs is where arrays live (`memory`) and which extension runs them.
Every op takes `variant`, the name of one row of its table (cuda/README.md); None lets the kernels' own `choose` decide, a function of the
shapes.  Kernels compute in float32; activations and their gradients may be stored as bfloat16 (minialex/bf16.py): precision "bf16".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any, Protocol

import numpy as np

from ..spec import BF16, PRECISIONS, DTypeError, MiniAlexError, ShapeError
from . import checks
from .signatures import OPS

FUSED = ("conv_relu", "linear_relu", "lrn_maxpool", "cells")        # neighbours the kernels do in one trip; conv1 in whole vectors


class Memory(Protocol):
    """Arrays of one device."""

    device: int
    def empty(self, shape: tuple[int, ...], dtype: str) -> Any: ...
    def from_host(self, array: np.ndarray, out: Any) -> Any: ...
    def to_host(self, array: Any) -> np.ndarray: ...
    def copy(self, source: Any, out: Any) -> None: ...
    def stream(self) -> int: ...
    def own_stream(self, ahead: bool = False) -> None: ...
    def address(self, array: Any) -> int: ...
    def workspace(self, nbytes: int) -> int: ...
    def free(self) -> int: ...


def _float32(op: str, *alike: Any, either: tuple = ()) -> None:
    """Refuses what the kernels do not compute with, and arrays stored in several ways, as checks.stored says."""
    if (kind := str(alike[0].dtype)) not in ("float32", BF16):
        raise DTypeError(f"{op}: the arrays are {kind}, but the kernels compute in float32; use the reference backend for others")
    checks.stored(op, *alike, either=either)


class Compiled:
    """The ops on one device of `extension`, minialex._emulated or minialex._cuda."""

    def __init__(self, extension: ModuleType, memory: Memory):
        self.extension, self.memory = extension, memory
        self._context = extension.Context()
        self._context.device = memory.device
        self._context.workspace = memory.workspace
        self._capturing: int | None = None

    def _ring(self, op: str, dims: Iterable, *arguments: Any, variant: str | None) -> None:
        self._context.stream = self.stream()
        getattr(self.extension, op)(tuple(dims), *arguments, self._context, variant)

    def stream(self) -> int:
        """What ops are asked of now: the stream of its memory, or of a capture."""
        return self._capturing or self.memory.stream()

    def on(self, device: int) -> Compiled:
        """The same ops on another device."""
        count = self.extension.device_count()
        if not 0 <= device < count:
            raise MiniAlexError(f"there is no device {device}: this backend has {count}, numbered from 0")
        return type(self)(self.extension, type(self.memory)(self.extension, device))

    def name(self) -> str:
        """What --device calls it: "cuda:1"."""
        return f"{self.extension.__name__.rpartition('_')[2]}:{self.memory.device}"

    def capture(self, function: Callable[[], None]) -> Any:
        """The launches of `function` as a graph, which has not run: launch(stream) runs it, len() counts, depth() those of the longest
        chain.  Arrays and workspaces must be there already."""
        def body(stream: int) -> None:
            self._capturing = stream
            function()
        try:
            return self.extension.capture(self.memory.device, body)
        finally:
            self._capturing = None

    def finish(self) -> None:
        """Waits until the device has done all that was asked of its stream."""
        self.extension.stream_synchronize(self.memory.stream())

    @property
    def kernels(self) -> Compiled:
        """Itself, as a backend's module has it."""
        return self

    def room(self) -> tuple[str, int]:
        """(name, free bytes) of this device."""
        return self.name(), self.memory.free()

    def devices(self) -> list[str]:
        """One description for each device."""
        return [self.extension.describe(device) for device in range(self.extension.device_count())]

    def exports(self) -> dict[str, Callable]:
        """The ops by name, for the namespace of a backend module."""
        return {name: getattr(self, name) for name in OPS}

    # ---------------------------------------------------------------- what the tests and the bench ask
    def variants(self, op: str) -> tuple[str, ...]:
        """The rows of an op's table, best first; "direct" is the last."""
        return tuple(name for name, _ in self.extension.tables[op])

    def precision_of(self, op: str, variant: str) -> str:
        """In which precision a variant multiplies; sums are float32 in all of them."""
        return dict(self.extension.tables[op])[variant]

    def choose(self, op: str, dims: Iterable, precision: str = "float32") -> str:
        """The variant that runs these dims on a device that gives a block as much shared memory as this one; looks at nothing else."""
        return self.extension.choices[op](tuple(dims), precision, self.extension.shared_per_block(self.memory.device))

    # ---------------------------------------------------------------- arrays
    def empty(self, shape, dtype="float32"):
        return self.memory.empty(tuple(shape), str(dtype))

    def from_host(self, array, out=None):
        array = np.ascontiguousarray(array)
        if out is not None:
            checks.shape("from_host", "array", array, out.shape)
            checks.dtype("from_host", "array", array, str(out.dtype))
        return self.memory.from_host(array, out)

    def to_host(self, array):
        return self.memory.to_host(array)

    # ---------------------------------------------------------------- images in blocks: a device takes the whole batch at once
    def image_ranges(self, N, size=0):
        if N < 1:
            raise ShapeError(f"image_ranges: a batch of {N} images; give at least one")
        return (((0, N),),)

    def parallel(self, function, items):
        for item in items:
            function(0, item)

    def workers(self):
        return 1

    def set_workers(self, n):
        if n < 1:
            raise MiniAlexError(f"set_workers: {n} workers; at least one is needed")

    def sum_partials(self, partials, out):
        """Of one row on these backends, as image_ranges gives one range; of several in their order."""
        checks.rank("sum_partials", partials=partials, want=2)
        checks.floats("sum_partials", partials=partials, out=out)
        checks.shape("sum_partials", "out", out, (partials.shape[1],))
        checks.separate("sum_partials", {"out": out}, {"partials": partials})
        self.memory.copy(partials[:1].reshape(out.shape), out)
        total = out.reshape((1, 1, -1))
        for r in range(1, partials.shape[0]):
            self.joint_sum(total, partials[r:r + 1].reshape(total.shape), None, total)

    def fused(self):
        return FUSED

    def set_precision(self, name):
        if name not in PRECISIONS:
            raise MiniAlexError(f"set_precision: there is no precision {name!r}; choose {', '.join(PRECISIONS)}")
        self._context.precision = name

    def precision(self) -> str:
        """The one that is set."""
        return self._context.precision

    def storage(self, dtype):
        return BF16 if self._context.precision == "bf16" and dtype == "float32" else dtype

    # ---------------------------------------------------------------- layers with weights
    def conv_fprop(self, x, w, b, y, *, stride, pad, groups, variant=None):
        dims = checks.conv("conv_fprop", x=x, w=w, b=b, y=y, stride=stride, pad=pad, groups=groups, outputs=("y",))
        _float32("conv_fprop", x, either=(y,))
        self._ring("conv_fprop", dims, x, w, b, y, False, variant=variant)

    def conv_relu_fprop(self, x, w, b, y, *, stride, pad, groups, variant=None):
        dims = checks.conv("conv_relu_fprop", x=x, w=w, b=b, y=y, stride=stride, pad=pad, groups=groups, outputs=("y",))
        _float32("conv_relu_fprop", x, either=(y,))
        self._ring("conv_fprop", dims, x, w, b, y, True, variant=variant)

    def conv_dgrad(self, dy, w, dx, *, stride, pad, groups, gate=None, scale=1.0, variant=None):
        dims = checks.conv("conv_dgrad", x=dx, w=w, y=dy, stride=stride, pad=pad, groups=groups, outputs=("x",))
        checks.gate("conv_dgrad", gate, dx)
        _float32("conv_dgrad", dy, either=(dx,))
        self._ring("conv_dgrad", dims, dy, w, dx, gate, scale, variant=variant)

    def conv_wgrad(self, x, dy, dw, db, *, stride, pad, groups, accumulate=False, variant=None):
        dims = checks.conv("conv_wgrad", x=x, w=dw, b=db, y=dy, stride=stride, pad=pad, groups=groups, outputs=("w", "b"))
        _float32("conv_wgrad", x, dy)
        self._ring("conv_wgrad", dims, x, dy, dw, db, accumulate, variant=variant)

    def local_fprop(self, x, w, b, y, *, stride, pad, groups, variant=None):
        dims = checks.conv("local_fprop", x=x, w=w, b=b, y=y, stride=stride, pad=pad, groups=groups, outputs=("y",), local=True)
        _float32("local_fprop", x, either=(y,))
        self._ring("local_fprop", dims, x, w, b, y, variant=variant)

    def local_dgrad(self, dy, w, dx, *, stride, pad, groups, gate=None, scale=1.0, variant=None):
        dims = checks.conv("local_dgrad", x=dx, w=w, y=dy, stride=stride, pad=pad, groups=groups, outputs=("x",), local=True)
        checks.gate("local_dgrad", gate, dx)
        _float32("local_dgrad", dy, either=(dx,))
        self._ring("local_dgrad", dims, dy, w, dx, gate, scale, variant=variant)

    def local_wgrad(self, x, dy, dw, db, *, stride, pad, groups, accumulate=False, variant=None):
        dims = checks.conv("local_wgrad", x=x, w=dw, b=db, y=dy, stride=stride, pad=pad, groups=groups, outputs=("w", "b"), local=True)
        _float32("local_wgrad", x, dy)
        self._ring("local_wgrad", dims, x, dy, dw, db, accumulate, variant=variant)

    def linear_fprop(self, x, w, b, y, *, groups, variant=None):
        checks.linear("linear_fprop", x=x, w=w, b=b, y=y, groups=groups, outputs=("y",))
        _float32("linear_fprop", x, either=(y,))
        self._ring("linear_fprop", _linear(x, y, w, groups), x, w, b, y, False, None, variant=variant)

    def linear_relu_fprop(self, x, w, b, y, *, groups, dropout=None, variant=None):
        checks.linear("linear_relu_fprop", x=x, w=w, b=b, y=y, groups=groups, outputs=("y",))
        _float32("linear_relu_fprop", x, either=(y,))
        mask = None if dropout is None else _mask("linear_relu_fprop", y, **dropout)
        self._ring("linear_fprop", _linear(x, y, w, groups), x, w, b, y, True, mask, variant=variant)

    def linear_dgrad(self, dy, w, dx, *, groups, gate=None, scale=1.0, variant=None):
        checks.linear("linear_dgrad", x=dx, w=w, y=dy, groups=groups, outputs=("x",))
        checks.gate("linear_dgrad", gate, dx)
        _float32("linear_dgrad", dy, either=(dx,))
        self._ring("linear_dgrad", _linear(dx, dy, w, groups), dy, w, dx, gate, scale, variant=variant)

    def linear_wgrad(self, x, dy, dw, db, *, groups, accumulate=False, variant=None):
        checks.linear("linear_wgrad", x=x, w=dw, b=db, y=dy, groups=groups, outputs=("w", "b"))
        _float32("linear_wgrad", x, dy)
        self._ring("linear_wgrad", _linear(x, dy, dw, groups), x, dy, dw, db, accumulate, variant=variant)

    def joint_sum(self, p, q, b, y, *, variant=None):
        checks.joint("joint_sum", p=p, q=q, b=b, y=y)
        _float32("joint_sum", p, q)
        per_column = math.prod(y.shape[1:])
        self._ring("joint_sum", (y.size, y.shape[0], per_column, y.shape[-1]), p, q, b, y, variant=variant)

    def cells_fprop(self, x, y, *, cell, variant=None):
        checks.cells("cells_fprop", x=x, y=y, cell=cell, outputs=("y",))
        _float32("cells_fprop", x)
        self._ring("cells_fprop", (*_images(x), cell), x, y, variant=variant)

    def cells_bprop(self, dy, dx, *, cell, variant=None):
        checks.cells("cells_bprop", dx=dx, dy=dy, cell=cell, outputs=("dx",))
        _float32("cells_bprop", dy)
        self._ring("cells_bprop", (*_images(dx), cell), dy, dx, variant=variant)

    # ---------------------------------------------------------------- layers without weights
    def _map_fprop(self, op, x, y, variant):
        checks.elementwise(op, x=x, y=y, outputs=("y",))
        _float32(op, x, y)
        self._ring(op, (x.size,), x, y, variant=variant)

    def _map_bprop(self, op, y, dy, dx, variant):
        checks.elementwise(op, y=y, dy=dy, dx=dx, outputs=("dx",))
        _float32(op, y, dy, dx)
        self._ring(op, (y.size,), y, dy, dx, variant=variant)

    def relu_fprop(self, x, y, *, variant=None):
        self._map_fprop("relu_fprop", x, y, variant)

    def relu_bprop(self, y, dy, dx, *, variant=None):
        self._map_bprop("relu_bprop", y, dy, dx, variant)

    def tanh_fprop(self, x, y, *, variant=None):
        self._map_fprop("tanh_fprop", x, y, variant)

    def tanh_bprop(self, y, dy, dx, *, variant=None):
        self._map_bprop("tanh_bprop", y, dy, dx, variant)

    def sigmoid_fprop(self, x, y, *, variant=None):
        self._map_fprop("sigmoid_fprop", x, y, variant)

    def sigmoid_bprop(self, y, dy, dx, *, variant=None):
        self._map_bprop("sigmoid_bprop", y, dy, dx, variant)

    def _norm_fprop(self, op, x, y, n, k, alpha, beta, variant):
        checks.norm(op, x=x, y=y, n=n, outputs=("y",))
        _float32(op, x, y)
        self._ring(op, (*_images(x), n), x, y, k, alpha, beta, variant=variant)

    def _norm_bprop(self, op, x, dy, dx, n, k, alpha, beta, variant):
        checks.norm(op, x=x, dy=dy, dx=dx, n=n, outputs=("dx",))
        _float32(op, x, dy, dx)
        self._ring(op, (*_images(x), n), x, dy, dx, k, alpha, beta, variant=variant)

    def lrn_fprop(self, x, y, *, n, k, alpha, beta, variant=None):
        self._norm_fprop("lrn_fprop", x, y, n, k, alpha, beta, variant)

    def lrn_bprop(self, x, dy, dx, *, n, k, alpha, beta, variant=None):
        self._norm_bprop("lrn_bprop", x, dy, dx, n, k, alpha, beta, variant)

    def spatial_norm_fprop(self, x, y, *, n, k, alpha, beta, variant=None):
        self._norm_fprop("spatial_norm_fprop", x, y, n, k, alpha, beta, variant)

    def spatial_norm_bprop(self, x, dy, dx, *, n, k, alpha, beta, variant=None):
        self._norm_bprop("spatial_norm_bprop", x, dy, dx, n, k, alpha, beta, variant)

    def maxpool_fprop(self, x, y, *, window, stride, variant=None):
        checks.pool("maxpool_fprop", x=x, y=y, window=window, stride=stride, outputs=("y",))
        _float32("maxpool_fprop", x, y)
        self._ring("maxpool_fprop", (*_pool(x, y, window, stride), False), x, y, variant=variant)

    def maxpool_bprop(self, x, y, dy, dx, *, window, stride, ties, relu=False, variant=None):
        checks.ties("maxpool_bprop", ties)
        checks.pool("maxpool_bprop", x=x, y=y, dy=dy, dx=dx, window=window, stride=stride, outputs=("dx",))
        _float32("maxpool_bprop", x, y, dy, dx)
        self._ring("maxpool_bprop", (*_pool(x, y, window, stride), ties == "all"), x, y, dy, dx, relu, variant=variant)

    def avgpool_fprop(self, x, y, *, window, stride, variant=None):
        checks.pool("avgpool_fprop", x=x, y=y, window=window, stride=stride, outputs=("y",))
        _float32("avgpool_fprop", x, y)
        self._ring("avgpool_fprop", (*_pool(x, y, window, stride), False), x, y, variant=variant)

    def avgpool_bprop(self, dy, dx, *, window, stride, variant=None):
        checks.pool("avgpool_bprop", x=dx, y=dy, window=window, stride=stride, outputs=("x",))
        _float32("avgpool_bprop", dy, dx)
        self._ring("avgpool_bprop", (*_pool(dx, dy, window, stride), False), dy, dx, variant=variant)

    def lrn_maxpool_fprop(self, x, y, *, n, k, alpha, beta, window, stride, variant=None):
        checks.norm_pool("lrn_maxpool_fprop", n=n, x=x, y=y, window=window, stride=stride, outputs=("y",))
        _float32("lrn_maxpool_fprop", x, y)
        self._ring("lrn_maxpool_fprop", (*_images(x), n, *_pool(x, y, window, stride), False), x, y, k, alpha, beta, variant=variant)

    def lrn_maxpool_bprop(self, x, y, dy, dx, *, n, k, alpha, beta, window, stride, ties, relu, variant=None):
        checks.ties("lrn_maxpool_bprop", ties)
        checks.norm_pool("lrn_maxpool_bprop", n=n, x=x, y=y, dy=dy, dx=dx, window=window, stride=stride, outputs=("dx",))
        _float32("lrn_maxpool_bprop", x, y, dy, dx)
        self._ring("lrn_maxpool_bprop", (*_images(x), n, *_pool(x, y, window, stride), ties == "all"), x, y, dy, dx, k, alpha, beta, relu,
                   variant=variant)

    def _dropout(self, op, names, x, y, variant, **mask):
        checks.rank(op, **dict(zip(names, (x, y), strict=True)), want=5)
        checks.elementwise(op, **dict(zip(names, (x, y), strict=True)), outputs=names[1:])
        _float32(op, x, y)
        self._ring(op, x.shape, x, y, _mask(op, x, **mask), variant=variant)

    def dropout_fprop(self, x, y, *, keep, scale, seed, step, layer, first, column=0, columns=None, variant=None):
        self._dropout("dropout_fprop", ("x", "y"), x, y, variant, keep=keep, scale=scale, seed=seed, step=step, layer=layer, first=first,
                      column=column, columns=columns)

    def dropout_bprop(self, dy, dx, *, keep, scale, seed, step, layer, first, column=0, columns=None, variant=None):
        self._dropout("dropout_bprop", ("dy", "dx"), dy, dx, variant, keep=keep, scale=scale, seed=seed, step=step, layer=layer,
                      first=first, column=column, columns=columns)

    def dropout_test(self, x, y, *, factor, variant=None):
        checks.elementwise("dropout_test", x=x, y=y, outputs=("y",))
        _float32("dropout_test", x, y)
        self._ring("dropout_test", (x.size,), x, y, factor, variant=variant)

    def loss_fprop(self, x, labels, p, loss, *, dx=None, scale=1.0, variant=None):
        """A label that is no class gives a NaN: labels live on the device, and looking at them would stop the stream."""
        checks.loss("loss_fprop", x=x, p=p, labels=labels, per_image_loss=loss, dx=dx, outputs=("p", "loss", "dx"))
        _float32("loss_fprop", x)
        self._ring("loss_fprop", x.shape, x, labels, p, loss, dx, scale, variant=variant)

    def loss_bprop(self, p, labels, dx, *, scale, variant=None):
        checks.loss("loss_bprop", x=dx, p=p, labels=labels, outputs=("x",))
        _float32("loss_bprop", p)
        self._ring("loss_bprop", p.shape, p, labels, dx, scale, variant=variant)

    # ---------------------------------------------------------------- learning and input
    def sgd_update(self, w, v, dw, *, segments, momentum, rates=None, variant=None):
        checks.sgd("sgd_update", w=w, v=v, dw=dw, segments=segments)
        _float32("sgd_update", w)
        rows = [tuple(segment) for segment in segments if rates is not None or segment[1] > segment[0]]
        if rows:
            self._ring("sgd_update", (w.size, len(rows)), w, v, dw, rows, momentum, rates, variant=variant)

    def augment_fprop(self, images, mean, offsets, flips, noise, y, *, mean_at, scale, variant=None):
        """A crop that leaves its picture gives NaNs, as offsets live on the device."""
        cell = checks.augment("augment_fprop", images=images, mean=mean, offsets=offsets, flips=flips, noise=noise, y=y, mean_at=mean_at)
        _float32("augment_fprop", y)
        dims = (*images.shape[:3], y.shape[2] * cell, y.shape[3] * cell, images.shape[3], cell, mean_at == "centre")
        self._ring("augment_fprop", dims, images, mean, offsets, flips, noise, y, scale, variant=variant)


def _mask(op, array, *, keep, scale, seed, step, layer, first, column=0, columns=None) -> tuple:
    """What the kernels need to know of dropout for an array of these columns."""
    checks.keep(op, keep)
    low = 0xFFFFFFFF
    return (math.ceil(keep * 2.0**32), scale, seed & (2**64 - 1), step if hasattr(step, "__len__") else int(step) & low, layer & low,
            first & low, column, checks.columns(op, array, column, columns))


def _linear(x, y, w, groups) -> tuple[int, ...]:
    return (x.shape[1], x.shape[0], y.shape[0], x.shape[2], w.shape[0], groups)


def _images(x) -> tuple[int, ...]:
    return (x.shape[0] * x.shape[1], *x.shape[2:])


def _pool(x, y, window, stride) -> tuple[int, ...]:
    return (*_images(x), y.shape[2], y.shape[3], window, stride)
