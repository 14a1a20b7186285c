"""Local response normalisation across channels (paper, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..spec import Shape, ShapeError
from .base import Layer, Run


@dataclass(frozen=True)
class LRN(Layer):
    """x / (k + alpha * sum over n neighbouring channels of x^2)^beta, within a column.

    The paper's alpha multiplies the *sum*.  `divide_by_n=True` is the convention of Caffe and of the 2012 program:
    alpha / n multiplies it.
    """

    n: int = 5
    k: float = 2.0
    alpha: float = 1e-4
    beta: float = 0.75
    divide_by_n: bool = False

    bprop_reads: ClassVar[str] = "x"

    def out_shape(self, x: Shape) -> Shape:
        if self.n < 1 or self.n % 2 == 0:
            raise ShapeError(f"{self.name}: a window of {self.n} channels has no centre; n must be odd")
        return x

    def constants(self) -> dict:
        """The keyword arguments of the ops."""
        return dict(n=self.n, k=self.k, alpha=self.alpha / self.n if self.divide_by_n else self.alpha, beta=self.beta)

    def fprop(self, ops, x, y, run: Run) -> None:
        ops.lrn_fprop(x, y, **self.constants())

    def bprop(self, ops, x, y, dy, dx, run: Run) -> None:
        ops.lrn_bprop(x, dy, dx, **self.constants())
