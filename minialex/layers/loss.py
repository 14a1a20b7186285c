"""Softmax and the multinomial logistic objective (paper, section 3.5)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from ..spec import Shape, ShapeError
from .base import Layer


@dataclass(frozen=True)
class SoftmaxLoss(Layer):
    """Probabilities and cross-entropy of one label per image.  The net hands labels and the per-image loss to the
    ops itself, so this layer is called through `loss` and `dlogits`, not `fprop` and `bprop`."""

    per_image: ClassVar[bool] = False

    def out_shape(self, x: Shape) -> Shape:
        if (x.columns, x.H, x.W) != (1, 1, 1):
            raise ShapeError(f"{self.name}: the loss reads one column of logits at one position, not {tuple(x)}")
        return x

    def loss(self, ops, logits, labels, p, loss, dx=None, scale: float = 1.0) -> None:
        """Writes p (N, K) and loss (N,) from logits (1, N, 1, 1, K) and labels (N,) int32; with a dx in the same trip what `dlogits`
        makes of p."""
        gradient = {} if dx is None else dict(dx=dx.reshape(p.shape), scale=scale)
        ops.loss_fprop(logits.reshape(p.shape), labels, p, loss, **gradient)

    def dlogits(self, ops, p, labels, dx, scale: float) -> None:
        """Writes dx (1, N, 1, 1, K) = (p - onehot) * scale; scale is 1/batch for the paper's average."""
        ops.loss_bprop(p, labels, dx.reshape(p.shape), scale=scale)
