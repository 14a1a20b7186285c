"""A training step in which nothing is computed: which ops the program calls, on which arrays, with which dims.

The network, its fusion and the compiled backend are the real ones; arrays are addresses without memory behind them.  So what is counted
here (bench/floors.py, bench/ladder.py) is what a GPU would be asked for, and follows the program when that changes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from itertools import count
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from ..backends.compiled import Compiled
from ..layers import Conv, Linear
from ..net import Net
from ..nets import recipe as recipe_of
from ..optim import SGD
from ..spec import PRECISIONS

ADDRESSES = 1 << 62


class Ghost:
    """Shape, type and address of an array; slices of axis 0 and reshape are views, as on a device."""

    flags = SimpleNamespace(c_contiguous=True)

    def __init__(self, address: int, shape: tuple[int, ...], dtype: Any):
        self.address, self.shape, self.dtype = address, tuple(shape), np.dtype(dtype)
        self.ndim, self.size, self.itemsize = len(self.shape), math.prod(self.shape), self.dtype.itemsize
        self.nbytes = self.size * self.itemsize
        self.memory_range = (address, address + self.nbytes)

    def __getitem__(self, key: slice) -> Ghost:
        start, stop, _ = key.indices(self.shape[0])
        row = math.prod(self.shape[1:]) * self.itemsize
        return Ghost(self.address + start * row, (max(0, stop - start), *self.shape[1:]), self.dtype)

    def reshape(self, *shape: Any) -> Ghost:
        new = tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return Ghost(self.address, tuple(self.size // -math.prod(new) if extent == -1 else extent for extent in new), self.dtype)


class Nowhere:
    """The memory of Compiled: hands out addresses."""

    device, workspace = 0, None

    def __init__(self, extension: Counter, device: int = 0):
        self.end, self.number = 1 << 20, extension.new()

    def empty(self, shape: tuple[int, ...], dtype: str) -> Ghost:
        made = Ghost(self.end, shape, dtype)
        self.end += -(-made.nbytes // 256) * 256
        return made

    def from_host(self, array: np.ndarray, out: Ghost | None) -> Ghost:
        return self.empty(array.shape, array.dtype) if out is None else out

    def to_host(self, array: Ghost) -> np.ndarray:
        return np.zeros(array.shape, array.dtype)

    def copy(self, source: Ghost, out: Ghost) -> None: ...

    def stream(self) -> int:
        return self.number

    def own_stream(self, ahead: bool = False) -> None: ...

    def address(self, array: Ghost) -> int:
        return array.address

    def free(self) -> int:
        return ADDRESSES


class Called(NamedTuple):
    """One call of a kernel's doorbell."""

    layer: str
    op: str
    dims: tuple
    arguments: tuple
    stream: int = 0

    @property
    def arrays(self) -> list[Ghost]:
        return [argument for argument in self.arguments if isinstance(argument, Ghost)]


class Ordered(NamedTuple):
    """An event that a stream is asked to record, or to wait for."""

    what: str                       # "event_record" or "stream_wait"
    event: int
    stream: int


class Counter:
    """The extension of Compiled: writes down each op it is asked for, and what orders its streams."""

    __name__ = "minialex._nowhere"

    def __init__(self):
        self.asked: list[Called | Ordered] = []
        self.doing, self._numbers = "", count(1)

    def new(self, *_: Any) -> int:
        """The number of another stream or event."""
        return next(self._numbers)

    event_create = new

    def event_record(self, event: int, stream: int) -> None:
        self.asked.append(Ordered("event_record", event, stream))

    def stream_wait(self, stream: int, event: int) -> None:
        self.asked.append(Ordered("stream_wait", event, stream))

    def event_destroy(self, event: int) -> None: ...

    def device_count(self) -> int:
        return 1

    def Context(self) -> SimpleNamespace:                                   # as the extensions call it
        return SimpleNamespace()

    def stream_synchronize(self, stream: int) -> None: ...

    def __getattr__(self, op: str):
        def call(dims: tuple, *arguments: Any) -> None:
            self.asked.append(Called(self.doing, op, tuple(dims), arguments[:-2], arguments[-2].stream))
        return call


class _Named:
    """A layer that says when its turn is."""

    def __init__(self, layer: Any, counter: Counter):
        self._layer, self._counter = layer, counter

    def __getattr__(self, name: str) -> Any:
        if name in ("fprop", "bprop", "loss", "dlogits"):
            self._counter.doing = self._layer.name
        return getattr(self._layer, name)


def step(name: str, batch: int, precision: str = "float32", *, fuse: bool = True) -> tuple[Called, ...]:
    """The calls of one training step of a recipe, in order: fprop, bprop, updates.  A precision that the kernels lack yet is called as
    float32."""
    return tuple(one for one in asked(name, batch, precision, fuse=fuse) if isinstance(one, Called))


@cache
def asked(name: str, batch: int, precision: str = "float32", *, fuse: bool = True) -> tuple[Called | Ordered, ...]:
    """The same, and between them what orders the streams on which they run."""
    recipe, counter = recipe_of(name), Counter()
    ops = Compiled(counter, Nowhere(counter))                               # type: ignore[arg-type]
    if precision in PRECISIONS:
        ops.set_precision(precision)
    still = [replace(layer, std=0.0) if isinstance(layer, Conv | Linear) else layer for layer in recipe.build(recipe.classes)]
    net = Net(still, recipe.input, batch, ops, fuse=fuse)
    sgd = SGD(net, momentum=recipe.momentum, decay=recipe.decay)
    net.layers = [_Named(layer, counter) for layer in net.layers]           # type: ignore[misc]
    net.loss_layer = _Named(net.loss_layer, counter)
    net.fprop(np.zeros(batch, np.int32), training=True)
    net.bprop(sgd.early(sgd.segments(recipe.rate)))
    return tuple(counter.asked)
