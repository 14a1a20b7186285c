"""Dropout on the CPU (paper, section 4.2): Philox words of a few images at a time, then a mask without branches."""

from __future__ import annotations

import math

import numpy as np

from ...philox import philox
from .. import checks
from .elementwise import each_run, masked
from .workers import over_images, scratch

LANES = 8192                # counters in work at a time: half a dozen uint64 arrays stay in the cache
_LOW = 0xFFFFFFFF


def dropout_fprop(x: np.ndarray, y: np.ndarray, *, keep: float, scale: float, seed: int, step: int, layer: int, first: int,
                  column: int = 0, columns: int | None = None) -> None:
    """y = x * scale where kept, else 0; the mask is a function of (seed, step, layer, image, element).  y may be x."""
    checks.keep("dropout_fprop", keep)
    checks.rank("dropout_fprop", x=x, y=y, want=5)
    checks.elementwise("dropout_fprop", x=x, y=y, outputs=("y",))
    _apply(x, y, keep, scale, seed, step, layer, first, column, checks.columns("dropout_fprop", x, column, columns))


def dropout_bprop(dy: np.ndarray, dx: np.ndarray, *, keep: float, scale: float, seed: int, step: int, layer: int, first: int,
                  column: int = 0, columns: int | None = None) -> None:
    """dx = dy * scale where kept, else 0, by the same mask, drawn again.  dx may be dy."""
    checks.keep("dropout_bprop", keep)
    checks.rank("dropout_bprop", dy=dy, dx=dx, want=5)
    checks.elementwise("dropout_bprop", dy=dy, dx=dx, outputs=("dx",))
    _apply(dy, dx, keep, scale, seed, step, layer, first, column, checks.columns("dropout_bprop", dy, column, columns))


def dropout_test(x: np.ndarray, y: np.ndarray, *, factor: float) -> None:
    """y = x * factor; y may be x."""
    checks.elementwise("dropout_test", x=x, y=y, outputs=("y",))
    each_run(lambda x, y: np.multiply(x, factor, out=y), x, y)


def _apply(x, y, keep: float, scale: float, seed: int, step: int, layer: int, first: int, column: int,
           columns: int) -> None:
    G, N, H, W, C = x.shape
    quads = -(-(columns * H * W * C) // 4)
    few = max(1, LANES // quads)
    limit = np.uint64(math.ceil(keep * 2.0**32))                # word < keep * 2^32, in integers
    counters = np.arange(quads, dtype=np.uint64)

    def block(start: int, stop: int) -> None:
        for a in range(start, stop, few):
            n = min(few, stop - a)
            images = (np.arange(n, dtype=np.uint64) + np.uint64(first + a)) & np.uint64(_LOW)
            words = philox(counters, images[:, None], step & _LOW, layer & _LOW, seed & 0xFFFFFFFFFFFFFFFF)
            kept = scratch("kept", (n, quads, 4), np.bool_)
            for i, word in enumerate(words):
                np.less(word, limit, out=kept[..., i])
            mask = kept.reshape(n, quads * 4)[:, :columns * H * W * C].reshape(n, H, W, columns, C)
            for g in range(G):
                own = scratch("own", (n, H, W, C), np.bool_)
                np.copyto(own, mask[:, :, :, column + g])
                out = y[g, a:a + n]
                scaled = x[g, a:a + n]
                if scale != 1:
                    scaled = np.multiply(scaled, scale, out=scratch("scaled", own.shape, x.dtype))
                masked(scaled, own, out)

    over_images(block, N, x.size)
