"""A strided first convolution as one of stride 1, on pictures kept as cells of stride x stride pixels: what fuse.py makes of Conv.

The paper's conv1 is 11x11, stride 4, over 3 channels of 224 x 224 pixels; in cells of 4 it is 3x3, stride 1, over 48 channels of
56 x 56 cells, whose padding is one cell of zeros behind: the shape of every other convolution, with channels in whole vectors.
Its filters are the layer's own, filled up with zeros to 12x12.  Their gradients behind the 11th row and column are not 0 and are
dropped: these taps are no parameters.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from ..spec import Shape, pair
from .base import Layer, Run
from .conv import Conv
from .conv_relu import ConvReLU


@dataclass(frozen=True)
class CellConv(Conv):
    """`kernel`, `stride` and `pad` count cells of `cell` x `cell` pixels; the filters are taps x taps pixels, as declared."""

    cell: int = 1
    taps: int = 1

    def _weight_shape(self, x: Shape) -> tuple[int, ...]:
        return (self.K, self.taps, self.taps, x.channels // self.cell**2)

    def scratch(self, x: Shape) -> dict[str, tuple[int, ...]]:
        filters = (self.K, self.kernel, self.kernel, x.channels)
        return {"w": filters, "dw": filters}

    def _in_cells(self, run: Run) -> Run:
        """As Conv's passes expect it: filters of cells."""
        return replace(run, params={**run.params, "w": run.scratch["w"]}, grads={**run.grads, "w": run.scratch["dw"]})

    def fprop(self, ops, x, y, run: Run) -> None:
        ops.cells_fprop(_filters(run.params["w"]), _filters(run.scratch["w"]), cell=self.cell)
        super().fprop(ops, x, y, self._in_cells(run))

    def wgrad(self, ops, x, dy, run: Run) -> None:
        super().wgrad(ops, x, dy, self._in_cells(run))
        ops.cells_bprop(_filters(run.scratch["dw"]), _filters(run.grads["w"]), cell=self.cell)

    def dgrad(self, ops, dy, dx, run: Run, **gate) -> None:
        super().dgrad(ops, dy, dx, self._in_cells(run), **gate)


@dataclass(frozen=True)
class CellConvReLU(CellConv, ConvReLU):
    """The same with bias and ReLU in one op."""


def _filters(w):
    """(K, R, S, C) as K images."""
    return w.reshape((1, *w.shape))


def shape_of(x: Shape, cell: int) -> Shape:
    """Pictures of shape x, whole cells, as cells."""
    return Shape(1, x.H // cell, x.W // cell, cell**2 * x.C)


def in_cells(conv: Layer, x: Shape) -> CellConv | None:
    """`conv` on pictures of shape x kept as cells of its stride, or None where these do not divide x or its padding, would not be whole
    vectors of 4 numbers, or would more than double the work."""
    kind = {Conv: CellConv, ConvReLU: CellConvReLU}.get(type(conv))
    if kind is None:
        return None
    cell, (before, after) = conv.stride, pair(conv.pad)
    kernel = -(-conv.kernel // cell)
    if cell == 1 or conv.groups > 1 or x.columns > 1 or (kernel * cell) ** 2 > 2 * conv.kernel**2:
        return None
    if x.H % cell or x.W % cell or before % cell or cell**2 * x.C % 4:
        return None
    behind = kernel - -(-(conv.kernel - after) // cell)         # as many cells as give the declared outputs
    same = {f.name: getattr(conv, f.name) for f in fields(conv)}
    return kind(**same | dict(kernel=kernel, stride=1, pad=(before // cell, behind), cell=cell, taps=conv.kernel))
