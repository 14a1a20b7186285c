"""Two ways to evaluate a convolution at points instead of multiplying taps (Winograd, Toom and Cook; Lavin and Gray, CVPR 2016).

With A, B and G made of the points, a tile's outputs are, along one axis, Y = A^T [ (G g) . (B^T d) ]; d inputs, g taps, and . a matrix
product over channels at each point.  A form knows its arrays: factors of inputs (points, rows, depth), of filters (points, depth, K), of
gradients (points, rows, K), with a row for each tile.  The transforms are matrix products as well, on whole arrays of tiles.

`Square`: both axes at seven points, in tiles of m x m outputs, m = 8 - r for windows of r x r: 49 products a tile where the direct form
has m^2 r^2.  B, G and A are Kronecker squares.  Of the paper's maps 55 = 11 x 5, and 13 is padded to 15.
`Rows`: only along rows, at eight points, in tiles of m = 9 - S outputs; the R taps of a column stay side by side in the depth of the
product.  8 R products where the direct form has m R S, and hardly any transforms: better where channels are few.  27 is padded to 7 x 4.

The points lose least in float32 among the symmetric and usual ones tried: the root mean square error is at most 10 times that of the
direct form (tests/test_winograd.py), far inside the bound that holds for both.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..checks import ConvDims
from .parts import record
from .workers import scratch, zeroed

SEVEN = tuple(Fraction(*p) for p in ((1, 3), (-1, 3), (6, 7), (-6, 7), (7, 4), (-7, 4)))                # and infinity, in both
EIGHT = tuple(Fraction(*p) for p in ((3, 5), (-3, 5), (1, 1), (-1, 1), (2, 1), (-2, 1), (0, 1)))
# What a cost counts, in multiply-adds of a large product: those of the thin products of a transform, and numbers moved.
THIN, MOVED = 2, 8


class Matrices(NamedTuple):
    """For p points, m outputs and r taps; of a square, their Kronecker squares."""

    A: np.ndarray                           # (m, p)        products -> outputs
    B: np.ndarray                           # (p, p)        inputs -> factors
    G: np.ndarray                           # (p, r)        taps -> factors


@lru_cache
def matrices(r: int, square: bool, dtype: np.dtype) -> Matrices:
    """Those of A^T, B^T and G; rows are scaled by powers of two so that B's have sums near 1."""
    points = SEVEN if square else EIGHT
    n, m = len(points) + 1, len(points) + 2 - r
    A, B, G = [[Fraction(0)] * n for _ in range(m)], [], []
    for j, point in enumerate(points):
        others = [p for p in points if p != point]
        row = [*_polynomial(others), Fraction(0)]
        scale = Fraction(2) ** round(np.log2(float(sum(map(abs, row)))))
        B.append([c / scale for c in row])
        norm = np.prod([point - other for other in others])
        G.append([point ** k * scale / norm for k in range(r)])
        for i in range(m):
            A[i][j] = point ** i
    row = _polynomial(points)               # infinity: the leading coefficients
    scale = Fraction(2) ** round(np.log2(float(sum(map(abs, row)))))
    B.append([c / scale for c in row])
    G.append([scale * (k == r - 1) for k in range(r)])
    A[m - 1][n - 1] = Fraction(1)
    made = (np.array(rows, dtype=np.float64) for rows in (A, B, G))
    return Matrices(*((np.kron(M, M) if square else M).astype(dtype) for M in made))


def _polynomial(roots) -> list[Fraction]:
    """Coefficients of prod (x - root), the constant first."""
    c = [Fraction(1)]
    for root in roots:
        c = [(c[i - 1] if i else 0) - (root * c[i] if i < len(c) else 0) for i in range(len(c) + 1)]
    return c


def _bordered(a: np.ndarray, before: int, high: int, wide: int) -> np.ndarray:
    """Images a (n, H, W, C) as (n, high, wide, C) in scratch memory: `before` zeros, the image as far as windows see it, zeros."""
    n, H, W, C = a.shape
    H, W = min(H, high - before), min(W, wide - before)
    bordered = zeroed("bordered", n, (high, wide, C), a.dtype, (before, H, W))
    np.copyto(bordered[:, before:before + H, before:before + W], a[:, :H, :W])
    return bordered


def _gathered(seen: np.ndarray, rows: int, dtype) -> np.ndarray:
    """A copy of a view of runs as (rows, numbers), in scratch memory."""
    tiles = scratch("tiles", (rows, seen.size * seen.itemsize // dtype.itemsize // rows), dtype)
    np.copyto(tiles.view(seen.dtype).reshape(seen.shape), seen)
    return tiles


def _times(matrix: np.ndarray, tiles: np.ndarray, name: str) -> np.ndarray:
    """matrix @ tiles, in scratch memory."""
    return np.matmul(matrix, tiles, out=scratch(name, (matrix.shape[0], tiles.shape[1]), tiles.dtype))


class Square(NamedTuple):
    """A convolution of stride 1 over cells of `cell` x `cell` pixels, r x r of them a window, in T x U tiles."""

    r: int
    T: int
    U: int
    cell: int

    @classmethod
    def of(cls, taps: int, P: int, Q: int, stride: int) -> Square | None:
        r = -(-taps // stride)
        m = len(SEVEN) + 2 - r
        return cls(r, -(-P // m), -(-Q // m), stride) if r > 1 and m > 2 else None

    @property
    def m(self) -> int:
        return len(SEVEN) + 2 - self.r

    @property
    def points(self) -> int:
        return (len(SEVEN) + 1) ** 2

    @property
    def outputs(self) -> tuple[int, int]:
        """Of all tiles: rows and columns."""
        return self.T * self.m, self.U * self.m

    @property
    def tiles(self) -> int:
        return self.T * self.U

    def depth(self, C: int) -> int:
        return self.cell ** 2 * C

    def cost(self, C: int, K: int) -> int:
        """Of one image, in multiply-adds."""
        depth, outputs, points = self.depth(C), self.m ** 2, self.points
        thin, moved = points * depth + outputs * K, 2 * depth + K + 2 * outputs * K // points
        return self.tiles * points * (depth * K + THIN * thin + MOVED * moved)

    def matrices(self, dtype) -> Matrices:
        return matrices(self.r, True, dtype)

    def inputs(self, a: np.ndarray, before: int) -> np.ndarray:
        """B^T d B of all tiles of images a (n, H, W, C), padded by `before` zeros and as many after as tiles need."""
        n, _, _, C = a.shape
        side, m = len(SEVEN) + 1, self.m
        wide = _bordered(a, before, *((outputs + self.r - 1) * self.cell for outputs in self.outputs))
        image, row, pixel, _ = wide.strides
        down, right = row * self.cell, pixel * self.cell
        seen = np.ndarray((side, side, n, self.T, self.U, self.cell), record(a.itemsize, self.cell * C), wide, 0,
                          (down, right, image, m * down, m * right, row))
        factors = _times(self.matrices(a.dtype).B, _gathered(seen, self.points, a.dtype), "input factors")
        return factors.reshape(self.points, n * self.tiles, self.depth(C))

    def placed(self, y: np.ndarray) -> np.ndarray:
        """Pixels of images y (n, T*m, U*m, K) as runs by their place in the tile: (m, m, n, T, U)."""
        n, _, _, K = y.shape
        image, row, pixel, _ = y.strides
        m = self.m
        return np.ndarray((m, m, n, self.T, self.U), record(y.itemsize, K), y, 0, (row, pixel, image, m * row, m * pixel))

    def seen(self, w: np.ndarray) -> np.ndarray:
        """Filters w (K, R, S, C) as a view (r, r, ..., K): taps of cells, zeros where a cell reaches beyond the window."""
        K, R, S, C = w.shape
        r, cell = self.r, self.cell
        if cell > 1:
            wide = zeroed("wide filters", K, (r * cell, r * cell, C), w.dtype, (R, S))
            np.copyto(wide[:, :R, :S], w)
            w = wide
        return w.reshape(K, r, cell, r, cell, C).transpose(1, 3, 2, 4, 5, 0)

    def taps(self, made: np.ndarray, R: int, S: int) -> np.ndarray:
        """Gradients of them (r*r, K, depth) as (K, R, S, C)."""
        K, r, cell = made.shape[1], self.r, self.cell
        wide = made.reshape(r, r, K, cell, cell, -1).transpose(2, 0, 3, 1, 4, 5)
        return wide[:, :, 0, :, 0] if cell == 1 else wide.reshape(K, r * cell, r * cell, -1)[:, :R, :S]


class Rows(NamedTuple):
    """A convolution of stride 1 with windows of R x S: P rows of outputs, each in U tiles."""

    R: int
    S: int
    P: int
    U: int

    @classmethod
    def of(cls, R: int, S: int, P: int, Q: int) -> Rows | None:
        m = len(EIGHT) + 2 - S
        return cls(R, S, P, -(-Q // m)) if S > 2 and m > 2 else None

    @property
    def m(self) -> int:
        return len(EIGHT) + 2 - self.S

    @property
    def points(self) -> int:
        return len(EIGHT) + 1

    @property
    def outputs(self) -> tuple[int, int]:
        """Of all tiles: rows and columns."""
        return self.P, self.U * self.m

    @property
    def tiles(self) -> int:
        return self.P * self.U

    def depth(self, C: int) -> int:
        return self.R * C

    def cost(self, C: int, K: int) -> int:
        """Of one image, in multiply-adds."""
        points, own = self.points, C * (self.P + self.R - 1) // self.P
        thin, moved = points * own + self.m * K, 2 * own + self.depth(C) + K + 2 * self.m * K // points
        return self.tiles * points * (self.depth(C) * K + THIN * thin + MOVED * moved)

    def matrices(self, dtype) -> Matrices:
        return matrices(self.S, False, dtype)

    def inputs(self, a: np.ndarray, before: int) -> np.ndarray:
        """B^T d of each row of images a (n, H, W, C), padded by `before` zeros and as many after as tiles need; then R rows one behind
        the other, which is a run where all rows of a column of tiles lie together."""
        n, _, _, C = a.shape
        high = self.P + self.R - 1
        wide = _bordered(a, before, high, self.outputs[1] + self.S - 1)
        image, row, pixel, _ = wide.strides
        seen = np.ndarray((self.points, n, self.U, high), record(a.itemsize, C), wide, 0, (pixel, image, self.m * pixel, row))
        factors = _times(self.matrices(a.dtype).B, _gathered(seen, self.points, a.dtype), "row factors")
        run, columns = record(a.itemsize, self.R * C), self.points * n * self.U
        windows = np.ndarray((columns, self.P), run, factors, 0, (high * C * a.itemsize, C * a.itemsize))
        made = scratch("input factors", (self.points, n * self.tiles, self.R * C), a.dtype)
        np.copyto(made.reshape(-1).view(run).reshape(columns, self.P), windows)
        return made

    def placed(self, y: np.ndarray) -> np.ndarray:
        """Pixels of images y (n, P, U*m, K) as runs by their place in the tile: (m, n, U, P)."""
        n, _, _, K = y.shape
        image, row, pixel, _ = y.strides
        return np.ndarray((self.m, n, self.U, self.P), record(y.itemsize, K), y, 0, (pixel, image, self.m * pixel, row))

    def seen(self, w: np.ndarray) -> np.ndarray:
        """Filters w (K, R, S, C) as a view (S, R, C, K)."""
        return w.transpose(2, 1, 3, 0)

    def taps(self, made: np.ndarray, R: int, S: int) -> np.ndarray:
        """Gradients of them (S, K, depth) as (K, R, S, C)."""
        return made.reshape(S, made.shape[1], R, -1).transpose(1, 2, 0, 3)


Form = Square | Rows


def filters(form: Form, w: np.ndarray, out: np.ndarray) -> None:
    """out (points, depth, K) = G g of filters w (K, R, S, C)."""
    seen, G = form.seen(w), form.matrices(w.dtype).G
    taps = scratch("taps", seen.shape, w.dtype)
    np.copyto(taps, seen)
    np.matmul(G, taps.reshape(G.shape[1], -1), out=out.reshape(form.points, -1))


def outputs(form: Form, products: np.ndarray, n: int, into: np.ndarray | None) -> np.ndarray:
    """A^T M of all tiles: products (points, n*tiles, K) -> (n, *form.outputs, K), in `into` if it has this shape in one run of memory, else
    in scratch memory."""
    flat = _times(form.matrices(products.dtype).A, products.reshape(form.points, -1), "outputs")
    shape = (n, *form.outputs, products.shape[2])
    fits = into is not None and into.shape == shape and into.flags.c_contiguous
    y = into if fits else scratch("images", shape, products.dtype)
    to = form.placed(y)
    np.copyto(to, flat.view(to.dtype).reshape(to.shape))
    return y


def gradients(form: Form, dy: np.ndarray) -> np.ndarray:
    """A e of all tiles of gradients dy (n, *form.outputs, K): (points, n*tiles, K), in scratch memory."""
    A = form.matrices(dy.dtype).A
    factors = _times(A.T, _gathered(form.placed(dy), len(A), dy.dtype), "gradient factors")
    return factors.reshape(form.points, -1, dy.shape[3])


def gradients_of_filters(form: Form, sums: np.ndarray, d: ConvDims) -> np.ndarray:
    """G^T of sums (points, K, depth): (K, R, S, C), in scratch memory."""
    G = form.matrices(sums.dtype).G
    made = _times(G.T, sums.reshape(form.points, -1), "taps")
    return form.taps(made.reshape(len(made), sums.shape[1], -1), d.R, d.S)
