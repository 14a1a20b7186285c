"""Words of the house: shapes, dims, parameter specifications, errors.  Standard library only.

Every activation is one array of shape (G, N, H, W, C): G columns of C channels each (a column is one
contiguous array, so a channel window cannot cross its border and a placement is only *where* index 0 of axis 0
lives).  `Shape` is that array for one image, without N.  Channel c of column g is global channel g*C + c.

Filters are (K, R, S, C_group): all K output channels, column 0's first; C_group = all input channels / groups.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

# Of the operands of products; sums are float32, and so is what is stored, but for activations in bf16.  bf16x3 and bf16x6 split each
# operand into 2 or 3 bf16 numbers and add up 3 or 6 of their products: about 16 bits of each product, and all 24
# (cuda/include/minialex/split_bf16.h).
PRECISIONS = ("float32", "tf32", "bf16", "bf16x3", "bf16x6")
BF16 = "uint16"                             # dtype of device arrays of bfloat16, which no array library has; used for nothing else


class MiniAlexError(Exception):
    """Base of every error a user can cause.  The message is one sentence: what, where, likely cause, next step."""


class ShapeError(MiniAlexError, ValueError):
    """A shape, rank, window or group count that does not fit."""


class DTypeError(MiniAlexError, TypeError):
    """An array of the wrong element type."""


class LayoutError(MiniAlexError, ValueError):
    """An array that is not contiguous per image, or that overlaps one it must not overlap."""


class DeviceError(MiniAlexError):
    """The GPU, its runtime or the emulator refused or failed: with the kernel and the runtime's own words."""


class DeviceMemoryError(DeviceError):
    """No memory left on the device."""


class BackendUnavailable(MiniAlexError, RuntimeError):
    """A backend that cannot be loaded here; the message carries the original reason."""


class Diverged(MiniAlexError):
    """The loss stopped being a number."""


class Stalled(MiniAlexError):
    """Pictures did not come for so long that a disk or a network share must have died."""


class Interrupted(MiniAlexError):
    """SIGTERM or SIGINT: the step was finished and a checkpoint written."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class Shape(NamedTuple):
    """One image's activation: `columns` arrays of (H, W, C); C counts the channels of one column."""

    columns: int
    H: int
    W: int
    C: int

    @property
    def channels(self) -> int:
        """Channels of all columns together (the paper's number of maps)."""
        return self.columns * self.C

    @property
    def features(self) -> int:
        """Values of one column: what a linear layer reads from it."""
        return self.H * self.W * self.C

    @property
    def size(self) -> int:
        """Values of all columns together (the paper's number of neurons)."""
        return self.columns * self.features

    def array(self, N: int) -> tuple[int, int, int, int, int]:
        """Shape of the array that holds N images: (G, N, H, W, C)."""
        return (self.columns, N, self.H, self.W, self.C)


@dataclass(frozen=True)
class ParamSpec:
    """One parameter of a layer.

    `std` > 0 draws N(0, std^2); otherwise the constant `value`.  `rate` and `decay` multiply the run's learning
    rate and weight decay; `anneal=False` keeps the schedule's *first* rate for ever (biases of `source2012`).
    """

    name: str                       # "w" or "b"
    shape: tuple[int, ...]
    std: float = 0.0
    value: float = 0.0
    rate: float = 1.0
    decay: float = 1.0
    anneal: bool = True

    @property
    def size(self) -> int:
        n = 1
        for extent in self.shape:
            n *= extent
        return n


def pair(pad: int | tuple[int, int]) -> tuple[int, int]:
    """Padding as (before, after); an int means both."""
    return (pad, pad) if isinstance(pad, int) else (int(pad[0]), int(pad[1]))


def out_extent(extent: int, window: int, stride: int, pad: int | tuple[int, int] = 0) -> int:
    """Positions of a window that fits wholly into the padded extent (convolutions)."""
    before, after = pair(pad)
    if stride < 1 or window < 1 or before < 0 or after < 0:
        raise ShapeError(f"window {window}, stride {stride}, pad ({before}, {after}): window and stride start at 1, padding at 0")
    if window > extent + before + after:
        raise ShapeError(f"a window of {window} does not fit an extent of {extent} padded by ({before}, {after}): "
                         "use a larger image or more padding")
    return (extent + before + after - window) // stride + 1


def pool_extent(extent: int, window: int, stride: int) -> int:
    """Positions of a pooling window: rounded up, the last ones clipped at the border, none of them empty."""
    if stride < 1 or window < 1:
        raise ShapeError(f"pool window {window}, stride {stride}: both start at 1")
    if window > extent:
        raise ShapeError(f"a pool window of {window} does not fit an extent of {extent}: use a larger image or a smaller window")
    out = -(-(extent - window) // stride) + 1
    return out - 1 if (out - 1) * stride >= extent else out      # stride > window: a last window wholly outside
