"""Convolution on the CPU (paper, sections 3.2 and 3.5): im2col of one or a few images at a time, then one matrix product.

A matrix row holds what one output position sees, R runs of S*C neighbouring floats (NHWC makes them one run each), so
building it costs a few per cent of the product that reads it, and w (K, R, S, C) is already the other operand.
"""

from __future__ import annotations

import numpy as np

from .. import checks
from ..checks import ConvDims
from . import winograd
from .parts import dense, padded, parts, pieces, record, windows
from .relu import gated
from .sums import product_into
from .workers import image_ranges, inside, over_chunks, over_images, scratch, sum_partials


def conv_fprop(x: np.ndarray, w: np.ndarray, b: np.ndarray, y: np.ndarray, *, stride: int, pad: int | tuple[int, int], groups: int) -> None:
    """y = (P_0 + P_1 + ...) + b, P_c the product over input column c's channels; zeros beyond the border."""
    d = checks.conv("conv_fprop", x=x, w=w, b=b, y=y, stride=stride, pad=pad, groups=groups, outputs=("y",))
    _fprop_all(x, w, b, y, d, False)


def conv_relu_fprop(x: np.ndarray, w: np.ndarray, b: np.ndarray, y: np.ndarray, *, stride: int, pad: int | tuple[int, int],
                    groups: int) -> None:
    """conv_fprop and relu_fprop in one trip: bias and ReLU while the product is in the cache; the same bits as both ops."""
    d = checks.conv("conv_relu_fprop", x=x, w=w, b=b, y=y, stride=stride, pad=pad, groups=groups, outputs=("y",))
    _fprop_all(x, w, b, y, d, True)


def _fprop_all(x, w, b, y, d: ConvDims, relu: bool) -> None:
    over_images(lambda start, stop: _fprop(x[:, start:stop], w, b, y[:, start:stop], d._replace(N=stop - start), relu),
                d.N, y.size * d.R * d.S)


def _filters(w: np.ndarray, gx: int, d: ConvDims) -> np.ndarray:
    """(K, R*S*channels) of the filters' share that reads input column gx; a copy where they read other columns too."""
    if d.Gx == 1:
        return w.reshape(d.K, -1)
    C = d.C // d.Gx
    own = scratch(f"filters {gx}", (d.K, d.R, d.S, C), w.dtype)
    np.copyto(own, w[..., gx * C:gx * C + C])
    return own.reshape(d.K, -1)


def _im2col(a: np.ndarray, d: ConvDims) -> np.ndarray:
    """(n*P*Q, R*S*C) in scratch memory from padded images a (n, H', W', C)."""
    n, C = a.shape[0], a.shape[3]
    columns = scratch("columns", (n * d.P * d.Q * d.R * d.S * C,), a.dtype)
    np.copyto(columns.view(record(a.itemsize, d.S * C)).reshape(n, d.P, d.Q, d.R), windows(a, d, "image"))
    return columns.reshape(n * d.P * d.Q, d.R * d.S * C)


def _fprop(x, w, b, y, d: ConvDims, relu: bool) -> None:
    if form := winograd.form(d):
        winograd.fprop(x, w, b, y, d, form, relu)
        return
    Ky = d.K // d.Gy
    if d.groups == 1:                       # all maps in one product for each input column, told apart when the bias is added
        todo = [(gx, slice(0, d.C // d.Gx), slice(0, d.K), _filters(w, gx, d)) for gx in range(d.Gx)]
    else:
        todo = [(part.gx, part.channels, part.maps, w[part.maps].reshape(d.K // d.groups, -1)) for part in parts(d)]
    for start, stop in pieces(d, todo[0][1].stop - todo[0][1].start, not dense(y)):
        rows = [y[g, start:stop].reshape(-1, Ky) for g in range(d.Gy)]
        apart = d.groups == 1 and d.Gy > 1
        total = scratch("total", (rows[0].shape[0], d.K), y.dtype) if apart else None
        for gx, channels, maps, filters in todo:
            columns = _im2col(padded(x, [(gx, channels)], start, stop, d), d)
            out = total if apart else rows[maps.start // Ky][:, maps.start % Ky:maps.start % Ky + len(filters)]
            if d.groups == 1 and gx:                        # a further input column of the same maps
                np.add(out, np.matmul(columns, filters.T, out=scratch("product", out.shape, y.dtype)), out=out)
            else:
                np.matmul(columns, filters.T, out=out)
        for g in range(d.Gy):
            maps = slice(g * Ky, g * Ky + Ky)
            np.add(total[:, maps] if apart else rows[g], b[maps], out=rows[g])
            if relu:
                np.maximum(rows[g], 0, out=rows[g])


def conv_dgrad(dy: np.ndarray, w: np.ndarray, dx: np.ndarray, *, stride: int, pad: int | tuple[int, int], groups: int,
               gate: np.ndarray | None = None, scale: float = 1.0) -> None:
    """dx[h, w] = sum of dy[p, q] * w[r, s] over all that read it; dx of a column is D_0 + D_1 + ... over the output columns."""
    d = checks.conv("conv_dgrad", x=dx, w=w, y=dy, stride=stride, pad=pad, groups=groups, outputs=("x",))
    checks.gate("conv_dgrad", gate, dx)
    flipped = stride == 1 and max(d.before, d.after) < d.S
    one = _dgrad_rows if flipped else _dgrad_scatter
    over_images(lambda start, stop: _dgrad(dy[:, start:stop], w, dx[:, start:stop], d._replace(N=stop - start), one),
                d.N, dx.size * d.R * d.S)
    gated(gate, scale, dx)


def _dgrad(dy, w, dx, d: ConvDims, one) -> None:
    """Each part into its place of dx; what a further output column adds is first summed by itself."""
    if form := winograd.dgrad_form(d):
        winograd.dgrad(dy, w, dx, d, form)
        return
    Kg, Cx = d.K // (d.Gy if d.groups == 1 else d.groups), d.C // d.Gx
    for start, stop in pieces(d._replace(R=1), max(Kg, d.C), not (dense(dy) and dense(dx))):
        source = None
        for part in sorted(parts(d), key=lambda part: part.gy):     # one output column's gradient serves all input columns
            grad = dy[part.gy, start:stop, :, :, part.outputs]
            target = dx[part.gx, start:stop, :, :, part.channels]
            whole = part.channels.stop - part.channels.start == Cx
            fresh = source != (part.gy, part.outputs)
            source = (part.gy, part.outputs)
            own = w[part.maps, :, :, part.inputs]
            if d.groups == 1 and part.gy:
                single = scratch("further", target.shape, dx.dtype)
                one(grad, own, single, d, True, fresh)
                np.add(target, single, out=target)
            else:
                one(grad, own, target, d, whole, fresh)


def _dgrad_rows(dy, w, dx, d: ConvDims, whole: bool, fresh: bool) -> None:
    """Stride 1: for each filter row the product of (S taps of dy side by side) and (that row, taps turned round), added to the
    image rows it belongs to.  Against im2col of all R*S taps a fifth or third of the copying, against col2im no scattered sums."""
    n, _, _, K = dy.shape
    C = w.shape[3]
    columns = _dy_columns(dy, d) if fresh else scratch("dy columns", (n * d.P * d.W, d.S * K), dy.dtype)
    filters = scratch("turned", (d.R, d.S, K, C), w.dtype)
    np.copyto(filters, w[:, :, ::-1].transpose(1, 2, 0, 3))
    same = d.P == d.H and d.before < d.R                    # filter row `before` reaches every image row: it starts the sum
    order = [d.before, *(r for r in range(d.R) if r != d.before)] if same else range(d.R)
    if not same:
        dx[...] = 0
    for r in order:
        matrix = filters[r].reshape(d.S * K, C)
        if same and r == d.before and whole:
            np.matmul(columns, matrix, out=dx.reshape(n * d.H * d.W, C))
            continue
        product = np.matmul(columns, matrix, out=scratch("product", (n * d.P * d.W, C), dx.dtype)).reshape(n, d.P, d.W, C)
        if same and r == d.before:
            np.copyto(dx, product)
            continue
        first, last = max(0, d.before - r), min(d.P, d.H + d.before - r)
        if first < last:
            rows = dx[:, first + r - d.before:last + r - d.before]
            np.add(rows, product[:, first:last], out=rows)


def _dy_columns(dy, d: ConvDims) -> np.ndarray:
    """(n*P*W, S*K): row (p, w) holds dy[p, w + before - S + 1 ... w + before], zeros beyond the border."""
    n, P, Q, K = dy.shape
    left = d.S - 1 - d.before
    wide = scratch("wide", (n, P, d.W + d.S - 1, K), dy.dtype)
    wide[:, :, :left] = 0
    wide[:, :, left:left + Q] = dy
    wide[:, :, left + Q:] = 0
    image, row, pixel, _ = wide.strides
    columns = scratch("dy columns", (n * P * d.W, d.S * K), dy.dtype)
    item = record(dy.itemsize, d.S * K)
    np.copyto(columns.reshape(-1).view(item).reshape(n, P, d.W), np.ndarray((n, P, d.W), item, wide, 0, (image, row, pixel)))
    return columns


def _dgrad_scatter(dy, w, dx, d: ConvDims, whole: bool, fresh: bool) -> None:
    """Any stride and padding: the product of dy and each filter row, its S taps added where they came from (col2im)."""
    n, P, Q, K = dy.shape
    C, border, step = w.shape[3], d.before + d.after, d.stride
    sums = scratch("col2im", (n, d.H + border, d.W + border, C), dx.dtype)
    sums.fill(0)
    grad = dy if dy.flags.c_contiguous else np.ascontiguousarray(dy)
    for r in range(d.R):
        filters = scratch("row", (K, d.S * C), w.dtype)
        np.copyto(filters.reshape(K, d.S, C), w[:, r])
        product = np.matmul(grad.reshape(-1, K), filters, out=scratch("product", (n * P * Q, d.S * C), dx.dtype)).reshape(n, P, Q, d.S, C)
        for s in range(d.S):
            place = sums[:, r:r + (P - 1) * step + 1:step, s:s + (Q - 1) * step + 1:step]
            np.add(place, product[:, :, :, s], out=place)
    np.copyto(dx, sums[:, d.before:d.before + d.H, d.before:d.before + d.W])


def conv_wgrad(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, db: np.ndarray, *, stride: int, pad: int | tuple[int, int], groups: int,
               accumulate: bool = False) -> None:
    """dw[k, r, s, c] = sum over images and positions of dy[p, q, k] * x[what tap r, s saw]; db[k] the sum of dy.

    Called on many images from outside `parallel`, each range of `image_ranges` sums its own, and the ranges are added in the
    fixed tree: the same bits for any number of workers.
    """
    d = checks.conv("conv_wgrad", x=x, w=dw, b=db, y=dy, stride=stride, pad=pad, groups=groups, outputs=("w", "b"))
    sum_ranges(_wgrad, x, dy, dw, db, d, accumulate)


def sum_ranges(wgrad, x, dy, dw, db, d: ConvDims, accumulate: bool) -> None:
    """wgrad(x, dy, dw, db, d, accumulate) in one go inside a worker, else by ranges of images."""
    ranges = image_ranges(d.N)
    if inside() or len(ranges) == 1:
        wgrad(x, dy, dw, db, d, accumulate)
        return
    partials = scratch("partials", (len(ranges), dw.size + db.size), dw.dtype)

    def one(r: int, _: int) -> None:
        own = partials[r]
        for index, (start, stop) in enumerate(ranges[r]):
            wgrad(x[:, start:stop], dy[:, start:stop], own[:dw.size].reshape(dw.shape), own[dw.size:].reshape(db.shape),
                  d._replace(N=stop - start), index > 0)

    over_chunks(one, len(ranges), 1)
    total = scratch("total", (dw.size + db.size,), dw.dtype)
    sum_partials(partials, total)
    for out, part in ((dw, total[:dw.size].reshape(dw.shape)), (db, total[dw.size:].reshape(db.shape))):
        np.add(out, part, out=out) if accumulate else np.copyto(out, part)


def _wgrad(x, dy, dw, db, d: ConvDims, accumulate: bool) -> None:
    Ky = d.K // d.Gy
    if form := winograd.form(d):
        winograd.wgrad(x, dy, dw, d, form, accumulate)
        for g in range(d.Gy):
            _bias_gradient(dy[g].reshape(-1, Ky), db[g * Ky:g * Ky + Ky], accumulate)
        return
    if d.groups == 1:                       # all columns side by side on both sides: one product, and no part of dw is strided
        todo = [([(gx, slice(0, d.C // d.Gx)) for gx in range(d.Gx)], slice(0, d.K))]
    else:
        todo = [([(part.gx, part.channels)], part.maps) for part in parts(d)]
    flat = dw.reshape(d.K, -1)
    for start, stop in pieces(d, d.C // d.groups, not dense(dy)):
        grads = [dy[g, start:stop].reshape(-1, Ky) for g in range(d.Gy)]
        add = accumulate or start > 0
        if d.groups == 1 and d.Gy > 1:
            joined = scratch("joined", (grads[0].shape[0], d.K), dy.dtype)
            for g, grad in enumerate(grads):
                np.copyto(joined[:, g * Ky:g * Ky + Ky], grad)
            grads = [joined]
        width = grads[0].shape[1]
        for sources, maps in todo:
            columns = _im2col(padded(x, sources, start, stop, d), d)
            first = maps.start % width
            product_into(flat[maps], grads[maps.start // width][:, first:first + maps.stop - maps.start].T, columns, add)
        for g, grad in enumerate(grads):
            _bias_gradient(grad, db[g * width:g * width + width], add)


def _bias_gradient(grad: np.ndarray, db: np.ndarray, add: bool) -> None:
    """db = sum of grad (positions, maps): a product with ones is faster than a sum along the first axis."""
    ones = scratch("ones", (1, grad.shape[0]), grad.dtype)
    ones.fill(1)
    product_into(db[None], ones, grad, add)
