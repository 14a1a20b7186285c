"""Fully connected layer, ReLU and dropout in one op: what fuse.py makes of Linear followed by ReLU, and by Dropout."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from .base import Run
from .dropout import Dropout
from .linear import Linear, rows


@dataclass(frozen=True)
class LinearReLU(Linear):
    """y = dropout(max(0, linear(x) + b)).  Keeps the linear layer's name, so parameters have the same keys fused or not.

    `masked=True`: the dy that comes from above has passed the gate of the ReLU and the dropout already.
    """

    last: str = ""                          # the name of the last layer in it
    dropout: Dropout | None = None          # two behind the linear layer in the declaration
    masked: bool = False

    bprop_reads: ClassVar[str] = "xy"

    def output(self) -> str:
        return self.last

    def gate(self) -> float | None:
        return None if self.masked else self.dropout.scale if self.dropout else 1.0

    def _of_dropout(self, run: Run) -> Run:
        return replace(run, ordinal=run.ordinal + 2)

    def fprop(self, ops, x, y, run: Run) -> None:
        mask = self.dropout.mask(self._of_dropout(run)) if self.dropout and run.training else None
        ops.linear_relu_fprop(rows(x), run.params["w"], run.params["b"], rows(y), groups=self.groups, dropout=mask)
        if self.dropout and not run.training:
            self.dropout.fprop(ops, y, y, run)

    def bprop(self, ops, x, y, dy, dx, run: Run) -> None:
        if not self.masked:
            if self.dropout:
                self.dropout.bprop(ops, y, y, dy, dy, self._of_dropout(run))
            ops.relu_bprop(y, dy, dy)           # in place: nobody reads the gradient behind them again
        super().bprop(ops, x, y, dy, dx, run)
