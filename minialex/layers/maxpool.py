"""Overlapping max-pooling (paper, section 3.4)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ..spec import Shape, ShapeError, pool_extent
from .base import Layer, Run


@dataclass(frozen=True)
class MaxPool(Layer):
    """Maximum of window x window every `stride` positions; extents round up, windows are clipped at the border.

    `ties` says who gets the gradient where several inputs are the maximum: "first" in row order (the paper's text is
    silent; most libraries do this) or "all" (the 2012 program).  relu=True: dx passes the gate of a ReLU below.
    """

    window: int = 3
    stride: int = 2
    ties: str = "first"
    relu: bool = False

    bprop_reads: ClassVar[str] = "xy"

    def out_shape(self, x: Shape) -> Shape:
        if self.ties not in ("first", "all"):
            raise ShapeError(f"{self.name}: ties={self.ties!r}; choose 'first' or 'all'")
        return Shape(x.columns, pool_extent(x.H, self.window, self.stride), pool_extent(x.W, self.window, self.stride), x.C)

    def gating(self, factor: float) -> MaxPool | None:
        return replace(self, relu=True) if factor == 1 else None

    def fprop(self, ops, x, y, run: Run) -> None:
        ops.maxpool_fprop(x, y, window=self.window, stride=self.stride)

    def bprop(self, ops, x, y, dy, dx, run: Run) -> None:
        gate = dict(relu=True) if self.relu else {}
        ops.maxpool_bprop(x, y, dy, dx, window=self.window, stride=self.stride, ties=self.ties, **gate)
