"""The CIFAR-10 networks of cuda-convnet's example files (paper, sections 3.1 and 3.3).

Named by the test error their authors reached.  Rates: .001 for weights and twice that for biases.  Pools of 3 every 2 round
up.  Weight decay differs by layer, so the recipe carries .004 and each layer a multiple of it.
`unit` is "relu", "tanh" or "sigmoid": figure 1 compares the first two on `figure1`, four layers of this family without regularisation.
"""

from __future__ import annotations

from functools import partial

from ..layers import LRN, AvgPool, Conv, Layer, Linear, Local, MaxPool, ReLU, Sigmoid, SoftmaxLoss, SpatialNorm, Tanh
from ..spec import MiniAlexError
from .recipe import Augmentation, Constant, Recipe, Steps

DECAY = 0.004
UNITS = {"relu": ReLU, "tanh": Tanh, "sigmoid": Sigmoid}


def unit_of(word: str) -> type[Layer]:
    """The layer class of "relu", "tanh" or "sigmoid"."""
    if word not in UNITS:
        raise MiniAlexError(f"unit={word!r}: there are {', '.join(UNITS)}")
    return UNITS[word]


def cifar13(classes: int = 10, *, unit: str = "relu", ties: str = "all", bias_rate: float = 2.0) -> list[Layer]:
    """Two convolutions, two locally connected layers, no norms: 13 % error."""
    act = unit_of(unit)
    return [
        Conv("conv1", 64, 5, pad=2, std=1e-4, decay=0.0, bias_rate=bias_rate), act("relu1"), MaxPool("pool1", 3, 2, ties),
        Conv("conv2", 64, 5, pad=2, std=0.01, decay=0.0, bias_rate=bias_rate), act("relu2"), MaxPool("pool2", 3, 2, ties),
        Local("local3", 32, 3, pad=1, std=0.04, bias_rate=bias_rate), act("relu3"),
        Local("local4", 32, 3, pad=1, std=0.04, bias_rate=bias_rate), act("relu4"),
        Linear("fc10", classes, std=0.01, bias_rate=bias_rate), SoftmaxLoss("loss"),
    ]


def cifar11(classes: int = 10, *, lrn: bool = True, unit: str = "relu", ties: str = "all", bias_rate: float = 2.0) -> list[Layer]:
    """The same with LRN over nine maps after the first pool and before the second: 11 % error.  lrn=False takes both out."""
    act, norm = unit_of(unit), partial(LRN, n=9, k=1.0, alpha=0.001, beta=0.75, divide_by_n=True)
    net = [
        Conv("conv1", 64, 5, pad=2, std=1e-4, decay=0.0, bias_rate=bias_rate), act("relu1"), MaxPool("pool1", 3, 2, ties), norm("norm1"),
        Conv("conv2", 64, 5, pad=2, std=0.01, decay=0.0, bias_rate=bias_rate), act("relu2"), norm("norm2"), MaxPool("pool2", 3, 2, ties),
        Local("local3", 64, 3, pad=1, std=0.04, bias_rate=bias_rate), act("relu3"),
        Local("local4", 32, 3, pad=1, std=0.04, bias_rate=bias_rate), act("relu4"),
        Linear("fc10", classes, std=0.01, decay=0.01 / DECAY, bias_rate=bias_rate), SoftmaxLoss("loss"),
    ]
    return [layer for layer in net if lrn or not isinstance(layer, LRN)]


def cifar18(classes: int = 10, *, lrn: bool = True, unit: str = "relu", ties: str = "all", bias_rate: float = 2.0) -> list[Layer]:
    """Three convolutions, average pools, norms over 3 x 3 of the same map: 18 % error, and quick.  lrn=False takes the norms out."""
    act, norm = unit_of(unit), partial(SpatialNorm, n=3, k=1.0, alpha=5e-5 / 9, beta=0.75)
    net = [
        Conv("conv1", 32, 5, pad=2, std=1e-4, bias_rate=bias_rate), act("relu1"), MaxPool("pool1", 3, 2, ties), norm("norm1"),
        Conv("conv2", 32, 5, pad=2, std=0.01, bias_rate=bias_rate), act("relu2"), AvgPool("pool2", 3, 2), norm("norm2"),
        Conv("conv3", 64, 5, pad=2, std=0.01, bias_rate=bias_rate), act("relu3"), AvgPool("pool3", 3, 2),
        Linear("fc10", classes, std=0.01, decay=1.0 / DECAY, bias_rate=bias_rate), SoftmaxLoss("loss"),
    ]
    return [layer for layer in net if lrn or not isinstance(layer, SpatialNorm)]


def figure1(classes: int = 10, *, unit: str = "relu", width: float = 1.0, fan_in: bool = False,
            input: int = 32) -> list[Layer]:
    """Four layers with weights and nothing that regularises: three convolutions of 5 x 5, each with its unit and a max pool, and fc10.

    The paper names no network for figure 1; this is cifar18's without its norms, with its first weights.  `fan_in` draws them from
    N(0, 1/fan-in) instead, which with pixels of about one (scale=1/64) is how networks are begun since: the comparison of units
    depends on it.  `width` multiplies the maps, `input` is the side of the picture.
    """
    act, layers, C, side = unit_of(unit), [], 3, input
    for i, (maps, std) in enumerate(((32, 1e-4), (32, 0.01), (64, 0.01)), start=1):
        K = max(1, round(maps * width))
        layers += [Conv(f"conv{i}", K, 5, pad=2, std=(25 * C) ** -0.5 if fan_in else std), act(f"relu{i}"), MaxPool(f"pool{i}", 3, 2)]
        C, side = K, -(-(side - 3) // 2) + 1
    return [*layers, Linear("fc10", classes, std=(C * side * side) ** -0.5 if fan_in else 0.01), SoftmaxLoss("loss")]


_TRAINING = dict(record=32, classes=10, rate=0.001, decay=DECAY)
_CROPS = Augmentation(inclusive=True, colour_std=0.0, mean_at="centre")
_LIKE = ("rates of .001 and .002, decays by layer, 24 x 24 crops with flips, no colour noise: as in cuda-convnet's example file",)

CIFAR13 = Recipe(
    "cifar13", "CIFAR-10, four layers without norms (13 %)", cifar13, crop=24, epochs=520, schedule=Steps(at=(500, 510)),
    augmentation=_CROPS, test_views="ten", **_TRAINING,
    differs=(*_LIKE, "no schedule is on record for this file: that of cifar11 is used"))
CIFAR11 = Recipe(
    "cifar11", "CIFAR-10, four layers with LRN (11 %)", cifar11, crop=24, epochs=520, schedule=Steps(at=(500, 510)),
    augmentation=_CROPS, test_views="ten", **_TRAINING,
    differs=(*_LIKE, "500 epochs on all training pictures, then 10 and 10 (originally 350 of the 500 on four fifths of them)"))
CIFAR18 = Recipe(
    "cifar18", "CIFAR-10, three layers, the quick one (18 %)", cifar18, crop=32, epochs=140, schedule=Steps(at=(120, 130)),
    augmentation=Augmentation(crops=False, flips=False, colour_std=0.0), **_TRAINING,
    differs=("rates of .001 and .002, decay .004 and 1 in fc10, whole pictures without crops or flips: as in cuda-convnet's example file",))
FIGURE1 = Recipe(
    "figure1", "CIFAR-10, four layers without regularisation (figure 1)", figure1, crop=32, record=32, classes=10, rate=0.001, epochs=40,
    schedule=Constant(), decay=0.0, augmentation=Augmentation(crops=False, flips=False, colour_std=0.0),
    differs=("the paper names no network for figure 1: this is cifar18 without its norms",
             "no weight decay, no crops, no flips, no colour noise"))
