"""Dropout (paper, section 4.2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .base import Layer, Run


@dataclass(frozen=True)
class Dropout(Layer):
    """Keeps each value with probability `keep` in training.

    As in the paper the kept values are *not* scaled, and at test time everything is multiplied by `keep`.
    `inverted=True` is today's habit: kept values are divided by `keep` and test time does nothing.
    The mask is recomputed in the backward pass: it is a function of (seed, step, layer, image, channel).
    """

    keep: float = 0.5
    inverted: bool = False

    in_place: ClassVar[bool] = True

    @property
    def scale(self) -> float:
        """What kept values are multiplied by."""
        return 1.0 / self.keep if self.inverted else 1.0

    def mask(self, run: Run) -> dict:
        """The keyword arguments of the ops."""
        return dict(keep=self.keep, scale=self.scale,
                    seed=run.seed, step=run.step, layer=run.ordinal, first=run.first, column=run.column, columns=run.columns)

    def fprop(self, ops, x, y, run: Run) -> None:
        if run.training:
            ops.dropout_fprop(x, y, **self.mask(run))
        else:
            ops.dropout_test(x, y, factor=1.0 if self.inverted else self.keep)

    def bprop(self, ops, x, y, dy, dx, run: Run) -> None:
        ops.dropout_bprop(dy, dx, **self.mask(run))
