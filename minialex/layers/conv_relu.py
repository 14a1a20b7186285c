"""Convolution with bias and ReLU in one op: what fuse.py makes of Conv followed by ReLU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Run
from .conv import Conv


@dataclass(frozen=True)
class ConvReLU(Conv):
    """y = max(0, conv(x) + b).  Keeps the convolution's name, so parameters have the same keys fused or not.

    `masked=True`: the dy that comes from above has passed the ReLU's gate already.
    """

    masked: bool = False

    bprop_reads: ClassVar[str] = "xy"

    def gate(self) -> float | None:
        return None if self.masked else 1.0

    def fprop(self, ops, x, y, run: Run) -> None:
        ops.conv_relu_fprop(x, run.params["w"], run.params["b"], y, stride=self.stride, pad=self.pad, groups=self.groups)

    def bprop(self, ops, x, y, dy, dx, run: Run) -> None:
        if not self.masked:
            ops.relu_bprop(y, dy, dy)               # in place: nobody reads the gradient behind the ReLU again
        super().bprop(ops, x, y, dy, dx, run)
