"""What a layer is: a frozen declaration that owns no array.

A layer answers three questions at three different moments: which shapes (`out_shape`, `params`), how it behaves in
columns (`joint`), and what to compute (`fprop`, `bprop`, which call one op of the backend handed in).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

from ..spec import ParamSpec, Shape


@dataclass(frozen=True)
class Run:
    """What one pass needs to know besides arrays.  `first` is the global index of the block's first image in its
    batch, `ordinal` the layer's position in its declaration: dropout's mask is a function of these and the seed."""

    training: bool = True
    seed: int = 0
    step: int = 0
    first: int = 0
    ordinal: int = 0
    accumulate: bool = False        # add parameter gradients instead of overwriting them
    column: int = 0                 # the arrays hold this column of the network and the following,
    columns: int | None = None      # of so many (None: of their own)
    branch: Any = None              # a stream beside, for the gradients of weights (branch.py); None: there is none
    params: dict[str, Any] = field(default_factory=dict)
    grads: dict[str, Any] = field(default_factory=dict)
    scratch: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Layer:
    """Base of all layers.  Subclasses override what differs."""

    name: str

    # Facts the net plans memory with.
    bprop_reads: ClassVar[str] = ""         # which of "x", "y" the backward pass reads
    in_place: ClassVar[bool] = False        # y may be x, and dx may be dy
    per_image: ClassVar[bool] = True        # may run on a block of images (linear layers and the loss may not)

    def out_shape(self, x: Shape) -> Shape:
        """Shape of y for an input of shape x; raises ShapeError where it does not fit."""
        return x

    def params(self, x: Shape) -> tuple[ParamSpec, ...]:
        """Parameters for an input of shape x, in the order they are stored."""
        return ()

    def scratch(self, x: Shape) -> dict[str, tuple[int, ...]]:
        """Shapes of arrays that the passes write for themselves: bprop finds what fprop left."""
        return {}

    def joint(self, x: Shape) -> bool:
        """True where every output column needs all input columns: the exchange points of a two-device placement."""
        return False

    def output(self) -> str:
        """The name of the declared layer whose output y is."""
        return self.name

    def column(self) -> Layer:
        """What makes one column of y from one column of x (from each column of x in turn, where the layer is joint)."""
        return self

    def gate(self) -> float | None:
        """The factor of the gate that the backward pass begins with: dy * factor where y > 0, else 0, as behind a ReLU; or None."""
        return None

    def gating(self, factor: float) -> Layer | None:
        """The same layer whose backward pass ends with the gate of the layer below, whose y is this one's x; None where it cannot."""
        return None

    def macs(self, x: Shape) -> int:
        """Multiply-adds of the forward pass for one image (0 for layers without weights, as the field counts)."""
        return 0

    def fprop(self, ops, x, y, run: Run) -> None:
        """Writes y, shape out_shape, from x; both (G, N, H, W, C)."""
        raise TypeError(f"{type(self).__name__} has no fprop")

    def bprop(self, ops, x, y, dy, dx, run: Run) -> None:
        """Writes dx (unless None) and run.grads from dy; reads what `bprop_reads` says."""
        raise TypeError(f"{type(self).__name__} has no bprop")


@dataclass(frozen=True, kw_only=True)
class Weighted(Layer):
    """A layer with weights and biases: how they start and how they learn (paper, section 5).

    Weights start from N(0, std^2), biases at `bias`.  `rate` and `decay` multiply the run's; biases learn at `bias_rate` times
    the weights' rate, never decay, and with bias_anneal=False keep the first rate for ever (the 2012 program).
    """

    std: float = 0.01
    bias: float = 0.0
    rate: float = 1.0
    decay: float = 1.0
    bias_rate: float = 1.0
    bias_anneal: bool = True
    below: float | None = None              # factor of the gate that dx passes, as `gating` says

    def gating(self, factor: float) -> Layer:
        return replace(self, below=factor)

    def parameters(self, weights: tuple[int, ...], biases: tuple[int, ...]) -> tuple[ParamSpec, ParamSpec]:
        """The two parameters, of these shapes."""
        return (ParamSpec("w", weights, std=self.std, rate=self.rate, decay=self.decay),
                ParamSpec("b", biases, value=self.bias, rate=self.rate * self.bias_rate, decay=0.0, anneal=self.bias_anneal))

    def column(self) -> Layer:
        return replace(self, K=self.K // self.columns, groups=max(1, self.groups // self.columns), columns=1)

    def wgrad(self, ops, x, dy, run: Run) -> None:
        """Writes run.grads, or adds to them."""
        raise TypeError(f"{type(self).__name__} has no wgrad")

    def dgrad(self, ops, dy, dx, run: Run, **gate) -> None:
        """Writes dx; `gate` as the ops take it."""
        raise TypeError(f"{type(self).__name__} has no dgrad")

    def bprop(self, ops, x, y, dy, dx, run: Run) -> None:
        alone = run.branch is None or dx is None        # the last of all has nothing to run beside
        self.wgrad(ops if alone else run.branch.fork(), x, dy, run)
        if dx is not None:
            self.dgrad(ops, dy, dx, run, **({} if self.below is None else dict(gate=x, scale=self.below)))
