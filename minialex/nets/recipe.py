"""A recipe: one network with everything needed to train it, declared and nothing executed (floor 2: no NumPy).

The paper's and the 2012 program's choices differ row by row (docs/PAPER_TO_CODE.md); each row is a field here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ..layers import Layer
from ..spec import Shape


@dataclass(frozen=True)
class Augmentation:
    """What one use of a training image undergoes (paper, section 4.1), and how test crops are taken.

    `inclusive=False` draws crop offsets from 0 .. record-crop-1 (the paper's 32 x 32 positions), True from
    0 .. record-crop (the program's 33 x 33).  `chunk` images share one crop and flip.  Colour noise adds
    P diag(s) a to every pixel, a ~ N(0, colour_std^2), s the standard deviations along the eigenvectors P of the
    training pixels' covariance; from epoch `colour_until` on it is off.  `noisy_scale` multiplies (x + noise) while
    it is on.  mean_at="crop" subtracts the mean image aligned with the crop before the flip, "centre" its centre crop
    after it.  order="shuffled" is a keyed permutation of (seed, epoch), "fixed" the same order every epoch.
    """

    crops: bool = True
    inclusive: bool = False
    flips: bool = True
    chunk: int = 1
    colour_std: float = 0.1
    colour_until: int | None = None
    noisy_scale: float = 1.0
    scale: float = 1.0              # of the network's input, in training and at test: the paper reads pixels of 0 to 255 as they are
    mean_at: str = "crop"
    order: str = "shuffled"


@dataclass(frozen=True)
class Constant:
    """One rate from first to last."""


@dataclass(frozen=True)
class Plateau:
    """Divide by `divisor` when the validation error has not improved by `gain` points for `patience` epochs, `drops` times;
    stop at the next plateau after the last drop (paper, section 5)."""

    patience: int = 3
    gain: float = 0.1               # points of per cent
    drops: int = 3
    divisor: float = 10.0


@dataclass(frozen=True)
class Steps:
    """Divide by `divisor` at each epoch of `at`; from (epoch, layer, rate) of `layer_rates` on that layer learns at that rate."""

    at: tuple[int, ...]
    divisor: float = 10.0
    layer_rates: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A network and its training, by name.  `build(classes)` gives the layers, input first, SoftmaxLoss last."""

    name: str
    about: str                                  # one line for --help and tables
    build: Callable[[int], list[Layer]]
    crop: int = 224                             # pixels a side the network sees
    record: int = 256                           # pixels a side of a stored picture
    classes: int = 1000                         # of the paper's task; a data set brings its own number
    batch: int = 128
    rate: float = 0.01
    momentum: float = 0.9
    decay: float = 0.0005
    epochs: int = 90
    schedule: Constant | Plateau | Steps = field(default_factory=Plateau)
    augmentation: Augmentation = field(default_factory=Augmentation)
    test_views: str = "centre"                  # views averaged at every validation: "centre" or "ten"
    ties: str = "index"                         # top-k under ties: by "index", or "fractional" credit
    differs: tuple[str, ...] = ()               # what is not the paper's, one sentence each

    @property
    def input(self) -> Shape:
        return Shape(1, self.crop, self.crop, 3)

    def but(self, **changes) -> Recipe:
        """This recipe with some fields changed."""
        return replace(self, **changes)
