"""Convolutions evaluated at points (tiles.py): which layers are, and the three passes.

The paper's conv1 (as a 3x3 convolution over cells of 4 x 4 pixels, zeros in its 12th row and column of taps) and conv3 to conv5 are
squares, with 3.9 and 3.4 times fewer products than the direct form; conv2 and the CIFAR-10 networks' layers go by rows, with 2.1 to 2.5
times fewer.
"""

from __future__ import annotations

import os
from functools import lru_cache

import numpy as np

from ..checks import ConvDims
from .parts import padded, parts
from .sums import product_into
from .tiles import MOVED, Form, Rows, Square, filters, gradients, gradients_of_filters, outputs
from .workers import per_job, scratch, zeroed

WORK = 1_100_000                            # numbers of factors in work at a time: of inputs and products
enabled = os.environ.get("MINIALEX_WINOGRAD") != "0"        # False: always the direct form


def form(d: ConvDims) -> Form | None:
    """How fprop and wgrad evaluate a layer; None: directly.  A function of the layer's shapes, of the number of images never."""
    return _cheapest(d.R, d.S, d.P, d.Q, d.stride, d.C // d.groups, d.K // d.groups) if enabled else None


def dgrad_form(d: ConvDims) -> Form | None:
    """The same for dgrad, which is fprop of dy with the filters turned by half a turn."""
    flipped = enabled and d.stride == 1 and max(d.before, d.after) < d.R
    return _cheapest(d.R, d.S, d.H, d.W, 1, d.K // d.groups, d.C // d.groups) if flipped else None


@lru_cache(maxsize=256)
def _cheapest(R: int, S: int, P: int, Q: int, stride: int, C: int, K: int) -> Form | None:
    if R != S:
        return None
    forms = [Square.of(R, P, Q, stride), Rows.of(R, S, P, Q) if stride == 1 else None]
    direct = P * Q * R * S * C * (K + MOVED)
    return min((f for f in forms if f and f.cost(C, K) < direct), key=lambda f: f.cost(C, K), default=None)


def _factors(w: np.ndarray, f: Form, turned: bool) -> np.ndarray:
    """Those of filters w (K, R, S, C), (points, depth, K); `turned` by half a turn for the gradient of the input (points, depth, C).
    Made once for all items of a job."""
    g = w[:, ::-1, ::-1].transpose(3, 1, 2, 0) if turned else w
    shape = (f.points, f.depth(g.shape[3]), g.shape[0])
    return per_job(("factors", f, turned, w.ctypes.data, w.shape, w.strides), shape, w.dtype, lambda out: filters(f, g, out))


def _pieces(n: int, f: Form, channels: int) -> list[slice]:
    """The images of a call, evenly cut so that factors of so many channels stay within WORK."""
    most = max(1, WORK // (f.points * f.tiles * channels))
    size = -(-n // -(-n // most))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _multiplied(tiles: np.ndarray, factors: np.ndarray, n: int, into: np.ndarray | None, f: Form) -> np.ndarray:
    """The outputs of n images' tiles, (n, *f.outputs, K): in `into` where that fits, else in scratch memory."""
    products = scratch("products", (f.points, tiles.shape[1], factors.shape[2]), tiles.dtype)
    return outputs(f, np.matmul(tiles, factors, out=products), n, into)


def fprop(x: np.ndarray, w: np.ndarray, b: np.ndarray, y: np.ndarray, d: ConvDims, f: Form, relu: bool) -> None:
    """y = (P_0 + P_1 + ...) + b, all maps that read one input column at a time."""
    Cx, Ky = d.C // d.Gx, d.K // d.Gy
    if d.groups == 1:
        todo = [(gx, slice(0, Cx), slice(0, d.K), slice(gx * Cx, gx * Cx + Cx)) for gx in range(d.Gx)]
    else:
        todo = [(part.gx, part.channels, part.maps, part.inputs) for part in parts(d)]
    depth = f.depth(todo[0][1].stop - todo[0][1].start)
    for piece in _pieces(d.N, f, depth + todo[0][2].stop - todo[0][2].start):
        for gx, channels, maps, inputs in todo:
            tiles = f.inputs(x[gx, piece, ..., channels], d.before)
            whole = y[0, piece] if d.Gx == d.Gy == d.groups == 1 else None
            made = _multiplied(tiles, _factors(w[maps, :, :, inputs], f, False), len(x[gx, piece]), whole, f)
            last = d.groups > 1 or gx == d.Gx - 1
            for g in range(maps.start // Ky, -(-maps.stop // Ky)):
                first, stop = max(maps.start, g * Ky), min(maps.stop, g * Ky + Ky)
                own = y[g, piece, ..., first - g * Ky:stop - g * Ky]
                share = made[:, :d.P, :d.Q, first - maps.start:stop - maps.start]
                if inputs.start:
                    np.add(own, share, out=own)             # a further input column of the same maps
                    share = own
                if last:
                    np.add(share, b[first:stop], out=own)
                    if relu:
                        np.maximum(own, 0, out=own)
                else:
                    np.copyto(own, share)


def dgrad(dy: np.ndarray, w: np.ndarray, dx: np.ndarray, d: ConvDims, f: Form) -> None:
    """dx of a column = D_0 + D_1 + ... over the output columns: the same form on filters turned by half a turn."""
    todo = sorted(parts(d), key=lambda part: part.gy)               # one output column's gradient serves all input columns
    for piece in _pieces(d.N, f, f.depth(d.K // d.groups) + d.C // d.groups):
        source = tiles = None
        for part in todo:
            if source != (part.gy, part.outputs):
                source = (part.gy, part.outputs)
                tiles = f.inputs(dy[part.gy, piece, ..., part.outputs], d.R - 1 - d.before)
            target = dx[part.gx, piece, ..., part.channels]
            further = d.groups == 1 and part.gy
            made = _multiplied(tiles, _factors(w[part.maps, :, :, part.inputs], f, True), len(target), None if further else target, f)
            if made is not target:
                made = made[:, :d.H, :d.W]
                np.add(target, made, out=target) if further else np.copyto(target, made)


def wgrad(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, d: ConvDims, f: Form, add: bool) -> None:
    """dw = G^T [ sum over tiles of (A e) (B^T d) ]; columns side by side where all maps read all channels."""
    if d.groups == 1:
        todo = [([(gx, slice(0, d.C // d.Gx)) for gx in range(d.Gx)], [(g, slice(0, d.K // d.Gy)) for g in range(d.Gy)], slice(0, d.K))]
    else:
        todo = [([(part.gx, part.channels)], [(part.gy, part.outputs)], part.maps) for part in parts(d)]
    for sources, readers, maps in todo:
        K, depth = maps.stop - maps.start, f.depth(d.C // d.groups)
        sums = scratch("factor sums", (f.points, K, depth), dw.dtype)
        for piece in _pieces(d.N, f, K + depth):
            tiles = f.inputs(padded(x, sources, piece.start, piece.stop, d._replace(before=0, after=0)), d.before)
            product_into(sums, gradients(f, _joined(dy[:, piece], readers, f)).transpose(0, 2, 1), tiles, piece.start > 0)
        made, own = gradients_of_filters(f, sums, d), dw[maps]
        np.add(own, made, out=own) if add else np.copyto(own, made)


def _joined(dy: np.ndarray, readers: list[tuple[int, slice]], f: Form) -> np.ndarray:
    """The named (column, maps) of dy (G, n, P, Q, K) side by side, as images of whole tiles: themselves, or in scratch memory."""
    _, n, P, Q, K = dy.shape
    if f.outputs == (P, Q) and len(readers) == 1 and readers[0][1] == slice(0, K):
        return dy[readers[0][0]]
    even, k = zeroed("even", n, (*f.outputs, sum(maps.stop - maps.start for _, maps in readers)), dy.dtype, (P, Q)), 0
    for g, maps in readers:
        width = maps.stop - maps.start
        np.copyto(even[:, :P, :Q, k:k + width], dy[g, ..., maps])
        k += width
    return even
