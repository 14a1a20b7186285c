"""The memories a kernel sees, as byte arrays with bounds, alignment and address windows."""

from __future__ import annotations

import numpy as np

from .program import Instruction

GLOBAL = 1 << 40                    # where global addresses start; below, generic addresses are no one's
WINDOW = {"shared": 1 << 44, "local": 1 << 45}      # generic address = window + address inside the memory
UNWRITTEN = 0xFF                    # a NaN in every float format


class Memory:
    """Global memory: arrays put one behind the other, with a gap that no access may touch."""

    def __init__(self, size: int = 1 << 24):
        self.bytes = np.full(size, UNWRITTEN, np.uint8)
        self.starts, self.ends = [], []
        self.end = 256

    def put(self, array: np.ndarray) -> int:
        """A copy of `array` on the device; returns its address, a multiple of 256."""
        array = np.ascontiguousarray(array)
        start, stop = self.end, self.end + array.nbytes
        if stop > self.bytes.size:
            raise MemoryError(f"{stop} bytes of arrays in a memory of {self.bytes.size}: give Memory a larger size")
        self.bytes[start:stop] = array.view(np.uint8).ravel() if array.nbytes else 0
        self.starts.append(start)
        self.ends.append(stop)
        self.end = -(-stop // 256) * 256 + 256
        return GLOBAL + start

    def get(self, address: int, like: np.ndarray) -> np.ndarray:
        """What lies at `address` now, in the shape and type of `like`."""
        start = address - GLOBAL
        return self.bytes[start:start + like.nbytes].view(like.dtype).reshape(like.shape).copy()

    def offsets(self, addresses: np.ndarray, size: int, instruction: Instruction) -> np.ndarray:
        """Offsets in `bytes` of accesses of `size` bytes; each must lie inside one array."""
        offsets = addresses - GLOBAL
        array = np.searchsorted(self.starts, offsets, side="right") - 1
        outside = (array < 0) | (offsets + size > np.asarray([*self.ends, 0])[array])
        if outside.any():
            raise instruction.error(f"global address {int(addresses[outside][0]):#x} is outside every array")
        return offsets


class Private:
    """Shared memory of each block or local memory of each lane: `count` rows of `size` bytes, side by side."""

    def __init__(self, space: str, count: int, size: int):
        self.space, self.size = space, size
        self.stride = -(-max(size, 1) // 16) * 16
        self.bytes = np.full(count * self.stride, UNWRITTEN, np.uint8)

    def offsets(self, row: np.ndarray, addresses: np.ndarray, size: int, instruction: Instruction) -> np.ndarray:
        outside = (addresses < 0) | (addresses + size > self.size)
        if outside.any():
            raise instruction.error(f"{self.space} address {int(addresses[outside][0])} is outside its {self.size} bytes")
        return row * self.stride + addresses


def check_aligned(addresses: np.ndarray, size: int, instruction: Instruction) -> None:
    if (addresses & (size - 1)).any():
        raise instruction.error(f"an address is not a multiple of {size}")
