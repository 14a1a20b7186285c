"""Fully connected layer (paper, sections 3.2 and 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..spec import ParamSpec, Shape, ShapeError
from .base import Run, Weighted


@dataclass(frozen=True)
class Linear(Weighted):
    """K outputs of all inputs (`groups=1`) or of the own column's inputs (`groups` = columns, `talkless`).

    Weights are (K, F) with F the inputs of one group: column 0's (H, W, C) flattened, then column 1's.
    """

    K: int = 0
    groups: int = 1
    columns: int = 1

    bprop_reads: ClassVar[str] = "x"
    per_image: ClassVar[bool] = False

    def out_shape(self, x: Shape) -> Shape:
        if self.K % self.columns:
            raise ShapeError(f"{self.name}: {self.K} outputs do not divide into {self.columns} columns")
        if self.groups > 1 and not self.groups == x.columns == self.columns:
            raise ShapeError(f"{self.name}: {self.groups} groups need as many input and output columns, not {x.columns} and {self.columns}")
        return Shape(self.columns, 1, 1, self.K // self.columns)

    def params(self, x: Shape) -> tuple[ParamSpec, ...]:
        return self.parameters((self.K, x.size // self.groups), (self.K,))

    def joint(self, x: Shape) -> bool:
        return self.groups == 1 and x.columns > 1

    def macs(self, x: Shape) -> int:
        return self.K * (x.size // self.groups)

    def fprop(self, ops, x, y, run: Run) -> None:
        ops.linear_fprop(rows(x), run.params["w"], run.params["b"], rows(y), groups=self.groups)

    def wgrad(self, ops, x, dy, run: Run) -> None:
        ops.linear_wgrad(rows(x), rows(dy), run.grads["w"], run.grads["b"], groups=self.groups, accumulate=run.accumulate)

    def dgrad(self, ops, dy, dx, run: Run, **gate) -> None:
        if gate:
            gate["gate"] = rows(gate["gate"])
        ops.linear_dgrad(rows(dy), run.params["w"], rows(dx), groups=self.groups, **gate)


def rows(a):
    """(G, N, H, W, C) seen as (G, N, F)."""
    return a.reshape(a.shape[0], a.shape[1], a.shape[2] * a.shape[3] * a.shape[4])
