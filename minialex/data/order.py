"""In which order the pictures of an epoch are used: a keyed permutation evaluated per index.

Nothing is shuffled and nothing is kept: position i of epoch e is `permute(seed, e, n, i)`, so a resumed run, another number of
workers or a rank that needs only its own share compute the same picture from three integers.
"""

from __future__ import annotations

import numpy as np

from ..philox import philox
from ..spec import MiniAlexError

ORDER_STREAM = 0xFFFF0001           # fourth counter word: apart from dropout's (a layer's number) and augmentation's
ROUNDS = 8
ORDERS = ("shuffled", "fixed")


def _mix(x: np.ndarray) -> np.ndarray:
    """A 64-bit finaliser (two multiply-xorshift steps and a shift): every input bit reaches the high output bits."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _round_keys(seed: int, epoch: int) -> list[np.uint64]:
    words = philox(np.arange(ROUNDS // 2), epoch, epoch >> 32, ORDER_STREAM, seed)
    w0, w1, w2, w3 = (w.astype(np.uint64) for w in words)
    return [key for pair in zip(w0 << np.uint64(32) | w1, w2 << np.uint64(32) | w3, strict=True) for key in pair]


def permute(seed: int, epoch: int, n: int, indices) -> np.ndarray:
    """Pictures used at positions `indices` of an epoch over n pictures: a bijection of 0..n-1, other for each (seed, epoch).

        index = left * b + right,  a * b >= n,  a and b near sqrt(n)
        odd rounds:  left = (left + F(right)) mod a      even rounds:  right = (right + F(left)) mod b

    Each round can be undone, so the network is a bijection of 0..a*b-1 whatever F is; an image in n..a*b-1 is sent through again
    until it falls below n (a cycle of the bijection must come back below n, and a*b - n < a makes that rare).

    Parameters: indices (any shape) ints in 0..n-1.  Returns int64 of the same shape.  Raises MiniAlexError for an index outside.
    """
    indices = np.asarray(indices, dtype=np.int64)
    if indices.size and (indices.min() < 0 or indices.max() >= n):
        raise MiniAlexError(f"positions {indices.min()} to {indices.max()} of an epoch over {n} pictures: only 0 to {n - 1} exist")
    a = max(1, int(np.ceil(np.sqrt(n))))
    b = max(1, -(-n // a))
    keys = _round_keys(seed, epoch)
    rows, columns = np.uint64(a), np.uint64(b)
    out = indices.astype(np.uint64).reshape(-1)
    walking = np.arange(out.size)
    while walking.size:
        left, right = out[walking] // columns, out[walking] % columns
        for number, key in enumerate(keys):
            if number % 2 == 0:
                left = (left + _mix(right + key) % rows) % rows
            else:
                right = (right + _mix(left + key) % columns) % columns
        out[walking] = left * columns + right
        walking = walking[out[walking] >= np.uint64(n)]
    return out.astype(np.int64).reshape(indices.shape)


def epoch_order(kind: str, seed: int, epoch: int, n: int, positions) -> np.ndarray:
    """Pictures at `positions` of an epoch: "shuffled" anew each epoch, or "fixed", one shuffled order for every epoch.

    "fixed" is not the order of the store: a source lists its pictures class by class, and batches of one class teach nothing.
    """
    if kind not in ORDERS:
        raise MiniAlexError(f"order={kind!r}: choose 'shuffled' or 'fixed'")
    return permute(seed, epoch if kind == "shuffled" else 0, n, positions)
