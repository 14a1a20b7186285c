"""Convolution with groups, stride and asymmetric padding (paper, sections 3.2 and 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..spec import ParamSpec, Shape, ShapeError, out_extent
from .base import Run, Weighted


@dataclass(frozen=True)
class Conv(Weighted):
    """K maps of kernel x kernel filters.

    `groups=1` reads all input channels (joint where the input has more than one column); `groups=2` on two columns
    is a column that reads its own.  `columns` is how many columns the output is kept in.  `pad` is an int or
    (before, after), the same on both axes: the paper's conv1 is (0, 3), which makes 55 of 224 (docs/PAPER_TO_CODE.md).
    """

    K: int = 0
    kernel: int = 1
    stride: int = 1
    pad: int | tuple[int, int] = 0
    groups: int = 1
    columns: int = 1

    bprop_reads: ClassVar[str] = "x"

    def out_shape(self, x: Shape) -> Shape:
        for what, count in (("input channels", x.channels), ("maps", self.K)):
            if count % self.groups:
                raise ShapeError(f"{self.name}: {count} {what} do not divide into {self.groups} groups")
        if self.K % self.columns:
            raise ShapeError(f"{self.name}: {self.K} maps do not divide into {self.columns} columns")
        if self.groups > 1 and (self.groups % x.columns or self.groups % self.columns):
            raise ShapeError(f"{self.name}: {self.groups} groups do not align with {x.columns} input and {self.columns} output columns")
        return Shape(self.columns, out_extent(x.H, self.kernel, self.stride, self.pad),
                     out_extent(x.W, self.kernel, self.stride, self.pad), self.K // self.columns)

    def _weight_shape(self, x: Shape) -> tuple[int, ...]:
        return (self.K, self.kernel, self.kernel, x.channels // self.groups)

    def _bias_shape(self, x: Shape) -> tuple[int, ...]:
        return (self.K,)

    def params(self, x: Shape) -> tuple[ParamSpec, ...]:
        return self.parameters(self._weight_shape(x), self._bias_shape(x))

    def joint(self, x: Shape) -> bool:
        return self.groups == 1 and x.columns > 1

    def macs(self, x: Shape) -> int:
        y = self.out_shape(x)
        return y.size * self.kernel * self.kernel * (x.channels // self.groups)

    def fprop(self, ops, x, y, run: Run) -> None:
        ops.conv_fprop(x, run.params["w"], run.params["b"], y, stride=self.stride, pad=self.pad, groups=self.groups)

    def wgrad(self, ops, x, dy, run: Run) -> None:
        ops.conv_wgrad(x, dy, run.grads["w"], run.grads["b"], stride=self.stride, pad=self.pad, groups=self.groups,
                       accumulate=run.accumulate)

    def dgrad(self, ops, dy, dx, run: Run, **gate) -> None:
        ops.conv_dgrad(dy, run.params["w"], dx, stride=self.stride, pad=self.pad, groups=self.groups, **gate)
