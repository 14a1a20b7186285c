"""Pictures as cells of pixels, and back: what makes a strided convolution one of stride 1 (paper, section 3.5: conv1's stride of 4)."""

from __future__ import annotations

import numpy as np

from .. import checks


def cells_fprop(x: np.ndarray, y: np.ndarray, *, cell: int) -> None:
    """y[g, n, p, q, (r * cell + s) * C + c] = x[g, n, p * cell + r, q * cell + s, c], 0 where that lies beyond x.

    x is (G, N, H, W, C), y (G, N, ceil(H / cell), ceil(W / cell), cell * cell * C).
    """
    checks.cells("cells_fprop", x=x, y=y, cell=cell, outputs=("y",))
    G, N, H, W, C = x.shape
    P, Q = y.shape[2:4]
    whole = np.zeros((G, N, P * cell, Q * cell, C), x.dtype)
    whole[:, :, :H, :W] = x
    y[...] = whole.reshape(G, N, P, cell, Q, cell, C).transpose(0, 1, 2, 4, 3, 5, 6).reshape(y.shape)


def cells_bprop(dy: np.ndarray, dx: np.ndarray, *, cell: int) -> None:
    """dx[g, n, h, w, c] = dy where fprop puts that number; what lies beyond dx is dropped, whatever it is."""
    checks.cells("cells_bprop", dx=dx, dy=dy, cell=cell, outputs=("dx",))
    G, N, H, W, C = dx.shape
    P, Q = dy.shape[2:4]
    whole = dy.reshape(G, N, P, Q, cell, cell, C).transpose(0, 1, 2, 4, 3, 5, 6).reshape(G, N, P * cell, Q * cell, C)
    dx[...] = whole[:, :, :H, :W]
