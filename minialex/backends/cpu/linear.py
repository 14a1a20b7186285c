"""Fully connected layer on the CPU (paper, sections 3.2 and 3.5): products split at fixed features, never by worker."""

from __future__ import annotations

import numpy as np

from .. import checks
from .dropout import dropout_fprop
from .relu import gated, relu_fprop
from .sums import product_into
from .workers import over_chunks, scratch

CHUNKS = 16                     # at most; of features, the same for any number of workers
SMALL = 1 << 21                 # multiply-adds below which a product is not worth a second thread


def _step(features: int, macs: int) -> int:
    """Features of one chunk, in multiples of 16 (a cache line)."""
    return features if macs < SMALL else -(-features // (16 * CHUNKS)) * 16


def _columns(x: np.ndarray, groups: int) -> list[list[tuple[int, slice]]]:
    """For each column of y: the columns of x that it reads, and their inputs in the filters' rows."""
    G, _, F = x.shape
    if groups > 1:
        return [[(g, slice(0, F))] for g in range(G)]
    return [[(g, slice(g * F, g * F + F)) for g in range(G)]]


def linear_fprop(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray, *, groups: int) -> None:
    """y = (P_0 + P_1 + ...) + b, P_c = x of column c times its inputs' weights.

    Computed as w @ x^T and turned: OpenBLAS is a third faster with the long axis first than with the batch first.
    """
    checks.linear("linear_fprop", x=x, w=w, y=y, b=b, groups=groups, outputs=("y",))
    N, Ky = y.shape[1:]
    readers = _columns(x, groups)

    def chunk(g: int, start: int, stop: int) -> None:
        maps = slice(g * Ky + start, g * Ky + stop)
        sources = readers[g if groups > 1 else 0]
        turned = scratch("turned", (stop - start, N), y.dtype)
        for gx, inputs in sources:
            if inputs.start:
                np.add(turned, np.matmul(w[maps, inputs], x[gx].T, out=scratch("further", turned.shape, y.dtype)), out=turned)
            else:
                np.matmul(w[maps, inputs], x[gx].T, out=turned)
        if b is None:
            np.copyto(y[g, :, start:stop], turned.T)
        else:
            np.add(turned.T, b[maps], out=y[g, :, start:stop])

    for g in range(y.shape[0]):
        over_chunks(lambda start, stop, g=g: chunk(g, start, stop), Ky, _step(Ky, N * Ky * w.shape[1]))


def linear_relu_fprop(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, y: np.ndarray, *, groups: int,
                      dropout: dict | None = None) -> None:
    """y = dropout(max(0, linear(x) + b)), one op after the other."""
    checks.linear("linear_relu_fprop", x=x, w=w, y=y, b=b, groups=groups, outputs=("y",))
    linear_fprop(x, w, b, y, groups=groups)
    relu_fprop(y, y)
    if dropout is not None:
        maps = y[:, :, None, None]
        dropout_fprop(maps, maps, **dropout)


def linear_dgrad(dy: np.ndarray, w: np.ndarray, dx: np.ndarray, *, groups: int, gate: np.ndarray | None = None, scale: float = 1.0) -> None:
    """dx of a column is D_0 + D_1 + ... over the output columns that read it."""
    checks.linear("linear_dgrad", x=dx, w=w, y=dy, groups=groups, outputs=("x",))
    checks.gate("linear_dgrad", gate, dx)
    F, Ky = dx.shape[2], dy.shape[2]

    def chunk(gx: int, start: int, stop: int) -> None:
        out, first = dx[gx, :, start:stop], 0 if groups > 1 else gx * F
        for i, g in enumerate([gx] if groups > 1 else range(dy.shape[0])):
            matrix = w[g * Ky:g * Ky + Ky, first + start:first + stop]
            if i:
                np.add(out, np.matmul(dy[g], matrix, out=scratch("further", out.shape, dx.dtype)), out=out)
            else:
                np.matmul(dy[g], matrix, out=out)

    for gx in range(dx.shape[0]):
        over_chunks(lambda start, stop, gx=gx: chunk(gx, start, stop), F, _step(F, dx.shape[1] * F * w.shape[0]))
    gated(gate, scale, dx)


def linear_wgrad(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, db: np.ndarray, *, groups: int, accumulate: bool = False) -> None:
    """dw = dy^T x and db = sum of dy over the batch; `accumulate` adds."""
    checks.linear("linear_wgrad", x=x, w=dw, y=dy, b=db, groups=groups, outputs=("w", "b"))
    Ky = dy.shape[2]
    readers = _columns(x, groups)

    def chunk(g: int, start: int, stop: int) -> None:
        maps = slice(g * Ky + start, g * Ky + stop)
        grad = dy[g, :, start:stop]
        for gx, inputs in readers[g if groups > 1 else 0]:
            product_into(dw[maps, inputs], grad.T, x[gx], accumulate)
        total = np.add.reduce(grad, axis=0, out=scratch("total", (stop - start,), db.dtype))
        np.add(db[maps], total, out=db[maps]) if accumulate else np.copyto(db[maps], total)

    for g in range(dy.shape[0]):
        over_chunks(lambda start, stop, g=g: chunk(g, start, stop), Ky, _step(Ky, dy.shape[1] * Ky * dw.shape[1]))
