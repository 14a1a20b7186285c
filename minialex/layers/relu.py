"""ReLU: max(0, x), in place (paper, section 3.1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Layer, Run


@dataclass(frozen=True)
class ReLU(Layer):
    """Elementwise, shape unchanged; the backward pass reads y alone."""

    bprop_reads: ClassVar[str] = "y"
    in_place: ClassVar[bool] = True

    def fprop(self, ops, x, y, run: Run) -> None:
        ops.relu_fprop(x, y)

    def bprop(self, ops, x, y, dy, dx, run: Run) -> None:
        ops.relu_bprop(y, dy, dx)
