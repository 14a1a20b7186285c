"""The CIFAR-10 networks of cuda-convnet's example files (paper, sections 3.1 and 3.3).

Named by the test error their authors reached.  Rates: .001 for weights and twice that for biases.  Pools of 3 every 2 round
up.  Weight decay differs by layer, so the recipe carries .004 and each layer a multiple of it.
`unit` is ReLU, Tanh or Sigmoid: figure 1 compares them on a four-layer network of this family.
"""

from __future__ import annotations

from functools import partial

from ..layers import LRN, AvgPool, Conv, Layer, Linear, Local, MaxPool, ReLU, SoftmaxLoss, SpatialNorm
from .recipe import Augmentation, Recipe, Steps

DECAY = 0.004


def cifar13(classes: int = 10, *, unit: type[Layer] = ReLU, ties: str = "all", bias_rate: float = 2.0) -> list[Layer]:
    """Two convolutions, two locally connected layers, no norms: 13 % error."""
    return [
        Conv("conv1", 64, 5, pad=2, std=1e-4, decay=0.0, bias_rate=bias_rate), unit("relu1"), MaxPool("pool1", 3, 2, ties),
        Conv("conv2", 64, 5, pad=2, std=0.01, decay=0.0, bias_rate=bias_rate), unit("relu2"), MaxPool("pool2", 3, 2, ties),
        Local("local3", 32, 3, pad=1, std=0.04, bias_rate=bias_rate), unit("relu3"),
        Local("local4", 32, 3, pad=1, std=0.04, bias_rate=bias_rate), unit("relu4"),
        Linear("fc10", classes, std=0.01, bias_rate=bias_rate), SoftmaxLoss("loss"),
    ]


def cifar11(classes: int = 10, *, lrn: bool = True, unit: type[Layer] = ReLU, ties: str = "all", bias_rate: float = 2.0) -> list[Layer]:
    """The same with LRN over nine maps after the first pool and before the second: 11 % error.  lrn=False takes both out."""
    norm = partial(LRN, n=9, k=1.0, alpha=0.001, beta=0.75, divide_by_n=True)
    net = [
        Conv("conv1", 64, 5, pad=2, std=1e-4, decay=0.0, bias_rate=bias_rate), unit("relu1"), MaxPool("pool1", 3, 2, ties), norm("norm1"),
        Conv("conv2", 64, 5, pad=2, std=0.01, decay=0.0, bias_rate=bias_rate), unit("relu2"), norm("norm2"), MaxPool("pool2", 3, 2, ties),
        Local("local3", 64, 3, pad=1, std=0.04, bias_rate=bias_rate), unit("relu3"),
        Local("local4", 32, 3, pad=1, std=0.04, bias_rate=bias_rate), unit("relu4"),
        Linear("fc10", classes, std=0.01, decay=0.01 / DECAY, bias_rate=bias_rate), SoftmaxLoss("loss"),
    ]
    return [layer for layer in net if lrn or not isinstance(layer, LRN)]


def cifar18(classes: int = 10, *, unit: type[Layer] = ReLU, ties: str = "all", bias_rate: float = 2.0) -> list[Layer]:
    """Three convolutions, average pools, norms over 3 x 3 of the same map: 18 % error, and quick."""
    norm = partial(SpatialNorm, n=3, k=1.0, alpha=5e-5 / 9, beta=0.75)
    return [
        Conv("conv1", 32, 5, pad=2, std=1e-4, bias_rate=bias_rate), unit("relu1"), MaxPool("pool1", 3, 2, ties), norm("norm1"),
        Conv("conv2", 32, 5, pad=2, std=0.01, bias_rate=bias_rate), unit("relu2"), AvgPool("pool2", 3, 2), norm("norm2"),
        Conv("conv3", 64, 5, pad=2, std=0.01, bias_rate=bias_rate), unit("relu3"), AvgPool("pool3", 3, 2),
        Linear("fc10", classes, std=0.01, decay=1.0 / DECAY, bias_rate=bias_rate), SoftmaxLoss("loss"),
    ]


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
