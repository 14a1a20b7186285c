"""Convolutions by evaluation at seven points (Winograd, Toom and Cook; Lavin and Gray, CVPR 2016): 49 products a tile of m x m outputs
where the direct form has m^2 r^2, with m = 8 - r for windows of r x r.

    Y = A^T [ (G g G^T) . (B^T d B) ] A            one tile: d (7, 7) inputs, g (r, r) filter, Y (m, m) outputs

Seven points fit the paper's maps: 55 = 11 x 5, 27 = 9 x 3, and 13 is padded to 15; conv2 needs 4.6 times fewer products, conv3 to conv5
3.4, conv1 3.9 (as a 3x3 convolution of stride 1 over cells of 4 x 4 pixels, zeros in its 12th row and column of taps).  The transforms,
too, are matrix products: with the Kronecker squares of A, B and G (49 rows or columns) on whole arrays of tiles.

Points +-1/4, +-4/5, +-5/3 and infinity lose least in float32 among the symmetric and usual ones tried: the root mean square error is
at most 10 times that of the direct form (tests/test_winograd.py), far inside the bound that holds for both.  Arrays of tiles are
(49, n*T*U, channels), tile rows T and tile columns U; the 49 products are matrix products over tiles.
"""

from __future__ import annotations

import os
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..checks import ConvDims
from .parts import padded, parts, record
from .sums import product_into
from .workers import per_job, scratch, zeroed

POINTS = tuple(Fraction(*p) for p in ((1, 3), (-1, 3), (6, 7), (-6, 7), (7, 4), (-7, 4)))       # and infinity
EXTENT = len(POINTS) + 1                    # of a tile of inputs
WORK = 1_100_000                            # elements of tiles in work at a time: inputs and products
GAIN = 1.25                                 # so many times fewer multiply-adds, or it is not worth the copying
enabled = os.environ.get("MINIALEX_WINOGRAD") != "0"        # False: always the direct form


class Matrices(NamedTuple):
    """Kronecker squares, for tiles of m x m outputs of windows of r x r."""

    A: np.ndarray                           # (m*m, 49)     products -> outputs
    B: np.ndarray                           # (49, 49)      inputs -> factors
    G: np.ndarray                           # (49, r*r)     taps -> factors


@lru_cache
def matrices(r: int, dtype: np.dtype) -> Matrices:
    """Those of A^T, B^T and G; rows are scaled by powers of two so that B's have sums near 1."""
    n, m = EXTENT, EXTENT + 1 - r
    A, B, G = [[Fraction(0)] * n for _ in range(m)], [], []
    for j, point in enumerate(POINTS):
        others = [p for p in POINTS if p != point]
        row = [*_polynomial(others), Fraction(0)]
        scale = Fraction(2) ** round(np.log2(float(sum(map(abs, row)))))
        B.append([c / scale for c in row])
        norm = np.prod([point - other for other in others])
        G.append([point ** k * scale / norm for k in range(r)])
        for i in range(m):
            A[i][j] = point ** i
    row = _polynomial(POINTS)               # infinity: the leading coefficients
    scale = Fraction(2) ** round(np.log2(float(sum(map(abs, row)))))
    B.append([c / scale for c in row])
    G.append([scale * (k == r - 1) for k in range(r)])
    A[m - 1][n - 1] = Fraction(1)
    return Matrices(*(np.kron(M, M).astype(dtype) for M in (np.array(rows, dtype=np.float64) for rows in (A, B, G))))


def _polynomial(roots) -> list[Fraction]:
    """Coefficients of prod (x - root), the constant first."""
    c = [Fraction(1)]
    for root in roots:
        c = [(c[i - 1] if i else 0) - (root * c[i] if i < len(c) else 0) for i in range(len(c) + 1)]
    return c


class Form(NamedTuple):
    """A convolution of stride 1 over cells of `cell` x `cell` pixels, r x r of them a window, in T x U tiles of m x m outputs."""

    r: int
    m: int
    T: int
    U: int
    cell: int


def _form(taps: int, P: int, Q: int, cell: int) -> Form:
    r = -(-taps // cell)
    m = EXTENT + 1 - r
    return Form(r, m, -(-P // m), -(-Q // m), cell)


def suits(d: ConvDims) -> bool:
    """Whether fprop and wgrad take this form: a function of the layer's shapes, of the number of images never."""
    return enabled and _pays(d, d.R, d.P, d.Q, d.stride, d.C // d.groups, d.K // d.groups)


def suits_dgrad(d: ConvDims) -> bool:
    """Whether dgrad takes it, as fprop of dy with the filters turned by half a turn."""
    return enabled and d.stride == 1 and max(d.before, d.after) < d.R and _pays(d, d.R, d.H, d.W, 1, d.K // d.groups, d.C // d.groups)


def _pays(d: ConvDims, taps: int, P: int, Q: int, cell: int, C: int, K: int) -> bool:
    """Multiply-adds of products and transforms for one image and group against those of the direct form."""
    if not (d.R == d.S and 2 <= -(-taps // cell) <= EXTENT - 2):
        return False
    f, depth = _form(taps, P, Q, cell), cell * cell * C
    tiles = EXTENT ** 2 * f.T * f.U * (depth * K + EXTENT ** 2 * depth + f.m ** 2 * K)
    return GAIN * tiles < P * Q * taps * taps * C * K


# -------------------------------------------------------------------------------------------------------- tiles
def _input_tiles(a: np.ndarray, before: int, f: Form) -> np.ndarray:
    """B^T d B of all tiles: images a (n, H, W, C), padded by `before` zeros and as many after as tiles need -> (49, n*T*U, C of cells).
    A view of scratch memory."""
    n, H, W, C = a.shape
    high, wide_ = ((count * f.m + f.r - 1) * f.cell for count in (f.T, f.U))
    H, W = min(H, high - before), min(W, wide_ - before)            # rows behind the last window
    wide = zeroed("wide", n, (high, wide_, C), a.dtype, (before, H, W))
    np.copyto(wide[:, before:before + H, before:before + W], a[:, :H, :W])
    image, row, pixel, _ = wide.strides
    rows, columns, step = row * f.cell, pixel * f.cell, f.m
    run = record(a.itemsize, f.cell * C)
    seen = np.ndarray((EXTENT, EXTENT, n, f.T, f.U, f.cell), run, wide, 0, (rows, columns, image, step * rows, step * columns, row))
    tiles = scratch("tiles", (EXTENT ** 2, n * f.T * f.U * f.cell * f.cell * C), a.dtype)
    np.copyto(tiles.view(run).reshape(seen.shape), seen)
    factors = np.matmul(matrices(f.r, a.dtype).B, tiles, out=scratch("input factors", tiles.shape, a.dtype))
    return factors.reshape(EXTENT ** 2, n * f.T * f.U, f.cell * f.cell * C)


def _outputs(products: np.ndarray, n: int, f: Form) -> np.ndarray:
    """A^T M A of all tiles: products (49, n*T*U, K) -> (n, T*m, U*m, K), a view of scratch memory."""
    K = products.shape[2]
    flat = scratch("outputs", (f.m * f.m, n * f.T * f.U * K), products.dtype)
    np.matmul(matrices(f.r, products.dtype).A, products.reshape(EXTENT ** 2, -1), out=flat)
    y = scratch("images", (n, f.T * f.m, f.U * f.m, K), products.dtype)
    run = record(y.itemsize, K)
    np.copyto(_tiled(y, run, n, f), flat.view(run).reshape(f.m, f.m, n, f.T, f.U))
    return y


def _tiled(y: np.ndarray, run: np.dtype, n: int, f: Form) -> np.ndarray:
    """Pixels of images y (n, T*m, U*m, K) by their place in the tile: (m, m, n, T, U) runs."""
    image, row, pixel, _ = y.strides
    return np.ndarray((f.m, f.m, n, f.T, f.U), run, y, 0, (row, pixel, image, f.m * row, f.m * pixel))


def _gradient_tiles(dy: np.ndarray, readers: list[tuple[int, slice]], f: Form) -> np.ndarray:
    """A e A^T of all tiles: the named (column, maps) of dy (G, n, P, Q, K) side by side -> (49, n*T*U, maps), in scratch memory."""
    _, n, P, Q, _ = dy.shape
    K, k = sum(maps.stop - maps.start for _, maps in readers), 0
    even = zeroed("even", n, (f.T * f.m, f.U * f.m, K), dy.dtype, (P, Q))
    for g, maps in readers:
        width = maps.stop - maps.start
        np.copyto(even[:, :P, :Q, k:k + width], dy[g, ..., maps])
        k += width
    run = record(dy.itemsize, K)
    tiles = scratch("tiles", (f.m * f.m, n * f.T * f.U * K), dy.dtype)
    np.copyto(tiles.view(run).reshape(f.m, f.m, n, f.T, f.U), _tiled(even, run, n, f))
    factors = scratch("gradient factors", (EXTENT ** 2, tiles.shape[1]), dy.dtype)
    return np.matmul(matrices(f.r, dy.dtype).A.T, tiles, out=factors).reshape(EXTENT ** 2, n * f.T * f.U, K)


# -------------------------------------------------------------------------------------------------------- filters
def _in_cells(w: np.ndarray, f: Form) -> np.ndarray:
    """Filters w (K, R, S, C) as (r, r, K, cell*cell*C): taps of cells, zeros where a cell reaches beyond the window."""
    K, R, S, C = w.shape
    if f.cell == 1:
        return w.transpose(1, 2, 0, 3)
    wide = zeroed("wide filters", K, (f.r * f.cell, f.r * f.cell, C), w.dtype, (R, S))
    np.copyto(wide[:, :R, :S], w)
    cells = wide.reshape(K, f.r, f.cell, f.r, f.cell, C).transpose(1, 3, 0, 2, 4, 5)
    return cells.reshape(f.r, f.r, K, f.cell * f.cell * C)


def _filter_factors(w: np.ndarray, f: Form, turned: bool) -> np.ndarray:
    """G g G^T of filters w (K, R, S, C) as the products want them: (49, cells' channels, K), or `turned` by half a turn (49, K, C) for the
    gradient of the input.  Made once for all items of a job."""
    def make(factors: np.ndarray) -> None:
        g = _in_cells(w, f)
        g = g[::-1, ::-1] if turned else g.transpose(0, 1, 3, 2)
        taps = scratch("taps", g.shape, w.dtype)
        np.copyto(taps, g)
        np.matmul(matrices(f.r, w.dtype).G, taps.reshape(f.r * f.r, -1), out=factors.reshape(EXTENT ** 2, -1))

    K, C = w.shape[0], f.cell * f.cell * w.shape[3]
    return per_job(("factors", turned, w.ctypes.data, w.shape, w.strides), (EXTENT ** 2, *((K, C) if turned else (C, K))), w.dtype, make)


def _pieces(n: int, f: Form, channels: int) -> list[slice]:
    """The images of a call, evenly cut so that tiles of so many channels stay within WORK."""
    most = max(1, WORK // (EXTENT ** 2 * f.T * f.U * channels))
    size = -(-n // -(-n // most))
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


# -------------------------------------------------------------------------------------------------------- the three passes
def fprop(x: np.ndarray, w: np.ndarray, b: np.ndarray, y: np.ndarray, d: ConvDims, relu: bool) -> None:
    """y = (P_0 + P_1 + ...) + b, all maps that read one input column at a time."""
    f, Cx, Ky = _form(d.R, d.P, d.Q, d.stride), d.C // d.Gx, d.K // d.Gy
    if d.groups == 1:
        todo = [(gx, slice(0, Cx), slice(0, d.K), slice(gx * Cx, gx * Cx + Cx)) for gx in range(d.Gx)]
    else:
        todo = [(part.gx, part.channels, part.maps, part.inputs) for part in parts(d)]
    depth = f.cell * f.cell * (todo[0][1].stop - todo[0][1].start)
    for piece in _pieces(d.N, f, depth + todo[0][2].stop - todo[0][2].start):
        for gx, channels, maps, inputs in todo:
            made = _multiplied(x[gx, piece, ..., channels], d.before, _filter_factors(w[maps, :, :, inputs], f, False), f)
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


def _multiplied(a: np.ndarray, before: int, factors: np.ndarray, f: Form) -> np.ndarray:
    """The convolution of images a (n, H, W, C) with factors (49, C, K): (n, T*m, U*m, K) in scratch memory."""
    tiles = _input_tiles(a, before, f)
    products = scratch("products", (EXTENT ** 2, tiles.shape[1], factors.shape[2]), a.dtype)
    return _outputs(np.matmul(tiles, factors, out=products), a.shape[0], f)


def dgrad(dy: np.ndarray, w: np.ndarray, dx: np.ndarray, d: ConvDims) -> None:
    """dx of a column = D_0 + D_1 + ... over the output columns: the same form on filters turned by half a turn."""
    f = _form(d.R, d.H, d.W, 1)
    todo = sorted(parts(d), key=lambda part: part.gy)               # one output column's gradient serves all input columns
    for piece in _pieces(d.N, f, (d.C + d.K) // d.groups):
        source = tiles = None
        for part in todo:
            if source != (part.gy, part.outputs):
                source = (part.gy, part.outputs)
                tiles = _input_tiles(dy[part.gy, piece, ..., part.outputs], d.R - 1 - d.before, f)
            factors = _filter_factors(w[part.maps, :, :, part.inputs], f, True)
            products = scratch("products", (EXTENT ** 2, tiles.shape[1], factors.shape[2]), dx.dtype)
            target = dx[part.gx, piece, ..., part.channels]
            made = _outputs(np.matmul(tiles, factors, out=products), target.shape[0], f)[:, :d.H, :d.W]
            np.add(target, made, out=target) if d.groups == 1 and part.gy else np.copyto(target, made)


def wgrad(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, d: ConvDims, add: bool) -> None:
    """dw = G^T [ sum over tiles of (A e A^T) (B^T d B) ] G; columns side by side where all maps read all channels."""
    f = _form(d.R, d.P, d.Q, d.stride)
    if d.groups == 1:
        todo = [([(gx, slice(0, d.C // d.Gx)) for gx in range(d.Gx)], [(g, slice(0, d.K // d.Gy)) for g in range(d.Gy)], slice(0, d.K))]
    else:
        todo = [([(part.gx, part.channels)], [(part.gy, part.outputs)], part.maps) for part in parts(d)]
    for sources, readers, maps in todo:
        K, C = maps.stop - maps.start, f.cell * f.cell * d.C // d.groups
        sums = scratch("factor sums", (EXTENT ** 2, K, C), dw.dtype)
        for piece in _pieces(d.N, f, K + C):
            own = dy[:, piece]
            tiles = _input_tiles(padded(x, sources, piece.start, piece.stop, d._replace(before=0, after=0)), d.before, f)
            product_into(sums, _gradient_tiles(own, readers, f).transpose(0, 2, 1), tiles, piece.start > 0)
        taps = np.matmul(matrices(f.r, dw.dtype).G.T, sums.reshape(EXTENT ** 2, K * C), out=scratch("taps", (f.r * f.r, K * C), dw.dtype))
        made = taps.reshape(f.r, f.r, K, f.cell, f.cell, -1).transpose(2, 0, 3, 1, 4, 5)
        if f.cell > 1:
            made = made.reshape(K, f.r * f.cell, f.r * f.cell, -1)[:, :d.R, :d.S]
        else:
            made = made[:, :, 0, :, 0]
        own = dw[maps]
        np.add(own, made, out=own) if add else np.copyto(own, made)
