"""Average pooling (the CIFAR-10 networks of cuda-convnet)."""

from __future__ import annotations

from dataclasses import dataclass

from ..spec import Shape, pool_extent
from .base import Layer, Run


@dataclass(frozen=True)
class AvgPool(Layer):
    """Mean over window x window every `stride` positions; clipped windows divide by the clipped count."""

    window: int = 3
    stride: int = 2

    def out_shape(self, x: Shape) -> Shape:
        return Shape(x.columns, pool_extent(x.H, self.window, self.stride), pool_extent(x.W, self.window, self.stride), x.C)

    def fprop(self, ops, x, y, run: Run) -> None:
        ops.avgpool_fprop(x, y, window=self.window, stride=self.stride)

    def bprop(self, ops, x, y, dy, dx, run: Run) -> None:
        ops.avgpool_bprop(dy, dx, window=self.window, stride=self.stride)
