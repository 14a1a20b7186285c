"""Locally connected layer: a convolution whose weights are not shared between positions (the CIFAR-10 networks)."""

from __future__ import annotations

from dataclasses import dataclass

from ..spec import Shape
from .base import Run
from .conv import Conv


@dataclass(frozen=True)
class Local(Conv):
    """As Conv, with one set of filters (P, Q, K, R, S, C/groups) and biases (P, Q, K) for each output position."""

    def _weight_shape(self, x: Shape) -> tuple[int, ...]:
        y = self.out_shape(x)
        return (y.H, y.W, *super()._weight_shape(x))

    def _bias_shape(self, x: Shape) -> tuple[int, ...]:
        y = self.out_shape(x)
        return (y.H, y.W, self.K)

    def fprop(self, ops, x, y, run: Run) -> None:
        ops.local_fprop(x, run.params["w"], run.params["b"], y, stride=self.stride, pad=self.pad, groups=self.groups)

    def wgrad(self, ops, x, dy, run: Run) -> None:
        ops.local_wgrad(x, dy, run.grads["w"], run.grads["b"], stride=self.stride, pad=self.pad, groups=self.groups,
                        accumulate=run.accumulate)

    def dgrad(self, ops, dy, dx, run: Run, **gate) -> None:
        ops.local_dgrad(dy, run.params["w"], dx, stride=self.stride, pad=self.pad, groups=self.groups, **gate)
