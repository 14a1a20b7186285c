"""Winograd's F(2x2, 3x3) for 3x3 convolutions of stride 1 with many channels (Lavin and Gray, CVPR 2016): 16 products a tile of four
outputs where the direct form has 36; on the paper's 13 x 13 layers, padded to 14, 1.94 times fewer.

    Y = A^T [ (G g G^T) . (B^T d B) ] A            one tile: d (4, 4) inputs, g (3, 3) filter, Y (2, 2) outputs

B and A hold 0 and +-1, G halves, so small integers stay exact.  In float32 the error is a few times that of the direct form and
far inside the bound that holds for both (tests/test_winograd.py states it).  Arrays of tiles are (16, n*T*U, channels), tile rows T
and tile columns U; the 16 products are matrix products over tiles.
"""

from __future__ import annotations

import numpy as np

from ..checks import ConvDims
from .parts import padded, parts
from .workers import scratch, zeroed

FEWEST_CHANNELS, FEWEST_TILES = 64, 90     # below, transforming costs more than the multiplications it saves
enabled = True                              # False: always the direct form (tests and measurements)

_G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
_GG = np.kron(_G, _G)                       # (16, 9): a filter's 9 taps -> its 16 factors


def suits(d: ConvDims) -> bool:
    """Whether this convolution takes this form: a function of its shapes alone."""
    if not (enabled and d.R == d.S == 3 and d.stride == 1 and max(d.before, d.after) < 3):
        return False
    fewest = min((part.channels.stop - part.channels.start, part.maps.stop - part.maps.start) for part in parts(d))
    return min(fewest) >= FEWEST_CHANNELS and d.N * _half(d.P) * _half(d.Q) >= FEWEST_TILES


def _half(extent: int) -> int:
    return (extent + 1) // 2


def input_tiles(a: np.ndarray, before: int, P: int, Q: int, name: str) -> np.ndarray:
    """B^T d B of all tiles: images a (n, H, W, C), padded by `before` zeros and as many after as tiles need -> (16, n*T*U, C)."""
    n, H, W, C = a.shape
    T, U = _half(P), _half(Q)
    wide = zeroed(f"wide {name}", n, (2 * T + 2, 2 * U + 2, C), a.dtype, (before, H, W))
    np.copyto(wide[:, before:before + H, before:before + W], a)
    rows = scratch("tile rows", (4, n, T, 2 * U + 2, C), a.dtype)
    _differences([wide[:, i:i + 2 * T - 1:2] for i in range(4)], rows)
    tiles = scratch(f"tiles {name}", (4, 4, n, T, U, C), a.dtype)
    _differences([rows[..., i:i + 2 * U - 1:2, :] for i in range(4)], tiles.swapaxes(0, 1))
    return tiles.reshape(16, n * T * U, C)


def _differences(d: list[np.ndarray], out: np.ndarray) -> None:
    """B^T along one axis."""
    np.subtract(d[0], d[2], out=out[0])
    np.add(d[1], d[2], out=out[1])
    np.subtract(d[2], d[1], out=out[2])
    np.subtract(d[1], d[3], out=out[3])


def filter_factors(w: np.ndarray, turned: bool) -> np.ndarray:
    """G g G^T of filters w (K, 3, 3, C) -> (16, K, C); `turned` by half a turn for the gradient of the input."""
    K, _, _, C = w.shape
    taps = scratch("taps", (3, 3, K, C), w.dtype)
    np.copyto(taps, (w[:, ::-1, ::-1] if turned else w).transpose(1, 2, 0, 3))
    factors = scratch("factors", (16, K, C), w.dtype)
    np.matmul(_GG.astype(w.dtype), taps.reshape(9, K * C), out=factors.reshape(16, K * C))
    return factors


def outputs(products: np.ndarray, n: int, P: int, Q: int) -> np.ndarray:
    """A^T M A of all tiles: products (16, n*T*U, K) -> (n, P, Q, K), a view of scratch memory."""
    T, U, K = _half(P), _half(Q), products.shape[2]
    m = products.reshape(4, 4, n, T, U, K)
    rows = scratch("sum rows", (2, 4, n, T, U, K), products.dtype)
    _sums(m, rows)
    y = scratch("sums", (n, 2 * T, 2 * U, K), products.dtype)
    for i in range(2):
        _sums(rows[i], (y[:, i::2, 0::2], y[:, i::2, 1::2]))
    return y[:, :P, :Q]


def _sums(m, out) -> None:
    """A^T along one axis."""
    np.add(m[0], m[1], out=out[0])
    np.add(out[0], m[2], out=out[0])
    np.subtract(m[1], m[2], out=out[1])
    np.subtract(out[1], m[3], out=out[1])


def fprop(x: np.ndarray, w: np.ndarray, b: np.ndarray, y: np.ndarray, d: ConvDims, relu: bool) -> None:
    """y = (P_0 + P_1 + ...) + b, all maps that read one input column at a time."""
    Cx, Ky = d.C // d.Gx, d.K // d.Gy
    if d.groups == 1:
        todo = [(gx, slice(0, Cx), slice(0, d.K), slice(gx * Cx, gx * Cx + Cx)) for gx in range(d.Gx)]
    else:
        todo = [(part.gx, part.channels, part.maps, part.inputs) for part in parts(d)]
    for gx, channels, maps, inputs in todo:
        tiles = input_tiles(x[gx, ..., channels], d.before, d.P, d.Q, "x")
        factors = filter_factors(w[maps, :, :, inputs], False)
        products = scratch("products", (16, tiles.shape[1], factors.shape[1]), y.dtype)
        np.matmul(tiles, factors.transpose(0, 2, 1), out=products)
        made = outputs(products, d.N, d.P, d.Q)
        last = d.groups > 1 or gx == d.Gx - 1
        for g in range(maps.start // Ky, -(-maps.stop // Ky)):
            first, stop = max(maps.start, g * Ky), min(maps.stop, g * Ky + Ky)
            own, share = y[g, ..., first - g * Ky:stop - g * Ky], made[..., first - maps.start:stop - maps.start]
            if inputs.start:
                np.add(own, share, out=own)             # a further input column of the same maps
                share = own
            if last:
                np.add(share, b[first:stop], out=own)
                if relu:
                    np.maximum(own, 0, out=own)
            else:
                np.copyto(own, share)


def dgrad(dy: np.ndarray, w: np.ndarray, dx: np.ndarray, d: ConvDims) -> None:
    """dx of a column = D_0 + D_1 + ... over the output columns: the same form on filters turned by half a turn."""
    source = tiles = None
    for part in sorted(parts(d), key=lambda part: part.gy):     # one output column's gradient serves all input columns
        if source != (part.gy, part.outputs):
            source = (part.gy, part.outputs)
            tiles = input_tiles(dy[part.gy, ..., part.outputs], 2 - d.before, d.H, d.W, "dy")
        own = w[part.maps, :, :, part.inputs]
        products = scratch("products", (16, tiles.shape[1], own.shape[3]), dx.dtype)
        np.matmul(tiles, filter_factors(own, True), out=products)
        target, made = dx[part.gx, ..., part.channels], outputs(products, d.N, d.H, d.W)
        np.add(target, made, out=target) if d.groups == 1 and part.gy else np.copyto(target, made)


def output_tiles(dy: np.ndarray, readers: list[tuple[int, slice]], d: ConvDims) -> np.ndarray:
    """A e A^T of all tiles: the named (column, maps) of dy (G, n, P, Q, K) side by side -> (16, n*T*U, maps)."""
    n, T, U = d.N, _half(d.P), _half(d.Q)
    widths = [maps.stop - maps.start for _, maps in readers]
    K, k = sum(widths), 0
    even = zeroed("even", n, (2 * T, 2 * U, K), dy.dtype, (d.P, d.Q))
    for (g, maps), width in zip(readers, widths, strict=True):
        np.copyto(even[:, :d.P, :d.Q, k:k + width], dy[g, ..., maps])
        k += width
    rows = scratch("gradient rows", (4, n, T, 2 * U, K), dy.dtype)
    _spread(even[:, 0::2], even[:, 1::2], rows)
    tiles = scratch("tiles e", (4, 4, n, T, U, K), dy.dtype)
    _spread(rows[..., 0::2, :], rows[..., 1::2, :], tiles.swapaxes(0, 1))
    return tiles.reshape(16, n * T * U, K)


def _spread(e0: np.ndarray, e1: np.ndarray, out: np.ndarray) -> None:
    """A along one axis."""
    np.copyto(out[0], e0)
    np.add(e0, e1, out=out[1])
    np.subtract(e0, e1, out=out[2])
    np.negative(e1, out=out[3])


def wgrad(x: np.ndarray, dy: np.ndarray, dw: np.ndarray, d: ConvDims, add: bool) -> None:
    """dw = G^T [ sum over tiles of (A e A^T) (B^T d B) ] G; columns side by side where all maps read all channels."""
    if d.groups == 1:
        todo = [([(gx, slice(0, d.C // d.Gx)) for gx in range(d.Gx)], [(g, slice(0, d.K // d.Gy)) for g in range(d.Gy)], slice(0, d.K))]
    else:
        todo = [([(part.gx, part.channels)], [(part.gy, part.outputs)], part.maps) for part in parts(d)]
    for sources, readers, maps in todo:
        K, C = maps.stop - maps.start, d.C // d.groups
        tiles = input_tiles(padded(x, sources, 0, d.N, d), 0, d.P, d.Q, "x")
        sums = scratch("products", (16, K, C), dw.dtype)
        np.matmul(output_tiles(dy, readers, d).transpose(0, 2, 1), tiles, out=sums)
        taps = scratch("taps", (9, K, C), dw.dtype)
        np.matmul(_GG.T.astype(dw.dtype), sums.reshape(16, K * C), out=taps.reshape(9, K * C))
        own, made = dw[maps], taps.reshape(3, 3, K, C).transpose(2, 0, 1, 3)
        np.add(own, made, out=own) if add else np.copyto(own, made)
