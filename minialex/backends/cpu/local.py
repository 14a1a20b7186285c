"""Locally connected layer on the CPU: as conv, with one small matrix product for each output position."""

from __future__ import annotations

import numpy as np

from .. import checks
from ..checks import ConvDims
from .conv import sum_ranges
from .parts import padded, parts, record, windows
from .relu import gated
from .workers import over_images, scratch


def _columns(x, source, d: ConvDims) -> np.ndarray:
    """(P*Q, N, R*S*C): position first, so that each position's product is one matrix product of the stack."""
    a = padded(x, [source], 0, d.N, d)
    C = a.shape[3]
    columns = scratch("columns", (d.P * d.Q * d.N * d.R * d.S * C,), a.dtype)
    np.copyto(columns.view(record(a.itemsize, d.S * C)).reshape(d.P, d.Q, d.N, d.R), windows(a, d, "local"))
    return columns.reshape(d.P * d.Q, d.N, d.R * d.S * C)


def _filters(w, part, d: ConvDims) -> np.ndarray:
    """(P*Q, maps, R*S*channels)"""
    own = w[:, :, part.maps, :, :, part.inputs]
    packed = scratch("filters", own.shape, w.dtype)
    np.copyto(packed, own)
    return packed.reshape(d.P * d.Q, own.shape[2], -1)


def local_fprop(x: np.ndarray, w: np.ndarray, b: np.ndarray, y: np.ndarray, *, stride: int, pad: int | tuple[int, int],
                groups: int) -> None:
    """y[p, q] = (P_0 + P_1 + ...) + b[p, q], each position with filters w[p, q] of its own."""
    d = checks.conv("local_fprop", x=x, w=w, b=b, y=y, stride=stride, pad=pad, groups=groups, outputs=("y",), local=True)
    over_images(lambda start, stop: _fprop(x[:, start:stop], w, b, y[:, start:stop], d._replace(N=stop - start)), d.N, y.size * d.R * d.S)


def _fprop(x, w, b, y, d: ConvDims) -> None:
    Ky = d.K // d.Gy
    for part in parts(d):
        columns, filters = _columns(x, (part.gx, part.channels), d), _filters(w, part, d)
        product = scratch("product", (d.P * d.Q, d.N, filters.shape[1]), y.dtype)
        np.matmul(columns, filters.transpose(0, 2, 1), out=product)
        out = y[part.gy, ..., part.outputs]
        product = product.reshape(d.P, d.Q, d.N, -1).transpose(2, 0, 1, 3)
        np.add(out, product, out=out) if part.inputs.start else np.copyto(out, product)
    for g in range(d.Gy):
        np.add(y[g], b[..., g * Ky:g * Ky + Ky], out=y[g])


def local_dgrad(dy: np.ndarray, w: np.ndarray, dx: np.ndarray, *, stride: int, pad: int | tuple[int, int], groups: int,
                gate: np.ndarray | None = None, scale: float = 1.0) -> None:
    """dx of a column is D_0 + D_1 + ... over the output columns, each the scattered products dy[p, q] * w[p, q]."""
    d = checks.conv("local_dgrad", x=dx, w=w, y=dy, stride=stride, pad=pad, groups=groups, outputs=("x",), local=True)
    checks.gate("local_dgrad", gate, dx)
    over_images(lambda start, stop: _dgrad(dy[:, start:stop], w, dx[:, start:stop], d._replace(N=stop - start)), d.N, dx.size * d.R * d.S)
    gated(gate, scale, dx)


def _dgrad(dy, w, dx, d: ConvDims) -> None:
    border, step = d.before + d.after, d.stride
    for part in sorted(parts(d), key=lambda part: part.gy):
        filters = _filters(w, part, d)
        C = part.channels.stop - part.channels.start
        grad = scratch("grad", (d.P * d.Q, d.N, filters.shape[1]), dy.dtype)
        np.copyto(grad.reshape(d.P, d.Q, d.N, -1), dy[part.gy, ..., part.outputs].transpose(1, 2, 0, 3))
        product = np.matmul(grad, filters, out=scratch("product", (d.P * d.Q, d.N, d.R * d.S * C), dx.dtype))
        product = product.reshape(d.P, d.Q, d.N, d.R, d.S, C)
        sums = scratch("col2im", (d.H + border, d.W + border, d.N, C), dx.dtype)
        sums.fill(0)
        for r in range(d.R):
            for s in range(d.S):
                place = sums[r:r + (d.P - 1) * step + 1:step, s:s + (d.Q - 1) * step + 1:step]
                np.add(place, product[:, :, :, r, s], out=place)
        inner = sums[d.before:d.before + d.H, d.before:d.before + d.W].transpose(2, 0, 1, 3)
        out = dx[part.gx, ..., part.channels]
        np.add(out, inner, out=out) if d.groups == 1 and part.gy else np.copyto(out, inner)


def local_wgrad(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, db: np.ndarray, *, stride: int, pad: int | tuple[int, int], groups: int,
                accumulate: bool = False) -> None:
    """dw[p, q] = sum over images of dy[p, q] * x[what it saw]; db[p, q] the sum of dy[p, q]; same bits for any workers."""
    d = checks.conv("local_wgrad", x=x, w=dw, b=db, y=dy, stride=stride, pad=pad, groups=groups, outputs=("w", "b"), local=True)
    sum_ranges(_wgrad, x, dy, dw, db, d, accumulate)


def _wgrad(x, dy, dw, db, d: ConvDims, accumulate: bool) -> None:
    Ky = d.K // d.Gy
    for part in parts(d):
        columns = _columns(x, (part.gx, part.channels), d)
        grad = dy[part.gy, ..., part.outputs].transpose(1, 2, 3, 0).reshape(d.P * d.Q, -1, d.N)         # a copy
        product = np.matmul(grad, columns, out=scratch("product", (d.P * d.Q, grad.shape[1], columns.shape[2]), dw.dtype))
        out = dw[:, :, part.maps, :, :, part.inputs]
        product = product.reshape(out.shape)
        np.add(out, product, out=out) if accumulate else np.copyto(out, product)
    for g in range(d.Gy):
        out, total = db[..., g * Ky:g * Ky + Ky], dy[g].sum(axis=0)
        np.add(out, total, out=out) if accumulate else np.copyto(out, total)
