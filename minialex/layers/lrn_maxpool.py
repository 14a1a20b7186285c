"""Response normalisation and the max-pool behind it in one op: what fuse.py makes of LRN followed by MaxPool."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from ..spec import Shape
from .base import Layer, Run
from .lrn import LRN
from .maxpool import MaxPool


@dataclass(frozen=True)
class LRNMaxPool(Layer):
    """y = pool(norm(x)), under the pool's name; what lies between is nowhere in memory.

    `relu=True`: dx passes the gate of a ReLU below.
    """

    norm: LRN
    pool: MaxPool
    relu: bool = False

    bprop_reads: ClassVar[str] = "xy"

    def out_shape(self, x: Shape) -> Shape:
        return self.pool.out_shape(self.norm.out_shape(x))

    def _constants(self) -> dict:
        return dict(window=self.pool.window, stride=self.pool.stride, **self.norm.constants())

    def gating(self, factor: float) -> LRNMaxPool | None:
        return replace(self, relu=True) if factor == 1 else None

    def fprop(self, ops, x, y, run: Run) -> None:
        ops.lrn_maxpool_fprop(x, y, **self._constants())

    def bprop(self, ops, x, y, dy, dx, run: Run) -> None:
        ops.lrn_maxpool_bprop(x, y, dy, dx, ties=self.pool.ties, relu=self.relu, **self._constants())
