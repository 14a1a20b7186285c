"""Overlapping max-pooling on the CPU (paper, section 3.4): separable, rows then columns, in both directions.

Backward without indices.  With m the maxima of x along the windows' columns (one for each row), a window's winner lies in
a row where m equals the window's maximum, at a column where x equals m.  The first such row, and in it the first such
column, is the first winner in row order; all of them together are all winners.
"""

from __future__ import annotations

import numpy as np

from .. import checks
from .elementwise import masked
from .parts import record
from .pooling import each_piece, reduce_columns, reduce_rows, taps
from .workers import scratch


def maxpool_fprop(x: np.ndarray, y: np.ndarray, *, window: int, stride: int) -> None:
    """y = maximum over each window, clipped at the border."""
    checks.pool("maxpool_fprop", x=x, y=y, window=window, stride=stride, outputs=("y",))

    def piece(x: np.ndarray, y: np.ndarray) -> None:
        rows = scratch("rows", (*y.shape[:-2], *x.shape[-2:]), x.dtype)
        reduce_rows(np.maximum, x, rows, window, stride)            # rows first: whole image rows in one run
        reduce_columns(np.maximum, rows, y, window, stride)

    each_piece(piece, x, y)


def maxpool_bprop(x: np.ndarray, y: np.ndarray, dy: np.ndarray, dx: np.ndarray, *, window: int, stride: int, ties: str,
                  relu: bool = False) -> None:
    """dx = sum of dy over the windows that an input won; ties="first" in row order, or "all" equal inputs; relu=True: where x > 0."""
    checks.ties("maxpool_bprop", ties)
    checks.pool("maxpool_bprop", x=x, y=y, dy=dy, dx=dx, window=window, stride=stride, outputs=("dx",))
    each_piece(lambda *pieces: _bprop(*pieces, window, stride, ties == "first", relu), x, y, dy, dx)


def _bprop(x, y, dy, dx, window: int, stride: int, first: bool, relu: bool) -> None:
    if relu:                                                        # an input that won is > 0 where its y is: a quarter of the work
        dy = masked(dy, np.greater(y, 0, out=scratch("wins", y.shape, np.bool_)), scratch("gated", y.shape, y.dtype))
    H, W, C = x.shape[-3:]
    P, Q = y.shape[-3:-1]
    # x's columns apart by their place modulo the stride: each tap then meets one uninterrupted run of columns.
    strands = [_strand(f"strand {t}", x, t, stride) for t in range(min(stride, W))]
    seen = [strands[t % stride][..., t // stride:t // stride + count, :] for t, (_, count) in enumerate(taps(W, Q, window, stride))]
    best = scratch("best", (*x.shape[:-2], Q, C), x.dtype)
    _maximum(seen, best)

    drow = scratch("drow", best.shape, x.dtype)                     # gradient of `best`
    rows = taps(H, P, window, stride)
    _route([best[..., place, :, :] for place, _ in rows], y, dy, [drow[..., place, :, :] for place, _ in rows], stride, first,
           [drow[..., t + count * stride::stride, :, :] for t, (_, count) in enumerate(rows[:stride])]
           + [drow[..., t::stride, :, :] for t in range(len(rows), min(stride, H))], axis=-3)

    dstrands = [scratch(f"dstrand {t}", strand.shape, x.dtype) for t, strand in enumerate(strands)]
    sent = [dstrands[t % stride][..., t // stride:t // stride + part.shape[-2], :] for t, part in enumerate(seen)]
    _route(seen, best, drow, sent, stride, first,
           [dstrands[t][..., part.shape[-2]:, :] for t, part in enumerate(seen[:stride])] + dstrands[len(seen):], axis=-2)
    for t, strand in enumerate(dstrands):
        _runs(dx, t, stride)[...] = strand.view(record(x.itemsize, C))[..., 0]


def _maximum(seen, out) -> None:
    np.copyto(out, seen[0])
    for part in seen[1:]:
        to = out[..., :part.shape[-2], :]
        np.maximum(to, part, out=to)


def _runs(x, t: int, stride: int) -> np.ndarray:
    """Pixels t, t + stride ... of each row of x (..., H, W, C), as items of C elements."""
    return x.view(record(x.itemsize, x.shape[-1]))[..., t::stride, 0]


def _strand(name: str, x, t: int, stride: int) -> np.ndarray:
    runs = _runs(x, t, stride)
    strand = scratch(name, (*runs.shape, x.shape[-1]), x.dtype)
    np.copyto(strand.view(runs.dtype)[..., 0], runs)
    return strand


def _route(seen, best, d, sent, stride: int, first: bool, untouched, axis: int) -> None:
    """Sends d to each tap's `sent` where what it saw equals `best`; with `first` only to the first such tap.

    The first `stride` taps meet different inputs, so they write; later ones add.  Inputs of no tap are `untouched`: 0.
    """
    for rest in untouched:
        rest[...] = 0
    taken, after = None, (slice(None),) * (-1 - axis)
    for t, (part, to) in enumerate(zip(seen, sent, strict=True)):
        count = (..., slice(0, part.shape[axis]), *after)
        wins = np.equal(part, best[count], out=scratch("wins", part.shape, np.bool_))
        if first and taken is None:
            taken = scratch("taken", best.shape, np.bool_)
            np.copyto(taken, wins)                                      # tap 0 meets every window
        elif first:
            np.greater(wins, taken[count], out=wins)                    # wins and not taken
            if t < len(seen) - 1:
                np.logical_or(taken[count], wins, out=taken[count])
        if t < stride:
            masked(d[count], wins, to)
        else:
            share = scratch("share", part.shape, d.dtype)
            masked(d[count], wins, share)
            np.add(to, share, out=to)
