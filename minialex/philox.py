"""Philox4x32-10, a counter-based generator: random words as a pure function of (counter, key), so no result ever depends on
how many were drawn before, by whom, or in which order (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011).
"""

from __future__ import annotations

import numpy as np

_M0, _M1 = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW, _SHIFT = np.uint64(0xFFFFFFFF), np.uint64(32)


def philox(c0, c1, c2, c3, key: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Four arrays of uint32 words from counters c0..c3 (ints or arrays that broadcast, taken modulo 2^32) and a 64-bit key."""
    x0, x1, x2, x3 = (np.asarray(c).astype(np.uint64) & _LOW for c in (c0, c1, c2, c3))
    k0, k1 = key & 0xFFFFFFFF, (key >> 32) & 0xFFFFFFFF
    for _ in range(10):
        p0, p1 = x0 * _M0, x2 * _M1
        x0, x1, x2, x3 = (p1 >> _SHIFT) ^ x1 ^ np.uint64(k0), p1 & _LOW, (p0 >> _SHIFT) ^ x3 ^ np.uint64(k1), p0 & _LOW
        k0, k1 = (k0 + _W0) & 0xFFFFFFFF, (k1 + _W1) & 0xFFFFFFFF
    return tuple(x.astype(np.uint32) for x in np.broadcast_arrays(x0, x1, x2, x3))


def uniform(words: np.ndarray) -> np.ndarray:
    """uint32 words as float64 in (0, 1): (word + 1/2) / 2^32."""
    return (words.astype(np.float64) + 0.5) * 2.0**-32


def normal(words0: np.ndarray, words1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two independent N(0, 1) float64 arrays from two of words (Box and Muller)."""
    radius, angle = np.sqrt(-2.0 * np.log(uniform(words0))), 2.0 * np.pi * uniform(words1)
    return radius * np.cos(angle), radius * np.sin(angle)
