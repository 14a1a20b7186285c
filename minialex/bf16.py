"""bfloat16 on the host: the upper 16 bits of a float32, in arrays of uint16.  What activations and their gradients are stored as in
precision "bf16" (cuda/include/minialex/bf16.h)."""

from __future__ import annotations

import numpy as np

from .spec import BF16


def narrow(values: np.ndarray) -> np.ndarray:
    """float32 -> the nearest bfloat16, of two the even one; every NaN becomes 0x7fff, as the kernels make it.  Of the same shape."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    nearest = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    return np.where(np.isnan(values), np.uint32(0x7FFF), nearest).astype(np.uint16)


def widen(array: np.ndarray) -> np.ndarray:
    """Any host array as its numbers: bfloat16 as float32, exactly, others as they are."""
    return (array.astype(np.uint32) << np.uint32(16)).view(np.float32) if array.dtype == BF16 else array
