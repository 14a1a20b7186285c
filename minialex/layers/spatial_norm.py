"""Response normalisation over a square of the same map (the 2012 program's extra norm layer; cuda-convnet's CIFAR networks)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..spec import Shape, ShapeError
from .base import Layer, Run


@dataclass(frozen=True)
class SpatialNorm(Layer):
    """x * (k + alpha * sum over the n x n square of the same map of x^2)^-beta; squares are clipped at the border
    and alpha is used as given (pass .001/25 for the program's .001 of a 5 x 5 square)."""

    n: int = 5
    k: float = 1.0
    alpha: float = 0.001 / 25
    beta: float = 0.75

    bprop_reads: ClassVar[str] = "x"

    def out_shape(self, x: Shape) -> Shape:
        if self.n < 1 or self.n % 2 == 0:
            raise ShapeError(f"{self.name}: a square of {self.n} x {self.n} has no centre; n must be odd")
        return x

    def fprop(self, ops, x, y, run: Run) -> None:
        ops.spatial_norm_fprop(x, y, n=self.n, k=self.k, alpha=self.alpha, beta=self.beta)

    def bprop(self, ops, x, y, dy, dx, run: Run) -> None:
        ops.spatial_norm_bprop(x, dy, dx, n=self.n, k=self.k, alpha=self.alpha, beta=self.beta)
