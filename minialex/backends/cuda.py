"""The CUDA kernels on an NVIDIA GPU.  Arrays are CuPy's, on CuPy's current stream; device memory comes from CuPy's pool.

`kernels` is the object behind the ops; kernels.variants("conv_fprop") names the rows of a table.  MINIALEX_CUDA_POOL=0 turns the pool
off, for compute-sanitizer.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import ModuleType

import numpy as np

try:
    from .. import _cuda
except ImportError as error:
    toolkit = "" if shutil.which("nvcc") else "there is no nvcc; install a CUDA toolkit 12 or 13, then "
    raise ImportError(f"the CUDA kernels are not built: {toolkit}`MINIALEX_CUDA=on pip install -e .` builds them ({error})") from error
if _reason := _cuda.unavailable_reason():
    raise ImportError(_reason)
try:
    import cupy
except ImportError as error:
    raise ImportError("CuPy is missing, which holds the arrays on the GPU: "
                      f"pip install 'minialex[cuda13]', or [cuda12] ({error})") from error

from ..spec import DeviceMemoryError
from .library import WithLibrary


class CupyMemory:
    """CuPy's arrays of one device."""

    xp = cupy

    def __init__(self, extension: ModuleType, device: int = 0):
        self.extension, self.device = extension, device
        self._workspace: cupy.ndarray | None = None
        self._stream: cupy.cuda.Stream | None = None

    def own_stream(self, ahead: bool = False) -> None:
        """From now on all work of this object runs on a stream of its own: a column's device computes beside the others.  `ahead`: before
        what streams are asked that are not."""
        with cupy.cuda.Device(self.device):
            self._stream = cupy.cuda.Stream(non_blocking=True, priority=-1 if ahead else 0)

    def stream(self) -> int:
        """CuPy's current stream, so that kernels line up with the caller's own CuPy work; or the own one."""
        return (self._stream or cupy.cuda.get_current_stream()).ptr

    def address(self, array: cupy.ndarray) -> int:
        """Where an array starts."""
        return array.data.ptr

    def workspace(self, nbytes: int) -> int:
        """Address of at least `nbytes` of scratch memory; grows and is kept."""
        if self._workspace is None or nbytes > self._workspace.nbytes:
            self._workspace = None
            self._workspace = self.empty((nbytes,), "uint8")
        return self._workspace.data.ptr

    @contextmanager
    def current(self) -> Iterator[None]:
        """Makes this device, and the own stream if there is one, CuPy's current ones, in a `with`."""
        with cupy.cuda.Device(self.device), self._stream or nullcontext():
            yield

    def free(self) -> int:
        """Bytes that nobody has, and those that CuPy's pool keeps for the next array."""
        with self.current():
            return self.extension.memory_info(self.device)[0] + cupy.get_default_memory_pool().free_bytes()

    def held(self) -> int:
        """Bytes that CuPy's pool has taken from the device."""
        with cupy.cuda.Device(self.device):
            return cupy.get_default_memory_pool().total_bytes()

    def empty(self, shape: tuple[int, ...], dtype: str) -> cupy.ndarray:
        try:
            with self.current():
                return cupy.empty(shape, dtype)
        except cupy.cuda.memory.OutOfMemoryError as error:
            free, total = self.extension.memory_info(self.device)
            asked = math.prod(shape) * np.dtype(dtype).itemsize
            raise DeviceMemoryError(f"device {self.device} has {free:,} of {total:,} bytes free, {asked:,} were asked for; "
                                    "use a smaller batch (-b)") from error

    def from_host(self, array: np.ndarray, out: cupy.ndarray | None) -> cupy.ndarray:
        out = self.empty(array.shape, str(array.dtype)) if out is None else out
        with self.current():
            out.set(array)
        return out

    def to_host(self, array: cupy.ndarray) -> np.ndarray:
        with self.current():
            return cupy.asnumpy(array)

    def copy(self, source: cupy.ndarray, out: cupy.ndarray) -> None:
        with self.current():
            out[...] = source


if os.environ.get("MINIALEX_CUDA_POOL") == "0":
    cupy.cuda.set_allocator(None)               # compute-sanitizer then knows where each array ends

kernels = WithLibrary(_cuda, CupyMemory(_cuda))
globals().update(kernels.exports())
