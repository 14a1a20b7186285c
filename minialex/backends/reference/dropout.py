"""Dropout (paper, section 4.2) and the random words that decide it."""

from __future__ import annotations

import numpy as np

from .. import checks

_MASK = 0xFFFFFFFF


def philox(counter, key):
    """Philox4x32-10 (Salmon et al., SC 2011): four words of 32 bits from four counter words and two key words.

    Counter words are ints or uint64 arrays; products of two 32-bit words fit into uint64.  The four results are uint64 arrays.
    """
    a, b, c, d = (np.asarray(word, np.uint64) for word in counter)
    left, right = key
    for _ in range(10):
        first, second = a * np.uint64(0xD2511F53), c * np.uint64(0xCD9E8D57)
        a, b, c, d = (second >> np.uint64(32)) ^ b ^ np.uint64(left), second & np.uint64(_MASK), \
                     (first >> np.uint64(32)) ^ d ^ np.uint64(right), first & np.uint64(_MASK)
        left, right = (left + 0x9E3779B9) & _MASK, (right + 0xBB67AE85) & _MASK
    return a, b, c, d


def _kept(shape, keep, seed, step, layer, first, column, columns):
    """True where a value is kept, for an array (G, N, H, W, C).

    Element e of an image counts the channels of all `columns` as one run, so a mask does not depend on where columns live;
    the image counts from `first` on, so it does not depend on how the batch is cut into blocks.
    """
    G, N, H, W, C = shape
    size = H * W * columns * C
    quads = np.arange((size + 3) // 4, dtype=np.uint64)                     # e // 4
    images = (np.arange(N, dtype=np.uint64)[:, None] + np.uint64(first)) & np.uint64(_MASK)
    words = philox((quads[None, :], images, step & _MASK, layer & _MASK), (seed & _MASK, (seed >> 32) & _MASK))
    words = np.stack(np.broadcast_arrays(*words), axis=-1)                  # (N, quads, 4)
    kept = words.reshape(N, -1)[:, :size] < keep * 2.0**32
    return kept.reshape(N, H, W, columns, C).transpose(3, 0, 1, 2, 4)[column:column + G]


def dropout_fprop(x: np.ndarray, y: np.ndarray, *, keep: float, scale: float, seed: int, step: int, layer: int, first: int,
                  column: int = 0, columns: int | None = None) -> None:
    """y = x * scale where kept, else 0.  scale 1 is the paper's dropout, 1 / keep today's inverted form.  y may be x.

    Kept when word e % 4 of philox(counter (e // 4, first + n, step, layer), key seed) < keep * 2^32, where
    e = (h * W + w) * (columns * C) + (column + g) * C + c in image n of the array, `first` is the place of its image 0 in the batch,
    `column` that of its first column among the network's `columns` (None: column + G).
    """
    checks.keep("dropout_fprop", keep)
    checks.rank("dropout_fprop", x=x, y=y, want=5)
    checks.elementwise("dropout_fprop", x=x, y=y, outputs=("y",))
    columns = checks.columns("dropout_fprop", x, column, columns)
    y[...] = np.where(_kept(x.shape, keep, seed, step, layer, first, column, columns), x * scale, 0)


def dropout_bprop(dy: np.ndarray, dx: np.ndarray, *, keep: float, scale: float, seed: int, step: int, layer: int, first: int,
                  column: int = 0, columns: int | None = None) -> None:
    """dx = dy * scale where dropout_fprop kept, else 0; the mask is drawn again, not saved.  dx may be dy."""
    checks.keep("dropout_bprop", keep)
    checks.rank("dropout_bprop", dy=dy, dx=dx, want=5)
    checks.elementwise("dropout_bprop", dy=dy, dx=dx, outputs=("dx",))
    columns = checks.columns("dropout_bprop", dy, column, columns)
    dx[...] = np.where(_kept(dy.shape, keep, seed, step, layer, first, column, columns), dy * scale, 0)


def dropout_test(x: np.ndarray, y: np.ndarray, *, factor: float) -> None:
    """y = x * factor: at test time all units are there, times the probability of keeping one.  y may be x."""
    checks.elementwise("dropout_test", x=x, y=y, outputs=("y",))
    y[...] = x * factor
