"""What a row of cases.py says: one dataclass for each kind of op, with the shapes that follow from its fields."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TypeVar

from ..spec import out_extent, pool_extent


@dataclass(frozen=True)
class Case:
    """Base of all rows; `name` is the test id."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class ConvCase(Case):
    """A convolution, shared or local: x (columns, N, H, W, C) to y (out_columns, N, P, Q, K / out_columns)."""

    N: int
    H: int
    W: int
    C: int
    K: int
    R: int
    S: int
    stride: int = 1
    pad: int | tuple[int, int] = 0
    groups: int = 1
    columns: int = 1
    out_columns: int = 1
    big: bool = False

    @property
    def P(self) -> int:
        return out_extent(self.H, self.R, self.stride, self.pad)

    @property
    def Q(self) -> int:
        return out_extent(self.W, self.S, self.stride, self.pad)

    @property
    def C_group(self) -> int:
        return self.columns * self.C // self.groups

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.columns, self.N, self.H, self.W, self.C)

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (self.out_columns, self.N, self.P, self.Q, self.K // self.out_columns)

    @property
    def w_shape(self) -> tuple[int, ...]:
        return (self.K, self.R, self.S, self.C_group)

    @property
    def b_shape(self) -> tuple[int, ...]:
        return (self.K,)

    @property
    def local_w_shape(self) -> tuple[int, ...]:
        return (self.P, self.Q, *self.w_shape)

    @property
    def local_b_shape(self) -> tuple[int, ...]:
        return (self.P, self.Q, self.K)

    @property
    def geometry(self) -> dict:
        """The keyword arguments of the ops."""
        return dict(stride=self.stride, pad=self.pad, groups=self.groups)

    @property
    def tiny(self) -> bool:
        return self.columns * self.N * self.H * self.W * self.C <= 600 and self.K * self.R * self.S * self.C_group <= 600


@dataclass(frozen=True)
class LinearCase(Case):
    """x (columns, N, F) to y (out_columns, N, K / out_columns); F counts one column's inputs."""

    N: int
    F: int
    K: int
    groups: int = 1
    columns: int = 1
    out_columns: int = 1
    big: bool = False

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.columns, self.N, self.F)

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (self.out_columns, self.N, self.K // self.out_columns)

    @property
    def w_shape(self) -> tuple[int, ...]:
        return (self.K, self.columns * self.F // self.groups)

    @property
    def tiny(self) -> bool:
        return self.F * self.N * self.columns <= 300 and self.K * self.F * self.columns <= 600


@dataclass(frozen=True)
class MapCase(Case):
    """An activation of `columns` columns of N images of H x W x C."""

    N: int
    H: int
    W: int
    C: int
    columns: int = 1
    big: bool = False

    @property
    def x_shape(self) -> tuple[int, ...]:
        return (self.columns, self.N, self.H, self.W, self.C)

    @property
    def tiny(self) -> bool:
        return self.columns * self.N * self.H * self.W * self.C <= 600


@dataclass(frozen=True)
class NormCase(MapCase):
    """LRN across channels or the square of one map; alpha multiplies the plain sum of squares."""

    n: int = 5
    k: float = 2.0
    alpha: float = 1.0
    beta: float = 0.75

    @property
    def constants(self) -> dict:
        """The keyword arguments of the ops."""
        return dict(n=self.n, k=self.k, alpha=self.alpha, beta=self.beta)


@dataclass(frozen=True)
class PoolCase(MapCase):
    """Max or average pooling; extents round up."""

    window: int = 3
    stride: int = 2

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (self.columns, self.N, pool_extent(self.H, self.window, self.stride), pool_extent(self.W, self.window, self.stride), self.C)


@dataclass(frozen=True)
class CellsCase(MapCase):
    """Pictures kept as cells of cell x cell pixels; extents round up."""

    cell: int = 2

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (self.columns, self.N, -(-self.H // self.cell), -(-self.W // self.cell), self.cell**2 * self.C)


@dataclass(frozen=True)
class DropoutCase(MapCase):
    """Where the mask comes from: everything but the array."""

    keep: float = 0.5
    scale: float = 1.0
    seed: int = 0
    step: int = 0
    layer: int = 0
    first: int = 0
    column: int = 0                     # of the array's first column
    of: int | None = None               # columns of the network

    @property
    def mask(self) -> dict:
        """The keyword arguments of the ops."""
        return {f: getattr(self, f) for f in ("keep", "scale", "seed", "step", "layer", "first", "column")} | {"columns": self.of}


@dataclass(frozen=True)
class LossCase(Case):
    """N rows of K logits drawn with standard deviation `spread`."""

    N: int
    K: int
    spread: float = 1.0


@dataclass(frozen=True)
class SGDCase(Case):
    """A flat arena of `size` parameters; segments are (start, stop, rate, decay)."""

    size: int
    segments: tuple[tuple[int, int, float, float], ...]
    momentum: float = 0.9


@dataclass(frozen=True)
class AugmentCase(Case):
    """Crops of H x W out of N pictures of H0 x W0, written as cells of cell x cell pixels."""

    N: int
    H0: int
    W0: int
    H: int
    W: int
    mean_at: str = "crop"
    scale: float = 1.0
    cell: int = 1

    @property
    def y_shape(self) -> tuple[int, ...]:
        return (1, self.N, self.H // self.cell, self.W // self.cell, 3 * self.cell**2)


AnyCase = TypeVar("AnyCase", bound=Case)


def small(cases: list[AnyCase]) -> list[AnyCase]:
    """The rows that cost next to nothing."""
    return [case for case in cases if not getattr(case, "big", False)]


def tiny(cases: list[AnyCase]) -> list[AnyCase]:
    """The rows for finite differences."""
    return [case for case in small(cases) if case.tiny]


def repro(case: Case) -> str:
    """The row as Python source, for failure messages."""
    return f"{type(case).__name__}({', '.join(f'{f.name}={getattr(case, f.name)!r}' for f in fields(case))})"
