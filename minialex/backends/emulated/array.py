"""Arrays in the memory of a make-believe device: what CuPy's ndarray is on a GPU, without a view from the host."""

from __future__ import annotations

import math
import weakref
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from ...spec import DTypeError, LayoutError, ShapeError

DTYPES = ("float32", "uint16", "int32", "uint8", "bool")        # uint16: bfloat16


class Flags(NamedTuple):
    """The one flag that is asked for; such arrays have no other layout."""

    c_contiguous: bool = True


class Block:
    """One allocation, given back when the last array in it is gone."""

    def __init__(self, extension: ModuleType, device: int, nbytes: int):
        self.pointer = extension.allocate(device, nbytes)
        # An error of work that release() waits for is printed by Python, not raised: nobody could catch it there.
        weakref.finalize(self, extension.release, self.pointer).atexit = False


class DeviceArray:
    """A C-contiguous array on `device`.  Slices of axis 0 and reshape are views; values come and go through
    ops.from_host and ops.to_host alone, as on a GPU."""

    __slots__ = ("block", "device", "dtype", "pointer", "shape")

    def __init__(self, block: Block, device: int, pointer: int, shape: tuple[int, ...], dtype: np.dtype):
        self.block, self.device, self.pointer, self.shape, self.dtype = block, device, pointer, shape, dtype

    flags = Flags()

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def memory_range(self) -> tuple[int, int]:
        """First address and the one behind the last."""
        return (self.pointer, self.pointer + self.nbytes)

    @property
    def __emulated_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.pointer, False), "strides": None, "version": 3}

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: slice) -> DeviceArray:
        if not isinstance(key, slice) or not self.shape:
            raise LayoutError(f"a device array takes slices of axis 0, not {key!r}; copy it to the host for more (ops.to_host)")
        start, stop, step = key.indices(self.shape[0])
        if step != 1:
            raise LayoutError(f"a slice of a device array takes every element, not every {step}th; "
                              "copy it to the host for more (ops.to_host)")
        stop = max(start, stop)
        row = math.prod(self.shape[1:]) * self.itemsize
        return DeviceArray(self.block, self.device, self.pointer + start * row, (stop - start, *self.shape[1:]), self.dtype)

    def reshape(self, *shape: int | tuple[int, ...]) -> DeviceArray:
        """The same elements in another shape; one extent may be -1."""
        new = tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else tuple(shape)
        known = math.prod(extent for extent in new if extent != -1)
        if -1 in new and known:
            new = tuple(self.size // known if extent == -1 else extent for extent in new)
        if math.prod(new) != self.size:
            raise ShapeError(f"a device array of shape {self.shape} cannot be reshaped to {new}: {self.size} and {math.prod(new)} elements")
        return DeviceArray(self.block, self.device, self.pointer, new, self.dtype)

    def __array__(self, *_, **__) -> np.ndarray:
        raise LayoutError("a device array has no view on the host; copy it with ops.to_host")

    def __repr__(self) -> str:
        return f"DeviceArray(device={self.device}, shape={self.shape}, dtype={self.dtype})"


class EmulatedMemory:
    """Arrays, one stream and one workspace on make-believe device `device`."""

    def __init__(self, extension: ModuleType, device: int = 0):
        self.extension, self.device = extension, device
        self._stream: int | None = None
        self._workspace: Block | None = None
        self._workspace_size = 0

    def stream(self) -> int:
        """The one stream all ops of this object run on."""
        if self._stream is None:
            self._stream = self.extension.stream_create(self.device)
        return self._stream

    def workspace(self, nbytes: int) -> int:
        """Address of at least `nbytes` of scratch memory; grows and is kept."""
        if nbytes > self._workspace_size:
            self._workspace = None                          # given back first: the larger one may need its room
            self._workspace, self._workspace_size = Block(self.extension, self.device, nbytes), nbytes
        return self._workspace.pointer

    def own_stream(self, ahead: bool = False) -> None:
        """The stream is this object's own already."""

    def address(self, array: DeviceArray) -> int:
        """Where an array starts."""
        return array.pointer

    def free(self) -> int:
        """Bytes that nobody has."""
        return self.extension.memory_info(self.device)[0]

    def empty(self, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        """Memory nobody has written: NaN when read as float."""
        dtype = str(np.dtype(dtype))
        if dtype not in DTYPES:
            raise DTypeError(f"empty: arrays of {dtype} are not for the kernels, which know {', '.join(DTYPES)}")
        block = Block(self.extension, self.device, max(1, math.prod(shape)) * np.dtype(dtype).itemsize)
        return DeviceArray(block, self.device, block.pointer, shape, np.dtype(dtype))

    def from_host(self, array: np.ndarray, out: DeviceArray | None) -> DeviceArray:
        """A copy of a contiguous host array, in `out` if given."""
        out = self.empty(array.shape, array.dtype) if out is None else out
        self.extension.upload(out.pointer, array.reshape(-1).view(np.uint8), out.nbytes, self.stream())
        return out

    def to_host(self, array: DeviceArray) -> np.ndarray:
        """A copy on the host, when all work on the stream is done."""
        host = np.empty(array.shape, array.dtype)
        self.extension.download(host.reshape(-1).view(np.uint8), array.pointer, array.nbytes, self.stream())
        return host

    def copy(self, source: DeviceArray, out: DeviceArray) -> None:
        """The values of `source` into `out`, of equal size, on the stream."""
        self.extension.copy(out.pointer, source.pointer, source.nbytes, self.stream())
